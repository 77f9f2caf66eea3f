"""`tuneyard GROUP COMMAND`: every command under one name, from any folder, imported when it is called.

What all commands have is here, too: `--lang`, `-q`, examples, and where the result is and the next command.
`python -m compiler`, `recipes`, `adapters` and `eval.NAME` run the same Click commands, under the same names.
"""

import ast
import difflib
import importlib
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
from click.core import ParameterSource
from click.exceptions import NoSuchCommand

from tuneyard.core.cli.run import CLI
from tuneyard.core.installation.checkout import packages_folder
from tuneyard.core.language.message import _, joined, relative, typed
from tuneyard.core.language.messages import one_command, say
from tuneyard.core.language.reader import CHINESE, ENGLISH, write_in
from tuneyard.core.text.secrets import public_words

SUMMARY = 1000  # characters: Click cuts a first sentence that is longer
_PLACEHOLDERS = {"BASE", "DIR", "FILE", "MODEL", "NAME", "NAME_OR_DIR", "OWNER/NAME", "PATH", "SPEC"}
_OF_COLUMNS = ("--answer", "--by", "--cluster", "--column", "--label", "--text")
"""Options of columns, which a table may call NAME."""
_IS_QUIET = f"{__name__}.quiet"
_TYPED = ParameterSource.COMMANDLINE


class WithExamples(click.Command):
    """A command or a group whose `--help` ends with examples, each a command line. The tests run all."""

    examples: Sequence[str] = ()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples; long ones are wrapped."""
        lines = ["\b", "Examples:"]
        for example in self.examples:
            wrapped = textwrap.wrap(example, 74, break_long_words=False, break_on_hyphens=False)
            lines.append("  " + " \\\n      ".join(wrapped))
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("\n".join(lines))


class LazyGroup(WithExamples, click.Group):
    """A group that imports a command when it is called: {name: "module:attribute"}; the help imports none.

    `plugins` gives the commands of plug-ins by name. They are imported only for the list or an unknown name.
    """

    def __init__(
        self,
        name: str | None,
        *,
        lazy: Mapping[str, str] = MappingProxyType({}),
        plugins: Callable[[], Mapping[str, click.Command]] = dict,
        examples: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(name, context_settings=CLI, **options)
        self.lazy, self.plugins, self.examples = lazy, plugins, examples

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first word; an unknown one gets suggestions."""
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            message = _("No such command {name!r}. {hint}", name=args[0], hint=self._suggestion(ctx, args[0]))
            raise NoSuchCommand(args[0], message, ctx=ctx) from error

    def _suggestion(self, ctx: click.Context, name: str) -> str:
        similar = difflib.get_close_matches(name, self.list_commands(ctx))
        root, program = ctx.find_root(), ctx.command_path
        if not similar and isinstance(root.command, LazyGroup):
            ctx, similar = root, list(root.command._of_groups(root, name))
        if not similar:
            return _("`{command} --help` lists the commands.", command=program)
        commands = [f"`{ctx.command_path} {words}`" for words in similar]
        return _("Did you mean {commands}?", commands=joined(commands, _(" or ")))

    def _of_groups(self, ctx: click.Context, name: str) -> Iterator[str]:
        """Yield `data compile` for `compile`: the commands of this name in groups, which are imported."""
        for group_name in self.list_commands(ctx):
            group = self.get_command(ctx, group_name)
            if isinstance(group, click.Group) and name in group.list_commands(ctx):
                yield f"{group_name} {name}"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, imported or not."""
        return sorted({*self.lazy, *self.plugins(), *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if no command has this name."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name) or self.plugins().get(cmd_name)
        module, _unused, attribute = self.lazy[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands with the first sentence of each one's docstring."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._summary(ctx, name)) for name in self.list_commands(ctx)])

    def _summary(self, ctx: click.Context, name: str) -> str:
        if name not in self.lazy:
            command = self.get_command(ctx, name)
            return command.get_short_help_str(SUMMARY) if command else ""
        module, _unused, attribute = self.lazy[name].partition(":")
        parsed = ast.parse(source(module).read_text(encoding="utf-8"))
        documented = {n.name: ast.get_docstring(n) for n in parsed.body if isinstance(n, ast.FunctionDef)}
        summary = documented.get(attribute, ast.get_docstring(parsed))  # a group's help is its module's
        return click.Command(name, help=summary).get_short_help_str(SUMMARY)


def source(module: str) -> Path:
    """File of one of our modules, without importing it."""
    return packages_folder().joinpath(*module.split(".")).with_suffix(".py")


def _set_language(_context: click.Context, _unused: click.Parameter, name: str | None) -> None:
    if name is not None:
        write_in(name)


LANG = click.Option(
    ["--lang"],
    is_eager=True,  # before options that may be wrong
    type=click.Choice([ENGLISH, CHINESE]),
    expose_value=False,
    callback=_set_language,
    help="Language of texts and plots.  [default: the locale's]",
)
"""Sets the language of this process, also for the error that ends it; the command itself gets no value."""
QUIET = click.Option(
    ["-q", "--quiet"],
    is_flag=True,
    help="Leave out where the result is and the next command.",
)


class TuneyardCommand(WithExamples):
    """A command with `--lang` and `-q`."""

    def __init__(self, name: str | None, *, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(name, context_settings=CLI, **options)
        self.examples = examples
        self.params = [*self.params, LANG, QUIET]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; a `~` that the shell left alone (in quotes, after `=`) is the home folder.

        An error of Click's parser gets the command, for its usage and example.
        """
        for option, word in pairwise(["", *args]):
            if word in _PLACEHOLDERS and option not in _OF_COLUMNS and not Path(word).exists():
                message = _("{word} is a placeholder of the help: put your own there.", word=word)
                raise click.BadParameter(message, ctx)
        home = os.path.expanduser("~/")  # noqa: PTH111  # Path's raises without one
        args = [re.sub("^~/|(?<==)~/", home, word) for word in args]
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise
        if ctx.params.pop("quiet", False):
            ctx.meta[_IS_QUIET] = True
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, which prints each warning of `warn_once` once."""
        with one_command():
            return super().invoke(ctx)


def next_step(place: object, command: Sequence[object] | str = ()) -> None:
    """Print to stderr where the result of the running command is, and the words of the next command.

    A command calls this at its end. With `-q` or `--json` nothing is printed. A `place` of None means that
    the result is printed, or that the command has named its files.
    """
    context = click.get_current_context(silent=True)
    if context is None or is_quiet() or context.params.get("as_json"):
        return
    if place is not None:
        say(_("result: {place}", place=relative(place)), to_stderr=True)
    if not isinstance(command, str):
        command = typed(public_words(map(str, command)))
    if command:
        say(_("next: {command}", command=command), to_stderr=True)


def up_to_date(place: object, command: Sequence[object] | str = ()) -> None:
    """End a command that has nothing to do: its result at `place` is current. Print this, and what is next.

    A command calls this if the state of its request is current, and ends with 0. With `--json` nothing is
    printed: the command prints the object of its result.
    """
    context = click.get_current_context(silent=True)
    if context is not None and context.params.get("as_json"):
        return
    say(_("{path}: up to date", path=relative(place)))
    next_step(None, command)


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
        if context.get_parameter_source(option.name) is not _TYPED:
            continue
        value = context.params[option.name]
        if option.is_flag:
            words.append(spelled[0] if value else option.secondary_opts[0])
            continue
        for part in value if option.multiple else [value]:
            words += [spelled[0], str(part)]
    return words


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command as it was typed, for messages and records: `tuneyard eval nli`, and the words after it."""

    program: str = ""
    words: tuple[str, ...] = ()

    def text(self, without: Collection[str] = (), pattern: str = "") -> str:
        """One line for a shell, minus the words in `without` and what fits `pattern`."""
        words = shlex.join(word for word in self.words if word not in without)
        return re.sub(pattern, "", f"{self.program} {words}".rstrip())


NO_COMMAND_LINE = CommandLine()
"""That of a call from Python."""


def typed_command(module: str) -> CommandLine:
    """Command line of this process, as `tuneyard …`. Secrets in its words are masked.

    `module` (such as `eval.nli`) names the command if the process was not started by a command line.
    """
    context = click.get_current_context(silent=True)
    program = context.find_root().info_name if context else None
    if program is None or not program.startswith("tuneyard"):
        program = f"tuneyard {module.replace('.', ' ')}"
    return CommandLine(program, tuple(public_words(sys.argv[1:])))


def command_line(module: str, without: Collection[str] = (), pattern: str = "") -> str:
    """Command line of this process in one line: `typed_command`, then `CommandLine.text`."""
    return typed_command(module).text(without, pattern)


def explicit_options(context: click.Context) -> dict[str, str]:
    """Options of the command line, without `--lang` and `-q`: `{"max_new_tokens": "--max-new-tokens"}`.

    The names are those of the function's arguments, the flags those of `--help`.
    """
    explicit = {}
    for option in context.command.params:
        name = str(option.name)
        is_own = isinstance(option, click.Option) and option not in (LANG, QUIET)
        if is_own and context.get_parameter_source(name) is _TYPED:
            explicit[name] = option.opts[0]
    return explicit


def cli_command(name: str, *examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Decorator of a command whose `--help` ends with these examples."""
    return click.command(name, cls=TuneyardCommand, examples=examples)
