"""The layout of a JSON document, and a scanner that keeps one value at a time in memory.

A document is lines, a list of rows, an object of rows, an object with a list of rows, or one row.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from math import isfinite
from typing import NamedTuple

import orjson

from tuneyard.compiler.chat.message_forms import MESSAGE_KEYS
from tuneyard.compiler.read.stream import CUT_OFF, LARGE_RECORD, NOT_TEXT, SHORTEN, TOO_LONG
from tuneyard.compiler.rows import MISSING, Fields, are_objects, walker
from tuneyard.compiler.rows.problems import UnreadableFileError
from tuneyard.compiler.spec.column_types import Column
from tuneyard.core.errors import show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import DuplicateKeyError, unique
from tuneyard.core.files.bounded_reading import LARGEST_RECORD
from tuneyard.core.language.message import _

BROKEN_JSON = ProblemCode(
    "E002",
    _("broken JSON in a line or record"),
    _("Complete what is cut off; write null or a number for `NaN`."),
    _("Other lines are still checked."),
)
BROKEN_LIST = ProblemCode(
    "E003",
    _("a JSON list that cannot be read on"),
    _("Correct it at this place, or get the file again."),
)
DUPLICATE_KEY = ProblemCode(
    "E006",
    _("duplicate key in one object"),
    _("Delete one of the two keys."),
)


LOOKED_AT = 1 << 20
WRAPPERS = 8  # objects in one another that are looked into if the document goes on
TURNS = [{*keys} for keys in (*MESSAGE_KEYS, ("role", "parts"))]
AS_JSON_DOCUMENT = (
    'python -c "import ast, json, sys; json.dump(ast.literal_eval(sys.stdin.read()), sys.stdout)" '
    "< OLD > NEW.json"
)
"""The command that writes a document of Python's notation as JSON."""
_BLANK = re.compile(r"[ \t\r\n]*")
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*(?=\{)")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_STEP = 1 << 22  # characters: so many more, at most, are read for a value that has not ended
TOO_DEEP = _("nested too deep to be read")
Wrong = tuple[str, str]
Steps = tuple[str, ...]
"""The keys that lead to the rows of a document."""


def _finite(digits: str) -> float:
    """Parse a number. `ValueError` if it is out of range, and for NaN and Infinity."""
    number = float(digits)
    if not isfinite(number):
        raise ValueError(digits)
    return number


_PLAIN = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def have_all_keys(text: bytes, rows: Sequence[Fields]) -> bool:
    """True if the rows have every key of their text, since they have as many colons when they are written.

    A key has one colon. Those inside texts remain, unless they are written as an escape (\\u003a). False too
    for what orjson does not write: halves of characters, numbers beyond 64 bits, deep values.
    """
    try:
        written = orjson.dumps(rows)
    except TypeError:
        return False
    return b"\\u003" not in text and text.count(b":") == written.count(b":")


class BrokenError(UnreadableFileError):
    """A document is not JSON from here on."""


class Scanner:
    """Scanner of a document. `next_sign` only looks ahead, the others move on. `BrokenError` if not JSON."""

    def __init__(self, chunks: Iterable[bytes], line: int) -> None:
        self.chunks = iter(chunks)
        self.decode = codecs.getincrementaldecoder("utf-8")().decode
        self.text, self.ended = "", False
        self.line, self.offset = line, 0
        self.at = self.counted = 0
        self.before = 0  # characters that were dropped of the line in which the text begins
        self.value_start = 0  # of the last value, if it is in the text
        self.reads_singly = False  # for the text that was read so far
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
                raise BrokenError(
                    BROKEN_LIST, _("the file is cut off: expected a comma or {closing}", closing=closing)
                )
            raise BrokenError(
                BROKEN_LIST,
                _("found {value}, expected a comma or {closing}", value=show_value(sign), closing=closing),
            )
        self.at += 1
        sign = self.next_sign()
        if sign == closing:
            raise BrokenError(BROKEN_LIST, _("found a comma before the closing {closing}", closing=closing))
        if not sign:
            raise BrokenError(BROKEN_LIST, _("the file is cut off after a comma"))
        return sign

    def key(self) -> str:
        """Walk over a key and its colon."""
        key = self.value()
        if not isinstance(key, str) or self.next_sign() != ":":
            raise BrokenError(BROKEN_LIST, _("expected a key in double quotes and a colon"))
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
                self.odd.append((BROKEN_JSON, _("broken JSON: a lone surrogate (half of a character)")))
        return line, value, self.odd[0] if self.odd else None

    def value(self) -> object:
        """Walk over a value and return it."""
        while True:
            self.odd.clear()
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
                if (end < len(self.text) or self.ended) and end - self.at <= LARGEST_RECORD:
                    self.value_start = self.at
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                if self.ended:
                    self._fail(error)
            except RecursionError as error:
                raise BrokenError(BROKEN_LIST, TOO_DEEP) from error
            if len(self.text) - self.at > LARGEST_RECORD:
                raise BrokenError(LARGE_RECORD, TOO_LONG, SHORTEN)
            self._more()

    def objects(self) -> tuple[list[int], list[Fields]]:
        """Walk over the next objects of a list, as far as they are read: their lines, and they.

        There are none if one may be odd: `row` finds out, in twice the CPU time of a compile.
        """
        lines: list[int] = []
        rows: list[Fields] = []
        start, line = self.at, self.line_now()
        at, end = start, 0
        comma = None if self.reads_singly else _COMMA.match(",{")
        while comma and self.text.startswith("{", at):
            try:
                row, end_of_row = _PLAIN.raw_decode(self.text, at)
            except (ValueError, RecursionError):
                break
            comma = _COMMA.match(self.text, end_of_row)
            if comma:
                lines.append(line)
                rows.append(row)
                line += self.text.count("\n", at, comma.end())
                at, end = comma.end(), end_of_row
        self.reads_singly = not rows or not have_all_keys(self.text[start:end].encode(), rows)
        if self.reads_singly:
            return [], []
        self.at = end
        return lines, rows

    def skip(self) -> bool:
        """Walk over a value of any size; tell whether it was a list of objects."""
        sign, objects = self.next_sign(), False
        if sign == "[":
            for number in self.items("]"):
                objects = isinstance(self.value(), dict) and (objects or not number)
        elif sign == "{":
            try:
                for _unused in self.items("}"):
                    self.key()
                    self.skip()
            except RecursionError as error:
                raise BrokenError(BROKEN_LIST, TOO_DEEP) from error
        else:
            self.value()
        return objects

    def _fail(self, error: json.JSONDecodeError) -> None:
        rest = len(self.text) - error.pos
        cut = rest <= 1 or error.msg.startswith("Unterminated")
        start = self.text.rfind("\n", 0, error.pos)
        column = error.pos - start + (self.before if start < 0 else 0)
        line = self.line_now() + self.text.count("\n", self.at, error.pos)
        broken = _(
            "broken JSON at line {line} column {column}: {reason}", line=line, column=column, reason=error.msg
        )
        fix = ""
        if self.text[error.pos : error.pos + 1] == "'":
            fix = _("this is Python's notation, not JSON: {command}", command=AS_JSON_DOCUMENT)
        raise BrokenError(
            BROKEN_LIST, _("the file is cut off inside a record") if cut else broken, fix
        ) from error

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
        self.at = self.counted = 0
        self.reads_singly = False
        missing = min(max(len(self.text), 1), _STEP)
        pieces = [self.text]
        while missing > 0 and not self.ended:
            chunk = next(self.chunks, b"")
            self.ended = not chunk
            try:
                pieces.append(self.decode(chunk, self.ended))
            except UnicodeDecodeError as error:
                if self.ended:
                    raise BrokenError(BROKEN_LIST, CUT_OFF) from error
                where = self.offset + error.start
                raise BrokenError(
                    NOT_TEXT, _("not UTF-8 at byte {where} of the file", where=where)
                ) from error
            self.offset += len(chunk)
            missing -= len(pieces[-1])
        self.text = "".join(pieces)

    def line_now(self) -> int:
        """The line number at the present position (lines are counted once, on the way)."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def _pairs(self, pairs: list[tuple[str, object]]) -> Fields:
        try:
            return unique(pairs)
        except DuplicateKeyError as error:
            self.odd.append((DUPLICATE_KEY, _("duplicate key {key}", key=show_value(error.key))))
            return dict(pairs)

    def _constant(self, name: str) -> None:
        self.odd.append((BROKEN_JSON, _("found {name}: not JSON; write null or a number", name=name)))

    def _number(self, digits: str) -> object:
        """Read a number as in JSON Lines: beyond 64 bits a float, beyond that a problem."""
        try:
            return orjson.loads(digits)
        except orjson.JSONDecodeError:
            self.odd.append(
                (BROKEN_JSON, _("found {digits}: a number out of range", digits=show_value(digits)))
            )
            return None


class Layout(NamedTuple):
    """Where the rows of a document are.

    - `steps`: the keys that lead to the rows; None if each line is a row.
    - `description`: the layout in words.
    - `lists`: the lists of objects. With more than one, the spec must name the rows.
    """

    steps: Steps | None
    description: str
    lists: Mapping[str, list[Fields]] = {}


LINES = Layout(None, _("lines, each of them a row"))
ROW = Layout((), "")  # without a description, since there may be thousands of such files


def layout_of(head: bytes, whole: bool, columns: Sequence[Column] = ()) -> Layout:
    """The layout of a document by its first bytes, or by the `whole` of it. It may be a guess.

    An object with the `columns` of a row is a row, unless it contains others. `lists` has the items of each
    list so far.
    """
    text = head.decode(errors="replace").strip()
    if text[:1] != "{":
        return Layout((), _("a list of rows") if text[:1] == "[" else "")
    members, rest, ended = members_of(text)
    line, _unused, others = text.partition("\n")
    alone = line.rstrip().endswith("}") and (whole or bool(others))
    if rest or (alone and not ended and others.lstrip()[:1] in ("", "{")):
        return LINES
    lists = {key: value for key, value in members.items() if are_objects(value)}
    if is_one_row(columns, members):
        return ROW
    if lists and not any(map(are_messages, lists.values())):
        return Layout(
            (next(iter(lists)),), _("a list of rows under {key}", key=show_value(next(iter(lists)))), lists
        )
    layouts = list(_layouts_within(members, (), len(members)))
    if len(layouts) == 1 and not lists:
        return layouts[0]
    if _are_conversations(members) or (
        members and all(isinstance(value, dict) for value in members.values())
    ):
        return Layout((), _("an object whose values are the rows"))
    return LINES if alone or not (whole or others) else Layout((), "")


def _layouts_within(fields: Fields, steps: Steps, fewest: int) -> Iterator[Layout]:
    """Yield a layout for each list of objects inside an object, the outermost ones, and each object of rows.

    Rows under ids are no `fewest` beside a row's other fields.
    """
    lists = [key for key, value in fields.items() if are_objects(value) and not are_messages(value)]
    if _are_conversations(fields) or (len(fields) >= fewest and are_rows(fields)):
        yield Layout(
            steps,
            _("an object whose values are the rows under {key}", key=".".join(steps))
            if steps
            else _("an object whose values are the rows"),
        )
        return
    for key in lists:
        yield Layout((*steps, key), _("a list of rows under {key}", key=".".join([*steps, key])))
    if not lists:
        for key, value in fields.items():
            if isinstance(value, dict):
                yield from _layouts_within(value, (*steps, key), fewest)


def are_rows(value: object) -> bool:
    """True for rows under ids: they are objects that share a key, as `meta` and `data` do not."""
    if not (isinstance(value, dict) and are_objects([*value.values()])):
        return False
    keys = list(chain.from_iterable(value.values()))
    return len(set(keys)) < len(keys)


def _are_conversations(fields: Fields) -> bool:
    """True for {id: messages, …}. The last of them may be cut off, and a row may have messages and tools."""
    conversations = list(filter(are_messages, fields.values()))
    return 2 < len(conversations) >= len(fields) - 1


def is_one_row(columns: Sequence[Column], members: Fields) -> bool:
    """True if a document has the columns of a row, and none of its lists of objects has them."""
    lists = [value for value in members.values() if are_objects(value)]
    return is_row(columns, members) and not any(is_row(columns, rows[0]) for rows in lists)


def is_row(columns: Sequence[Column], value: Fields) -> bool:
    """True if an object has most of the required columns of a spec: one row."""
    needed = [column for column in columns if column.required and not column.type.drops_rows_without_it()]
    lower = {**{key.lower(): item for key, item in value.items()}, **value}
    return 2 * sum(_has(lower, column) for column in needed) > len(needed)


def _has(row: Fields, column: Column) -> bool:
    for path in column.names:
        for spelling in (path, path.lower()):
            value = walker(spelling)(row)
            has_rows = (
                (are_objects(value) and not are_messages(value))
                or are_rows(value)
                or (isinstance(value, dict) and _are_conversations(value))
            )
            if value is not MISSING and (column.type.takes_objects or not has_rows):
                return True
    return False


def are_messages(value: object) -> bool:
    """True for a list of the messages of a conversation."""
    return are_objects(value) and any(keys <= value[0].keys() for keys in TURNS)


def members_of(text: str) -> tuple[Fields, str, bool]:
    """The members so far of the object at the start of a text, the text after it, and whether it ends."""
    members: Fields = {}
    scanner = Scanner([text.encode()], 1)
    scanner.next_sign()
    with suppress(BrokenError):
        _add_members(scanner, members, WRAPPERS)
        return members, scanner.next_sign() and scanner.text[scanner.at :], True
    return members, "", False


def _add_members(scanner: Scanner, members: Fields, levels: int) -> None:
    """Add the members of an object. One that is cut off has its own members so far, for so many levels."""
    for _unused in scanner.items("}"):
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
            cut: Fields = {}
            members[key] = cut if sign == "{" else None
            try:
                members[key] = scanner.value()
            except BrokenError:
                if sign == "{" and levels:
                    _add_members(scanner, cut, levels - 1)
                raise
