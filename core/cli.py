"""`tuneyard GROUP COMMAND`: every command under one name, from any folder, imported when it is called.

`python -m compiler`, `recipes`, `adapters` and `eval.NAME` run the same Click commands.
"""

import ast
import difflib
import importlib
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import click
from click.exceptions import NoSuchCommand

from tuneyard.core.checkout import ROOT, version
from tuneyard.core.errors import CLI, run


class LazyGroup(click.Group):
    """A group that imports a command when it is called: {name: "module:attribute"}; the help imports none.

    `aliases` are other names of commands, {alias: name}. Help and shell completion do not list them.
    """

    def __init__(
        self,
        *arguments: Any,
        lazy: dict[str, str],
        aliases: Mapping[str, str] = MappingProxyType({}),
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.lazy = lazy
        self.aliases = aliases

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first word, by name or alias; an unknown one gets suggestions."""
        name, *rest = args
        try:
            return super().resolve_command(ctx, [self.aliases.get(name, name), *rest])
        except NoSuchCommand as error:
            message = f"{error.message} {self._suggestion(ctx, name)}"
            raise NoSuchCommand(name, message, ctx=ctx) from None

    def _suggestion(self, ctx: click.Context, name: str) -> str:
        """Return `Did you mean …?` with the commands nearest to `name`, here and in the groups of this group.

        This imports every command, which only an error pays for.
        """
        commands_by_name: dict[str, list[str]] = {}
        for own_name in self.list_commands(ctx):
            commands_by_name.setdefault(own_name, []).append(own_name)
            command = self.get_command(ctx, own_name)
            if isinstance(command, click.Group):
                for inner_name in command.list_commands(ctx):
                    commands_by_name.setdefault(inner_name, []).append(f"{own_name} {inner_name}")
        if name in commands_by_name:
            similar_names = [name]
        else:
            similar_names = difflib.get_close_matches(name, commands_by_name)
        if not similar_names:
            return f"`{ctx.command_path} --help` lists the commands."
        similar = [
            f"`{ctx.command_path} {path}`" for each in similar_names for path in commands_by_name[each]
        ]
        return f"Did you mean {' or '.join(similar)}?"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, imported or not."""
        return sorted({*self.lazy, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None where there is none of that name."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands with the first sentence of each one's docstring."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._summary(ctx, name)) for name in self.list_commands(ctx)])

    def _summary(self, ctx: click.Context, name: str) -> str:
        if name not in self.lazy:
            command = self.get_command(ctx, name)
            return command.get_short_help_str(90) if command else ""
        module, _, attribute = self.lazy[name].partition(":")
        parsed = ast.parse(source(module).read_text(encoding="utf-8"))
        documented = {n.name: ast.get_docstring(n) for n in parsed.body if isinstance(n, ast.FunctionDef)}
        return click.Command(name, help=documented.get(attribute)).get_short_help_str(90)


def source(module: str) -> Path:
    """Return the file of a module of ours, which is not imported for it."""
    _tuneyard, *parts = module.split(".")
    return ROOT.joinpath(*parts).with_suffix(".py")


def command_line(module: str, without: Collection[str] = ()) -> str:
    """Return the command as it was called (`tuneyard …`, `python -m MODULE …`) without some of its words."""
    context = click.get_current_context(silent=True)
    name = context.find_root().info_name if context else None
    program = "tuneyard" if name == "tuneyard" else f"python -m {module}"
    return f"{program} {shlex.join(word for word in sys.argv[1:] if word not in without)}"


def cli_command(name: str, *commands: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Return the decorator of a command of ours, whose `--help` ends in `examples` of it."""
    return click.command(name, context_settings=CLI, epilog=examples(*commands))


def examples(*commands: str) -> str:
    """Return the end of a `--help`: what to type, each command run by the tests, a long one in two lines."""
    lines = (textwrap.wrap(one, 74, break_long_words=False, break_on_hyphens=False) for one in commands)
    return "\n".join(("\b", "Examples:", *("  " + " \\\n      ".join(wrapped) for wrapped in lines)))


def examples_of(command: click.Command) -> list[str]:
    """Return the commands at the end of a `--help`, each as one line."""
    text = (command.epilog or "").partition("Examples:\n")[2]
    return [line.strip() for line in re.sub(r" \\\n +", " ", text).splitlines()]


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        known = version()
        click.echo(f"tuneyard {known['version']} {known.get('commit', '')[:12]}".rstrip())
        ctx.exit()


GROUPS = {
    "data": "tuneyard.compiler.cli:cli",
    "recipe": "tuneyard.recipes.__main__:cli",
    "adapter": "tuneyard.adapters.__main__:cli",
    "eval": "tuneyard.eval.__main__:cli",
    "doctor": "tuneyard.core.doctor:cli",
}
OLD_NAMES = {"compiler": "data", "recipes": "recipe", "adapters": "adapter"}
"""The packages of the groups, by which they were called (`python -m compiler`)."""
EXAMPLES = examples("tuneyard doctor", "tuneyard data compile demo_rte")


@click.group(cls=LazyGroup, lazy=GROUPS, aliases=OLD_NAMES, context_settings=CLI, epilog=EXAMPLES)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and the commit.",
)
def cli() -> None:
    """From a raw file to a decision: which adapter, or which merge of them, do I ship?"""


def main() -> NoReturn:
    """Run `tuneyard`."""
    run(cli)
