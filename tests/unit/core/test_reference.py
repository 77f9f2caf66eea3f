"""docs/reference.md is what the commands say now, and every command ends its help in two examples."""

import click
import pytest

from core.cli import examples_of
from core.reference import commands, reference
from tests.conftest import ROOT

COMMANDS = {context.command_path: context.command for context in commands()}


def test_the_page_is_current() -> None:
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert page == reference(), "run `make reference`"


def test_every_command_is_there() -> None:
    groups = {name.split()[1] for name in COMMANDS}
    assert groups == {"adapter", "data", "doctor", "eval", "recipe"}
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("name", COMMANDS)
def test_two_examples_of_its_own_end_the_help(name: str) -> None:
    command = COMMANDS[name]
    found = examples_of(command)
    assert len(found) == 2 and len(set(found)) == 2
    assert any(line.startswith(name) for line in found) or name == "tuneyard eval ab ask"
    shown = click.Context(command, info_name=name).get_help()
    last = shown.partition("Examples:\n")[2].split()
    assert [word for word in last if word != "\\"] == " ".join(found).split(), "nothing follows the examples"
