"""The language of the reader (that of `--lang`, otherwise of the locale), and printed lines in it.

messages_zh.json has whole lines with {fields}, so that the code that makes a line has one wording of it.
"""

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Set
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import click

from tuneyard.core.language.han import closed_up
from tuneyard.core.language.message import Message, _, translated
from tuneyard.core.language.reader import CHINESE, ENGLISH, current
from tuneyard.core.text.secrets import hide_secrets

_warnings_of_command: ContextVar[set[str] | None] = ContextVar("warnings", default=None)
_FIELD = re.compile(r"\\\{(\w+)\\\}")
_INNER_FIELD = re.compile(rf"{_FIELD.pattern}((?:(?!\\\{{).)+)(?=\\\{{)")
"""A field and the text up to the next one. It ends where this text first comes: looking further for each of
several fields would take minutes."""
_CLAUSES = re.compile(r"(\S.{,300}?)([;:] )(.{1,1000})")
"""The first clause and the rest of a line that is not indented: no longer one, which takes long."""
_DIGITS = r"(?P<number>[\d,]+)"
"""The field {number}. Any text would fit other lines, and long lines would take minutes."""
_JSON_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
"""A text in a line of JSON. However deep the line is, its texts are found without recursion."""
_START, _END = "\ufdd0", "\ufdd1"  # Unicode reserves them for a program's own use
_AS_IS = re.compile(f"{_START}(.*?){_END}", re.DOTALL)
_WITH_ENDS = re.compile(f"(){_AS_IS.pattern}()", re.DOTALL)
_PLACE = re.compile(rf"{_START}(\d+){_END}")
_NAMES = {
    *("adapter", "base", "model", "dataset", "folder", "path", "name", "key", "label", "column", "context"),
    *("question", "author", "parent"),
}
"""Fields of lines that have names of the user's. A field that may have words of ours has another name."""
_QUOTED = re.compile(r'(")((?:[^"\\]|\\.)*)(")')


@functools.cache
def catalogue(name: str) -> Mapping[str, str]:
    """Texts of `NAME.json` in this folder by their English, or by their code; {} for English."""
    if name == ENGLISH:
        return {}
    file = Path(__file__).with_name(f"{name}.json")
    texts: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return texts


@functools.cache
def _lines() -> list[tuple[re.Pattern[str], str]]:
    """The pattern of each English line, and the Chinese one."""
    patterns = []
    for english, chinese in catalogue("messages_zh").items():
        pattern = re.escape(english).replace(r"\{number\}", _DIGITS)
        pattern = _INNER_FIELD.sub(r"(?>(?P<\1>.+?)\2)", pattern)
        patterns.append((re.compile(_FIELD.sub(r"(?P<\1>.+?)", pattern)), chinese))
    return patterns


def as_is(text: str) -> str:
    """Mark a text of the user's data (a label, an answer, a name) inside a line for `say` or `for_reader`.

    It is printed as it is, also where it looks like a line of ours: `result: 42`, `3 rows`.
    """
    return f"{_START}{text.replace(_START, chr(0xFFFD)).replace(_END, chr(0xFFFD))}{_END}"


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print lines for people: in their language, without secrets, with paths from the current folder on."""
    if isinstance(text, Message):
        click.echo(_put_back_as_is(relative_paths(hide_secrets(translated(text)))), err=to_stderr)
        return
    click.echo(for_reader(relative_paths(hide_secrets(text))), err=to_stderr)


def _put_back_as_is(text: str) -> str:
    return _AS_IS.sub(r"\1", text)


def print_json(value: object, default: Callable[[Any], object] | None = None) -> None:
    """Print a value as a line of JSON for programs, without secrets. `default` is that of `json.dumps`."""
    line = json.dumps(value, ensure_ascii=False, default=default)
    click.echo(_JSON_TEXT.sub(_without_secrets, line))


def _without_secrets(text: re.Match[str]) -> str:
    """A text of JSON without secrets."""
    return json.dumps(hide_secrets(json.loads(text[0])), ensure_ascii=False)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    if isinstance(text, Message):
        say(_("warning: {what}", what=text), to_stderr=True)
        return
    say(f"warning: {text}", to_stderr=True)


def warn_once(text: str) -> None:
    """Print a warning unless this command has printed the same one."""
    printed = _warnings_of_command.get()
    if printed is None:  # outside of a command
        printed = set()
    if text not in printed:
        printed.add(text)
        warn(text)


@contextlib.contextmanager
def one_command() -> Iterator[None]:
    """A command, in which `warn_once` prints each warning once."""
    token = _warnings_of_command.set(set())
    try:
        yield
    finally:
        _warnings_of_command.reset(token)


def relative_paths(text: str) -> str:
    """Write the paths below the current folder in a message from that folder on."""
    try:
        folder = str(Path.cwd())
    except FileNotFoundError:  # deleted, maybe while the command ran
        return text
    if len(folder) == 1:
        return text
    own_folder = re.compile(rf"(?<![\w./~-]){re.escape(folder)}/")
    pieces = _AS_IS.split(text)  # every second one is the user's
    for number in range(0, len(pieces), 2):
        pieces[number] = own_folder.sub("", pieces[number])
    for number in range(1, len(pieces), 2):
        pieces[number] = f"{_START}{pieces[number]}{_END}"
    return "".join(pieces)


def for_reader(text: str) -> str:
    """A printed text, line by line in Chinese for a Chinese reader. Lines that have no Chinese stay."""
    if isinstance(text, Message):
        return _put_back_as_is(translated(text))
    kept: list[str] = []
    text = _taken_out(_WITH_ENDS, text, kept)
    if current() == CHINESE:
        text = "\n".join(_translated(line, kept) for line in text.split("\n"))
    return _put_back(text, kept)


def _taken_out(pattern: re.Pattern[str], text: str, kept: list[str]) -> str:
    """A text with places in it for what `kept` has: the second group of a match, between the two others."""

    def take(match: re.Match[str]) -> str:
        before, value, after = match.groups()
        if before and value in _own_quoted():
            return match[0]
        kept.append(value)
        return f"{before}{_START}{len(kept) - 1}{_END}{after}"

    return pattern.sub(take, text)


@functools.cache
def _own_quoted() -> Set[str]:
    """What lines of ours have in quotes, such as the keys of a registry: no values of the user."""
    return {quoted for line in catalogue("messages_zh") for _before, quoted, _after in _QUOTED.findall(line)}


def _put_back(text: str, kept: list[str]) -> str:
    """The text with what was taken out of it. A value in quotes may hold a text that is kept as it is."""
    places = 1
    while places:
        text, places = _PLACE.subn(lambda place: kept[int(place[1])], text)
    return text


def _is_users_name(field: str, value: str, *, is_first: bool) -> bool:
    """True if a field has a name of the user's, such as an adapter that is called none.

    The first field may begin with what goes before a line of ours (`error: `).
    """
    return field in _NAMES and not (is_first and ": " in value)


def _translated(line: str, kept: list[str]) -> str:
    """A line in Chinese. Values in quotes are the user's, and stay."""
    for pattern, chinese in _lines():
        fields = pattern.fullmatch(line)
        if fields is not None:
            values = fields.groupdict()
            for name in values.keys() - {"text"}:  # the user's own, such as a label that is called ok or none
                if _is_users_name(name, values[name], is_first=fields.start(name) == 0):
                    continue
                values[name] = _translated(_taken_out(_QUOTED, values[name], kept), kept)
            values = {name: _put_back(value, kept) for name, value in values.items()}
            return closed_up(chinese, values).format(**values)
    clauses = _CLAUSES.fullmatch(_taken_out(_QUOTED, line, kept))
    if clauses is None:
        return line
    first, sign, rest = clauses.groups()
    translated = _translated(first, kept), _translated(rest, kept)
    if translated == (first, rest):
        return line
    return catalogue(CHINESE)[sign].join(translated)
