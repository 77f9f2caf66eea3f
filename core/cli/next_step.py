"""The last two lines of a command: where its result is, and the next command. `-q` leaves them out."""

import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import click
from click.core import ParameterSource

from tuneyard.core.language.messages import say
from tuneyard.core.language.reader_language import LANG

_PLACEHOLDERS = {"BASE", "DIR", "FILE", "MODEL", "NAME", "NAME_OR_DIR", "OWNER/NAME", "PATH", "SPEC"}
_OF_COLUMNS = ("--answer", "--by", "--cluster", "--column", "--label", "--text")
"""Options of columns, which a table may call NAME."""
_IS_QUIET = f"{__name__}.quiet"


def next_step(place: object, command: Sequence[object] | str = ()) -> None:
    """Print to stderr where the result of the running command is, and the words of the next command.

    A command calls this at its end. With `-q` or `--json` nothing is printed. A `place` of None means that
    the result is printed, or that the command has named its files.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.meta.get(_IS_QUIET) or context.params.get("as_json"):
        return
    if place is not None:
        say(f"result: {place}", to_stderr=True)
    if not isinstance(command, str):
        command = shlex.join(str(word) for word in command)
    if command:
        say(f"next: {command}", to_stderr=True)


def is_quiet() -> bool:
    """True if the running command has `-q`."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(_IS_QUIET, False)


def same_options(*names: str) -> list[str]:
    """Options of the running command that the user gave, as words for the next command.

    `names` are the long names, e.g. `--dataset-dir`. A switch has its positive name: `--duplicates`.
    """
    context = click.get_current_context(silent=True)
    words: list[str] = []
    if context is None:  # called from Python
        return words
    for option in context.command.get_params(context):
        spelled = [name for name in names if name in option.opts]
        if not spelled or not isinstance(option, click.Option) or option.name is None:
            continue
        if context.get_parameter_source(option.name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[option.name]
        if option.is_flag:
            words.append(spelled[0] if value else option.secondary_opts[0])
            continue
        for part in value if option.multiple else [value]:
            words += [spelled[0], str(part)]
    return words


QUIET = click.Option(
    ["-q", "--quiet"],
    is_flag=True,
    help="Leave out where the result is and the next command.",
)


class TuneyardCommand(click.Command):
    """A command with `--lang` and `-q`."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options of the command, `--lang`, `-q`, and `--help`."""
        *params, last = super().get_params(ctx)
        if "--help" in last.opts:
            return [*params, LANG, QUIET, last]
        return [*params, last, LANG, QUIET]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. An error of Click's parser gets the command, for its usage and example."""
        for option, word in pairwise(["", *args]):
            if word in _PLACEHOLDERS and option not in _OF_COLUMNS and not Path(word).exists():
                raise click.BadParameter(f"{word} is a placeholder of the help: put your own there.", ctx)
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise
        if ctx.params.pop("quiet", False):
            ctx.meta[_IS_QUIET] = True
        return rest
