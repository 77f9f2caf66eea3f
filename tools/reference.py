"""python -m tools.reference: write docs/reference.md of the commands, docs/problems.md and its Chinese page.

Run it (`make reference`) after a change of an option, a help text or a code. A test runs it with `--check`.
"""

import inspect
import re
import sys
from collections import Counter
from typing import NamedTuple

import click

from testing.commands import commands
from tools.problem_pages import chinese_problems_page, problems_page
from tools.written import write_or_check
from tuneyard.core.installation.checkout import ROOT

OF_EVERY_COMMAND = {"--help", "--lang", "--quiet"}
HEAD = """# Commands and options

Made by `make reference` from the commands themselves. `--help` prints the same, with two examples.
In a checkout `python -m compiler`, `recipes`, `adapters` and `eval.NAME` start the same commands.

Every command ends with the place of its result and the next command; `-q` or `--quiet` leaves them out.
`--lang en` or `--lang zh` sets the language of every command. The default is the locale's.
Options that several commands of a group have are explained once, above the group's commands.
"""

SHARED_BY = 2  # so many commands of a group have an option before it is explained above them


class Option(NamedTuple):
    """An option of a command as its help has it: `--rows INTEGER`, and its meaning."""

    usage: str
    meaning: str

    def line(self) -> str:
        return f"- `{self.usage}` {self.meaning}".rstrip()


def reference() -> str:
    """The reference as Markdown: for each group its shared options, then a section for each command."""
    groups: dict[str, list[click.Context]] = {}
    for context in commands():
        groups.setdefault(_group_name(context), []).append(context)
    parts = [HEAD]
    for name, contexts in groups.items():
        shared = _shared_options(contexts)
        if shared:
            lines = "\n".join(option.line() for option in shared)
            parts.append(f"## Shared options of {name}\n\n{lines}\n")
        parts += [_section(context, shared) for context in contexts]
    return "\n".join(parts)


def _group_name(context: click.Context) -> str:
    """`tuneyard eval`, for its commands and for those of a group below it."""
    return " ".join(context.command_path.split()[:2])


def _shared_options(contexts: list[click.Context]) -> list[Option]:
    """The options that so many commands have in the same words, in the order in which they first occur."""
    counts = Counter(option for context in contexts for option in _options(context))
    return [option for option, count in counts.items() if count >= SHARED_BY]


def _options(context: click.Context) -> list[Option]:
    options = []
    for parameter in context.command.get_params(context):  # `merge` adds the options of its methods here
        record = parameter.get_help_record(context)
        if (
            record
            and isinstance(parameter, click.Option)
            and not OF_EVERY_COMMAND.intersection(parameter.opts)
        ):
            name, meaning = record
            options.append(Option(_one_line(name), _one_line(meaning)))
    return options


def _section(context: click.Context, shared: list[Option]) -> str:
    command = context.command
    arguments = " ".join(command.collect_usage_pieces(context)).replace("[OPTIONS]", "").strip()
    parts = [f"## {context.command_path}", inspect.cleandoc(command.help or "").replace("\b\n", "")]
    if arguments:
        parts.append(f"Arguments: `{arguments}`")
    options = _options(context)
    parts.append("\n".join(option.line() for option in options if option not in shared))
    names = [f"`{option.usage.split()[0].rstrip(',')}`" for option in options if option in shared]
    if names:
        parts.append(f"Shared: {' '.join(names)}")
    return "\n\n".join(filter(None, parts)) + "\n"


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


if __name__ == "__main__":
    docs = ROOT / "docs"
    english = {docs / "reference.md": reference(), docs / "problems.md": problems_page()}
    chinese = {docs / "zh/problems.md": chinese_problems_page()}
    sys.exit(write_or_check("tools.reference", english | chinese))
