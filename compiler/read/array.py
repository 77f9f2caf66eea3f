"""A JSON array of objects, or an object whose values are the rows, read piece by piece."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator

import orjson

from compiler.problems import Problems
from compiler.rows import Line, Objects
from core.errors import Problem, show_value

BATCH = 1000
_BLANK = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _BrokenError(Exception):
    """The text is no list of records from here on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_array(chunks: Iterable[bytes], shown: str, line: int, problems: Problems) -> Iterator[Objects]:
    """Yield the rows of an array or object of rows; memory holds one piece of the file, not all of it."""
    scanner = _Scanner(chunks, line)
    rows: list[dict[str, object]] = []
    lines: list[Line] = []
    try:
        for place, row, wrong in scanner.records():
            if isinstance(row, dict) and not wrong:
                rows.append(row)
                lines.append(place)
            else:
                message = wrong or f"found {show_value(row)}, expected an object"
                code = "E005" if not wrong else "E006" if "twice" in wrong else "E002"
                problems.bad_row([Problem(code, f"{shown}:{place}", message)], row)
            if len(rows) == BATCH:
                yield Objects(f"{shown}:", lines, rows)
                rows, lines = [], []
    except _BrokenError as error:
        before = f"; {scanner.count} whole records came before" if error.code == "E003" else ""
        problems.bad_file(Problem(error.code, f"{shown}:{scanner.line_now()}", f"{error}{before}"))
    if rows:
        yield Objects(f"{shown}:", lines, rows)


class _Scanner:
    """Walks over the text of an array or object, one record at a time."""

    def __init__(self, chunks: Iterable[bytes], line: int) -> None:
        self.chunks = iter(chunks)
        self.decode = codecs.getincrementaldecoder("utf-8")().decode
        self.text = ""
        self.at = 0
        self.counted = 0
        self.line = line
        self.offset = 0
        self.ended = False
        self.count = 0
        self.odd: list[str] = []
        self.decoder = json.JSONDecoder(
            object_pairs_hook=self._pairs,
            parse_constant=self._constant,
            parse_int=self._number,
            parse_float=self._number,
        )
        self.suspect = False

    def records(self) -> Iterator[tuple[Line, object, str]]:
        """Yield (line, value, what is wrong with it) for each element."""
        opening = self._next_sign()
        if opening not in ("[", "{"):
            raise _BrokenError("E007", "found neither a list nor an object, expected a list of records")
        self.at += 1
        closing = "]" if opening == "[" else "}"
        last_line = -1
        sign = self._next_sign()
        while sign != closing:
            key = self._key() if opening == "{" else None
            line = self.line_now()
            value = self._value()
            if key is not None and not isinstance(value, dict):
                what = f"key {show_value(key)}: found {show_value(value)}"
                raise _BrokenError("E007", f"{what}, expected a list of records or an object of rows")
            self.count += 1
            where = f"{line} record {self.count}" if key is None else f"{line} key {show_value(key)}"
            yield (line if line != last_line and key is None else where), value, self._wrong(value)
            last_line = line
            sign = self._comma(closing)
        self.at += 1
        if self._next_sign():
            raise _BrokenError("E003", f"found more text after the closing {closing}")

    def _comma(self, closing: str) -> str:
        sign = self._next_sign()
        if sign == closing:
            return sign
        if sign != ",":
            found = "the end of the file" if not sign else show_value(sign)
            raise _BrokenError("E003", f"found {found}, expected a comma or {closing}")
        self.at += 1
        sign = self._next_sign()
        if sign == closing:
            raise _BrokenError("E003", f"found a comma before the closing {closing}")
        if not sign:
            raise _BrokenError("E003", "the file ends after a comma")
        return sign

    def _key(self) -> str:
        key = self._value()
        if not isinstance(key, str) or self._next_sign() != ":":
            raise _BrokenError("E003", "expected a key in double quotes and a colon")
        self.at += 1
        self._next_sign()
        return key

    def _value(self) -> object:
        while True:
            self.odd.clear()
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                if self.ended:
                    self._fail(error)
            except RecursionError as error:
                raise _BrokenError("E003", "nested too deep to be read") from error
            self._more()

    def _fail(self, error: json.JSONDecodeError) -> None:
        rest = len(self.text) - error.pos
        cut = rest <= 1 or error.msg.startswith("Unterminated")
        column = error.pos - self.text.rfind("\n", 0, error.pos)
        line = self.line_now() + self.text.count("\n", self.at, error.pos)
        what = (
            "the file is cut off inside a record"
            if cut
            else f"broken JSON at line {line} column {column}: {error.msg}"
        )
        raise _BrokenError("E003", what) from error

    def _next_sign(self) -> str:
        while True:
            self.at = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # * matches always
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._more()

    def _more(self) -> None:
        """Drop what is done with and read at least as much as is left."""
        self.line_now()
        self.text = self.text[self.at :]
        self.at = self.counted = 0
        wanted = max(len(self.text), 1)
        pieces = [self.text]
        while wanted > 0 and not self.ended:
            chunk = next(self.chunks, b"")
            self.ended = not chunk
            try:
                pieces.append(self.decode(chunk, self.ended))
            except UnicodeDecodeError as error:
                where = self.offset + error.start
                raise _BrokenError("E001", f"not UTF-8 at byte {where} of the file") from error
            self.offset += len(chunk)
            wanted -= len(pieces[-1])
        self.text = "".join(pieces)
        self.suspect = _SURROGATE.search(self.text) is not None

    def line_now(self) -> int:
        """Return the line number at the present place (lines are counted once, on the way)."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def _pairs(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        row = dict(pairs)
        if len(row) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            self.odd.append(f"the key {show_value(twice)} stands twice in one object")
        return row

    def _constant(self, name: str) -> None:
        self.odd.append(f"found {name}: not JSON; write null or a number")

    def _number(self, digits: str) -> object:
        """Read a number as in JSON Lines: beyond 64 bits a float, beyond that a problem."""
        try:
            return orjson.loads(digits)
        except orjson.JSONDecodeError:
            self.odd.append(f"found {show_value(digits)}: a number out of range")
            return None

    def _wrong(self, value: object) -> str:
        if self.odd:
            return self.odd[0]
        if self.suspect:
            try:
                orjson.dumps(value)
            except TypeError:
                return "broken JSON: a lone surrogate (half of a character)"
        return ""
