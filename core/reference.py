"""python -m core.reference   prints docs/reference.md from the Click commands: their options and examples."""

import inspect
import re
from collections.abc import Iterator

import click

from tuneyard.core.cli import cli, examples_of
from tuneyard.core.documents import markdown_table

HEAD = """# Commands and options

Made by `make reference` from the commands themselves; a test holds it current. `tuneyard data`, `recipe`,
`adapter` and `eval NAME` are `python -m compiler`, `recipes`, `adapters` and `eval.NAME`. The examples run
from the root of the checkout after `make demo`.
"""


def reference() -> str:
    """The reference as Markdown: a section for each command, with a table of its options."""
    return "\n".join([HEAD, *(_section(context) for context in commands())])


def commands(context: click.Context | None = None) -> Iterator[click.Context]:
    """Yield the context of every command of `tuneyard`, or below another one, in the order of their names."""
    context = context or click.Context(cli, info_name="tuneyard")
    group = context.command
    if not isinstance(group, click.Group):
        yield context
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield from commands(click.Context(command, info_name=name, parent=context))


def _section(context: click.Context) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    rows = []
    for parameter in command.get_params(context):  # `merge` adds the options of its methods here
        record = parameter.get_help_record(context)
        if record and "--help" not in parameter.opts:
            name, text = record
            rows.append([f"`{_cell(name)}`", _cell(text)])
    table = markdown_table(["option", "meaning"], rows)
    parts = [f"## {context.command_path}", inspect.cleandoc(command.help or "").replace("\b\n", "")]
    parts += [f"```\n{usage}\n```", table if rows else ""]
    parts.append("\n".join(["```", *examples_of(command), "```"]))
    return "\n\n".join(filter(None, parts)) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
