"""The commands of `tuneyard`, as the command line has them now."""

from collections.abc import Iterator

import click

from tuneyard.cli import cli


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


def command_names() -> list[str]:
    """`adapter export`, `adapter extract`, … of the command line itself."""
    return [context.command_path.partition(" ")[2] for context in commands()]
