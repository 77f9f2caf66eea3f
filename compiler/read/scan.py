"""The layout of a JSON document, and a scanner that keeps one value at a time in memory.

A document is lines, a list of rows, an object of rows, an object with a list of rows, or one row.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeGuard

import orjson

from tuneyard.compiler.kinds import kind_of
from tuneyard.compiler.read.stream import CUT_OFF, RECORD, TOO_LONG
from tuneyard.compiler.rows import MISSING, walker
from tuneyard.compiler.spec.file import no_row
from tuneyard.compiler.spec.model import Column
from tuneyard.core.errors import show_value

LOOKED_AT = 1 << 20
TURNS = ({"from", "value"}, {"role", "content"}, {"role", "parts"})
_BLANK = re.compile(r"[ \t\r\n]*")
_BETWEEN = re.compile(r"\}[ \t\r\n]*,[ \t\r\n]*\{")
_FIRST_KEY = re.compile(r'\{"[^"\\]*"')
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_STEP = 1 << 22  # characters: so many more, at most, are read for a value that has not ended
Wrong = tuple[str, str]


class BrokenError(Exception):
    """The document cannot be read on from here; `code` is the problem's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Scanner:
    """Scanner of a document. `next_sign` only looks ahead, the others move on. `BrokenError` if not JSON."""

    def __init__(self, chunks: Iterable[bytes], line: int) -> None:
        self.chunks = iter(chunks)
        self.decode = codecs.getincrementaldecoder("utf-8")().decode
        self.text, self.ended = "", False
        self.line, self.offset = line, 0
        self.at = self.counted = 0
        self.before = 0  # characters that were dropped of the line in which the text begins
        self.value_start = self.value_end = 0  # of the last value, if it is in the text
        self.separator = ""  # the characters between two objects, with a brace on either side
        self.objects_end = -1
        self.reads_ahead, self.was_ahead = True, False
        self.odd: list[Wrong] = []
        self.decoder = json.JSONDecoder(
            object_pairs_hook=self._pairs,
            parse_constant=self._constant,
            parse_int=self._number,
            parse_float=self._number,
        )

    def items(self, closing: str) -> Iterator[int]:
        """Walk into a list or an object and yield the number of each item, which the caller walks over."""
        self.at += 1
        number = 0
        sign = self.next_sign()
        while sign != closing:
            yield number
            number += 1
            sign = self._comma(closing)
        self.at += 1

    def _comma(self, closing: str) -> str:
        sign = self.next_sign()
        if sign == closing:
            return sign
        if sign != ",":
            if not sign:
                raise BrokenError("E003", f"the file is cut off: expected a comma or {closing}")
            raise BrokenError("E003", f"found {show_value(sign)}, expected a comma or {closing}")
        self.at += 1
        sign = self.next_sign()
        if sign == closing:
            raise BrokenError("E003", f"found a comma before the closing {closing}")
        if not sign:
            raise BrokenError("E003", "the file is cut off after a comma")
        return sign

    def key(self) -> str:
        """Walk over a key and its colon."""
        key = self.value()
        if not isinstance(key, str) or self.next_sign() != ":":
            raise BrokenError("E003", "expected a key in double quotes and a colon")
        self.at += 1
        self.next_sign()
        return key

    def row(self) -> tuple[int, object, Wrong | None]:
        """Walk over a value: its line, the value, and (code, message) of each violation of JSON."""
        line, value = self.line_now(), self.value()
        if not self.odd and _SURROGATE.search(self.text, self.value_start, self.at):
            try:
                orjson.dumps(value)
            except TypeError:
                self.odd.append(("E002", "broken JSON: a lone surrogate (half of a character)"))
        return line, value, self.odd[0] if self.odd else None

    def value(self) -> object:
        """Walk over a value and return it."""
        while True:
            self.odd.clear()
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
                if (end < len(self.text) or self.ended) and end - self.at <= RECORD:
                    self.value_start = self.at
                    self.at = self.value_end = end
                    return value
            except json.JSONDecodeError as error:
                if self.ended:
                    self._fail(error)
            except RecursionError as error:
                raise BrokenError("E003", "nested too deep to be read") from error
            if len(self.text) - self.at > RECORD:
                raise BrokenError("E014", TOO_LONG)
            self._more()

    def objects(self) -> list[bytes]:
        """The next objects of a list, as far as they were read and are separated as the last two were.

        The caller must parse each of them, since the same separator may be inside of an object. Then it calls
        either `walk_over` or `read_singly`.
        """
        if not self.reads_ahead:
            return []
        if self.value_end:
            self.separator = self._separator() or self.separator
        if not self.separator:
            return []
        start = self.separator[self.separator.index("{") :]
        end = self.text.rfind(self.separator, self.at)
        if end < 0 and self.was_ahead:  # only the start of an object was read
            self._more()
            end = self.text.rfind(self.separator, self.at)
        if end < 0 or not self.text.startswith(start, self.at):
            self.read_singly()
            return []
        self.objects_end = end + 1
        opening = start.encode()
        insides = self.text[self.at + len(start) : end].encode().split(self.separator.encode())
        return [b"%b%b}" % (opening, inside) for inside in insides]

    def _separator(self) -> str:
        """The characters between the last value and the next one, "" if these are no objects.

        On one line, lists inside of an object are separated as the rows are: then the row's first key belongs
        to the separator.
        """
        around = self.text[self.value_end - 1 : self.at + 1]
        if not _BETWEEN.fullmatch(around):
            return ""
        if "\n" in around:
            return around
        key = _FIRST_KEY.match(self.text, self.at)
        return around[:-1] + key[0] if key else ""

    def walk_over(self, objects: Sequence[bytes]) -> Sequence[int]:
        """Walk over the result of `objects`. Returns the line of each."""
        line = self.line_now()
        self.at = self.value_end = self.objects_end
        self.was_ahead = True
        between = self.separator.count("\n")
        inside = self.line_now() - line - between * (len(objects) - 1)
        if between and not inside:
            return range(line, self.line + 1, between)
        if self.line == line:
            return [line] * len(objects)
        lines = []
        for text in objects:
            lines.append(line)
            line += text.count(b"\n") + between
        return lines

    def read_singly(self) -> None:
        """Give up on `objects` for the text that was read so far."""
        self.reads_ahead = False

    def skip(self) -> bool:
        """Walk over a value of any size; tell whether it was a list of objects."""
        sign, objects = self.next_sign(), False
        if sign == "[":
            for number in self.items("]"):
                objects = isinstance(self.value(), dict) and (objects or not number)
        elif sign == "{":
            for _ in self.items("}"):
                self.key()
                self.skip()
        else:
            self.value()
        return objects

    def _fail(self, error: json.JSONDecodeError) -> None:
        rest = len(self.text) - error.pos
        cut = rest <= 1 or error.msg.startswith("Unterminated")
        start = self.text.rfind("\n", 0, error.pos)
        column = error.pos - start + (self.before if start < 0 else 0)
        line = self.line_now() + self.text.count("\n", self.at, error.pos)
        broken = f"broken JSON at line {line} column {column}: {error.msg}"
        raise BrokenError("E003", "the file is cut off inside a record" if cut else broken) from error

    def next_sign(self) -> str:
        """Skip blanks. Returns the next character, "" at the end."""
        while True:
            self.at = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # * matches always
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._more()

    def _more(self) -> None:
        """Drop the text before the position, and read more: as much as is left, within bounds."""
        self.line_now()
        start = self.text.rfind("\n", 0, self.at)
        self.before = self.at - start - 1 + (self.before if start < 0 else 0)
        self.text = self.text[self.at :]
        self.value_end = max(self.value_end - self.at, 0)
        self.at = self.counted = 0
        self.reads_ahead, self.was_ahead = True, False
        missing = min(max(len(self.text), 1), _STEP)
        pieces = [self.text]
        while missing > 0 and not self.ended:
            chunk = next(self.chunks, b"")
            self.ended = not chunk
            try:
                pieces.append(self.decode(chunk, self.ended))
            except UnicodeDecodeError as error:
                if self.ended:
                    raise BrokenError("E003", CUT_OFF) from error
                where = self.offset + error.start
                raise BrokenError("E001", f"not UTF-8 at byte {where} of the file") from error
            self.offset += len(chunk)
            missing -= len(pieces[-1])
        self.text = "".join(pieces)

    def line_now(self) -> int:
        """The line number at the present place (lines are counted once, on the way)."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def _pairs(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        row = dict(pairs)
        if len(row) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            self.odd.append(("E006", f"duplicate key {show_value(twice)}"))
        return row

    def _constant(self, name: str) -> None:
        self.odd.append(("E002", f"found {name}: not JSON; write null or a number"))

    def _number(self, digits: str) -> object:
        """Read a number as in JSON Lines: beyond 64 bits a float, beyond that a problem."""
        try:
            return orjson.loads(digits)
        except orjson.JSONDecodeError:
            self.odd.append(("E002", f"found {show_value(digits)}: a number out of range"))
            return None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the rows of a document are.

    - `steps`: the keys that lead to the rows; None if each line is a row.
    - `description`: the layout in words.
    - `lists`: the lists of objects. With more than one, the spec must name the rows.
    """

    steps: tuple[str, ...] | None
    description: str
    lists: dict[str, list[object]] = field(default_factory=dict)


LINES = Layout(None, "lines, each of them a row")
ROW = Layout((), "")  # without a description, since there may be thousands of such files


def layout_of(head: bytes, whole: bool, is_row: Callable[[object], bool] = no_row) -> Layout:
    """The layout of a document by its first bytes, or by the `whole` of it. It may be a guess.

    `is_row` recognises an object with the columns of a row: such a document is a row, unless it contains
    others. `lists` has the items of each list so far.
    """
    text = head.decode(errors="replace").strip()
    if text[:1] != "{":
        return Layout((), "a list of rows" if text[:1] == "[" else "")
    members, rest, ended = members_of(text)
    line, _, others = text.partition("\n")
    alone = line.rstrip().endswith("}") and (whole or bool(others))
    if rest or (alone and not ended and others.lstrip()[:1] in ("", "{")):
        return LINES
    if is_row(members) and not any(is_row(value[0]) for value in members.values() if is_rows(value)):
        return ROW
    lists = {} if any(map(_is_talk, members.values())) else {k: v for k, v in members.items() if is_rows(v)}
    if lists:
        return Layout((next(iter(lists)),), f"a list of rows under {show_value(next(iter(lists)))}", lists)
    steps: tuple[str, ...] = ()
    inner = [(key, value) for key, value in members.items() if isinstance(value, dict)]
    while len(inner) == 1:
        key, value = inner[0]
        steps = (*steps, key)
        inner_lists = [key for key, item in value.items() if is_rows(item) and not _is_talk(item)]
        if len(inner_lists) == 1:
            steps = (*steps, inner_lists[0])
            return Layout(steps, f"a list of rows under {'.'.join(steps)}")
        inner = [(key, item) for key, item in value.items() if isinstance(item, dict)]
    if members and all(isinstance(value, dict) for value in members.values()):
        return Layout((), "an object whose values are the rows")
    return LINES if alone or not (whole or others) else Layout((), "")


def row_of(columns: Sequence[Column]) -> Callable[[object], bool]:
    """A function that recognises an object as one row: it has most of the required columns."""
    needed = [column for column in columns if column.required and not kind_of(column.kind).is_label]

    def has(row: dict[str, object], column: Column) -> bool:
        takes_objects = kind_of(column.kind).takes_objects
        for path in column.names:
            for spelling in (path, path.lower()):
                value = walker(spelling)(row)
                if value is not MISSING and (takes_objects or not is_rows(value) or _is_talk(value)):
                    return True
        return False

    def is_row(value: object) -> bool:
        if not isinstance(value, dict):
            return False
        lower = {**{key.lower(): item for key, item in value.items()}, **value}
        return 2 * sum(has(lower, column) for column in needed) > len(needed)

    return is_row


def is_turn(value: object) -> bool:
    """True if an object is a turn of a conversation."""
    return isinstance(value, dict) and any(keys <= value.keys() for keys in TURNS)


def _is_talk(value: object) -> bool:
    return is_rows(value) and is_turn(value[0])


def is_rows(value: object) -> TypeGuard[list[object]]:
    """Whether a value is a list of objects, with at least one of them."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def members_of(text: str) -> tuple[dict[str, object], str, bool]:
    """The members so far of the object at the start of a text, the text after it, and whether it ends."""
    members: dict[str, object] = {}
    scanner = Scanner([text.encode()], 1)
    scanner.next_sign()
    with suppress(BrokenError):
        for _ in scanner.items("}"):
            key = scanner.key()
            sign = scanner.next_sign()
            if sign == "[":
                members[key] = items = list[object]()
                try:
                    for number in scanner.items("]"):
                        items += [{}] if scanner.next_sign() == "{" else []
                        items[number:] = [scanner.value()]
                except BrokenError:
                    del items[1:]  # of a list that goes on, the first item tells: one further on is a bad row
                    raise
            else:
                members[key] = {} if sign == "{" else None
                members[key] = scanner.value()
        return members, scanner.next_sign() and scanner.text[scanner.at :], True
    return members, "", False
