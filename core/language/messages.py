"""Lines for people, in their language, and JSON for programs. Neither has a secret in it."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import click

from tuneyard.core.language.message import _, translated
from tuneyard.core.text.secrets import hide_secrets

_lines_of_command: ContextVar[set[str] | None] = ContextVar("lines", default=None)
_JSON_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
"""A text in a line of JSON. However deep the line is, its texts are found without recursion."""


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print lines for people: in their language, without secrets."""
    click.echo(hide_secrets(translated(text)), err=to_stderr)


def print_json(value: object, default: Callable[[Any], object] | None = None) -> None:
    """Print a value as a line of JSON for programs, without secrets. `default` is that of `json.dumps`."""
    line = json.dumps(value, ensure_ascii=False, default=default)
    click.echo(_JSON_TEXT.sub(_without_secrets, line))


def _without_secrets(text: re.Match[str]) -> str:
    """A text of JSON without secrets."""
    return json.dumps(hide_secrets(json.loads(text[0])), ensure_ascii=False)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    say(_("warning: {what}", what=text), to_stderr=True)


def warn_once(text: str) -> None:
    """Print a warning unless this command has printed the same one."""
    say_once(_("warning: {what}", what=text))


def say_once(line: str) -> None:
    """Print a line to stderr unless this command has printed the same one."""
    printed = _lines_of_command.get()
    if printed is None:  # outside of a command
        printed = set()
    if line not in printed:
        printed.add(line)
        say(line, to_stderr=True)


@contextlib.contextmanager
def one_command() -> Iterator[None]:
    """A command, in which `warn_once` and `say_once` print each line once."""
    token = _lines_of_command.set(set())
    try:
        yield
    finally:
        _lines_of_command.reset(token)
