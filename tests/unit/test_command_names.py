"""Every command that a message, a hint or a help text names exists, in the words that a user types."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from testing.commands import commands
from tests.conftest import ROOT
from tests.product import FILES, nodes
from tuneyard.cli import cli

WORDS = re.compile(r"\btuneyard ((?:[a-z][a-z0-9_-]*)(?: [a-z][a-z0-9_-]*)*)")
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
MODULES = {"compiler": "data", "recipes": "recipe", "adapters": "adapter", "eval": "eval"}
# Command lines only: prose as "two recipes train the same" names no command.
OLD_NAMES = re.compile(
    r"(?:(?<=`)|python -m |(?<!tuneyard )\b(?=\w+ \w+ --))(compiler|recipes|adapters|eval) ([a-z]\w+)"
)


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Texts of a module with their line; an inserted value is `{}`. Help shows the docstrings of commands."""
    inside: set[ast.AST] = set()
    for node in nodes(path):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            inside.add(node.body[0].value)
        elif isinstance(node, ast.JoinedStr):
            inside.update(node.values)
            pieces = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(pieces)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.lineno, node.value
        elif isinstance(node, ast.List | ast.Tuple):
            words = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.elts]
            if words and words[0] == "tuneyard":
                yield node.lineno, " ".join(words)


def faults(text: str) -> Iterator[str]:
    """Command lines of a text whose command does not exist."""
    text = re.sub(r"\s+", " ", text)
    for match in WORDS.finditer(text):
        command: click.Command = cli
        context = click.Context(cli)
        for word in match[1].split():
            if not isinstance(command, click.Group):
                break
            inner = command.get_command(context, word)
            if inner is None:
                if command is not cli or f"`{match[0]}" in text:
                    yield match[0]
                break
            command = inner
    for match in OLD_NAMES.finditer(text):
        group = cli.get_command(click.Context(cli), MODULES[match[1]])
        if isinstance(group, click.Group) and match[2] in group.list_commands(click.Context(group)):
            yield f"{match[0]}: `tuneyard {MODULES[match[1]]} {match[2]}`"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("`tuneyard recipe train r.yaml` resumes it", 0),
        ("`tuneyard recipes train r.yaml` resumes it", 1),
        ("run tuneyard data compil x", 1),
        ("`recipes train` resumes it", 1),
        ("`python -m adapters fuse A`", 1),
        ("`adapters fuse`", 1),
        ("what adapters export --to gguf made", 1),
        ("two recipes train the same adapter", 0),
        ("tuneyard is a toolkit", 0),
    ],
)
def test_faults_are_seen(text: str, count: int) -> None:
    assert len(list(faults(text))) == count


def test_every_command_of_a_text_exists() -> None:
    offenders = []
    for path in FILES:
        for line, text in literals(path):
            offenders += [f"{path.relative_to(ROOT)}:{line}: {fault}" for fault in faults(text)]
    assert offenders == []


def test_files_that_users_read_call_every_command_tuneyard() -> None:
    offenders = []
    for folder in ("adapters", "compiler", "core", "eval", "recipes", "samples"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".yaml", ".json", ".html", ".js"):
                text = path.read_text(encoding="utf-8")
                offenders += [f"{path.relative_to(ROOT)}: {fault}" for fault in faults(text)]
    assert offenders == []


def test_every_command_of_a_help_text_exists() -> None:
    contexts = {}
    for context in commands():
        for one in (context, context.parent, context.find_root()):
            contexts[one.command_path] = one
    offenders = [fault for context in contexts.values() for fault in faults(context.get_help())]
    assert offenders == []
