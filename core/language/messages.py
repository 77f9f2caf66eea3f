"""Printed lines for people, such as warnings, in English or Chinese.

messages_zh.json has whole lines with {fields}, so that the code that makes a line has one wording of it.
"""

import functools
import re
from pathlib import Path

import click

from tuneyard.core.language.han import closed_up
from tuneyard.core.language.reader_language import CHINESE, catalogue, current

_FIELD = re.compile(r"\\\{(\w+)\\\}")
_INNER_FIELD = re.compile(rf"{_FIELD.pattern}((?:(?!\\\{{).)+)(?=\\\{{)")
"""A field and the text up to the next one. It ends where this text first comes: looking further for each of
several fields would take minutes."""
_CLAUSES = re.compile(r"(\S.{,300}?)([;:] )(.{1,1000})")
"""The first clause and the rest of a line that is not indented: no longer one, which takes long."""
_DIGITS = r"(?P<number>[\d,]+)"
"""The field {number}. Any text would fit other lines, and long lines would take minutes."""


@functools.cache
def _lines() -> list[tuple[re.Pattern[str], str]]:
    """The pattern of each English line, and the Chinese one."""
    patterns = []
    for english, chinese in catalogue("messages_zh").items():
        pattern = re.escape(english).replace(r"\{number\}", _DIGITS)
        pattern = _INNER_FIELD.sub(r"(?>(?P<\1>.+?)\2)", pattern)
        patterns.append((re.compile(_FIELD.sub(r"(?P<\1>.+?)", pattern)), chinese))
    return patterns


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print lines for people: in their language, with paths from the current folder on."""
    click.echo(for_reader(relative_paths(text)), err=to_stderr)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    say(f"warning: {text}", to_stderr=True)


def warn_once(text: str) -> None:
    """Print a warning unless this command has printed the same one."""
    context = click.get_current_context(silent=True)
    texts: set[str] = set()
    if context is not None:
        texts = context.meta.setdefault(__name__, texts)
    if text not in texts:
        texts.add(text)
        warn(text)


def relative_paths(text: str) -> str:
    """Write the paths below the current folder in a message from that folder on."""
    folder = str(Path.cwd())
    if len(folder) == 1:
        return text
    return re.sub(rf"(?<![\w./~-]){re.escape(folder)}/", "", text)


def for_reader(text: str) -> str:
    """A printed text, line by line in Chinese for a Chinese reader. Lines that have no Chinese stay."""
    if current() != CHINESE:
        return text
    return "\n".join(map(_translated, text.split("\n")))


def _translated(line: str) -> str:
    for pattern, chinese in _lines():
        fields = pattern.fullmatch(line)
        if fields is not None:
            values = fields.groupdict()
            for name in values.keys() - {"text"}:  # the user's own, such as a label that is called ok or none
                values[name] = _translated(values[name])
            return closed_up(chinese, values).format(**values)
    clauses = _CLAUSES.fullmatch(line)
    if clauses is None:
        return line
    first, sign, rest = clauses.groups()
    translated = _translated(first), _translated(rest)
    if translated == (first, rest):
        return line
    return catalogue(CHINESE)[sign].join(translated)
