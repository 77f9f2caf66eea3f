"""docs/reference.md is what the commands say now, and every command ends its help in two examples."""

import click
import pytest

from testing.commands import commands
from tests.conftest import Run

CONTEXTS = list(commands())
COMMANDS = {context.command_path: context.command for context in CONTEXTS}
# By name: ids are used again as contexts go, and two workers of the tests counted other groups.
GROUPS = {c.parent.command_path: c.parent.command for c in CONTEXTS if c.parent}


def test_the_pages_of_commands_and_codes_are_current(run: Run) -> None:
    run("-m", "tools.reference", "--check")


def test_every_command_is_there() -> None:
    groups = {name.split()[1] for name in COMMANDS}
    assert groups == {"adapter", "data", "demo", "doctor", "eval", "recipe"}
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("name", GROUPS)
def test_two_examples_end_the_help_of_a_group_and_are_those_of_its_commands(name: str) -> None:
    """So that the tests run them, too."""
    group = GROUPS[name]
    ran = {example for command in COMMANDS.values() for example in command.examples}
    assert len(group.examples) == 2 and ran.issuperset(group.examples)


@pytest.mark.parametrize("name", COMMANDS)
def test_two_examples_of_its_own_end_the_help(name: str) -> None:
    command = COMMANDS[name]
    found = command.examples
    assert len(found) == 2 and len(set(found)) == 2
    assert any(line.startswith(name) for line in found) or name == "tuneyard eval ab ask"
    shown = click.Context(command, info_name=name).get_help()
    last = shown.partition("Examples:\n")[2].split()
    assert [word for word in last if word != "\\"] == " ".join(found).split(), "nothing follows the examples"
