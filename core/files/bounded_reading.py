"""The one way to read a file that may be mailed: in bounded memory, whatever its size says.

A sparse file of 5 GB takes no disk, and would take all memory. A document is read whole up to `LARGEST_FILE`.
JSON Lines, CSV and JSON lists are read by record, so that no data is refused for its size.
"""

import codecs
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _, relative

LARGEST_FILE = 64 << 20  # bytes; the largest tokenizer.json of a hub model has 40 MB
LARGEST_RECORD = 16 << 20  # bytes of a line, of a CSV row, of an item of a JSON list, in all commands
LARGEST_BATCH = 64 << 20  # bytes: so many are unpacked at once, if rows can be separated before
LARGEST_RUN = 1 << 30  # bytes that one page, record batch, or `RUN` rows may unpack to
UNPACKED = 30  # times its bytes: what a part of a file may unpack to above `LARGEST_RUN`
RUN = 1024  # rows: writers of Parquet close a page after so many, whatever their size
FREE_EXPANSION = 1 << 28  # bytes that rows without values may take, by their number
MOST_EXPANSION = 1000  # times the size of the file that its rows may take beyond
MOST_PACKED = 500  # times the size of a compressed file: texts take 3 to 100 times, zeros 1,030 and more
ROW_COST = 256  # bytes of memory and time that a row takes, with or without values
CELL_COST = 64
BLOCK = 1 << 20
_BLANKS = (" ", "\n", "\t", "\r")
_CUT = 16  # characters: the longest token that a cut splits (a pair of \uXXXX escapes)


class UnboundedError(ContentError):
    """A pipe, a device, or a text beyond the limits: no other program is to read it either."""


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading. `ContentError` for a pipe or a device, as `refuse_pipe`."""
    refuse_pipe(path)
    return io.BufferedReader(_NamedFile(path), BLOCK)


class _NamedFile(io.FileIO):
    """A file whose errors while it is read name it: those of a broken disk name none."""

    def readinto(self, buffer: Any, /) -> int | None:
        """Read into a buffer of bytes; `OSError` has the file's name."""
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.name)) from error


def refuse_pipe(path: Path, fix: str = "") -> None:
    """`ContentError` with the `fix` for a named pipe, a device or a socket, whose reading may never end.

    A missing file and a folder are errors when they are opened.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UnboundedError(_("{path}: found a pipe or a device, expected a file{fix}", path=path, fix=fix))


class LargeDataError(ValueError):
    """Data that unpack to more than they may. `place` is the one inside of their file, "" for the whole."""

    def __init__(self, message: str, place: str = "", *, is_record: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.is_record = is_record


def large_part(description: str, size: int, most: int = LARGEST_RUN, place: str = "") -> LargeDataError:
    """The error for a part of a file, such as a page, that unpacks to more than `most` bytes."""
    mib = -(-size >> 20)
    return LargeDataError(
        _(
            "found {description} of {mib:,} MiB once unpacked, expected {most:,} MiB at most",
            description=description,
            mib=mib,
            most=most >> 20,
        ),
        place,
    )


def large_record(place: str) -> LargeDataError:
    """The error for a row of more than `LARGEST_RECORD`."""
    most = LARGEST_RECORD >> 20
    message = _("found a record of more than {most} MiB, expected {most} MiB at most", most=most)
    return LargeDataError(message, place, is_record=True)


def most_unpacked(stored: int) -> int:
    """The most bytes that a part of a file of `stored` bytes unpacks to: rows, pages or a temporary file."""
    return max(LARGEST_RUN, UNPACKED * stored)


def refuse_expansion(rows: int, cells: int, size: int, stored: int) -> None:
    """`LargeDataError` for far more rows or values than `stored` bytes stand for.

    Two billion nulls are stored in 1 kB, and reading them takes hours. `size` is that of the values: a log
    that repeats its lines, or one long system text in all rows, may have 3,000 times the stored bytes.
    """
    cost = ROW_COST * rows + CELL_COST * cells
    total = cost + size
    is_large = cost > FREE_EXPANSION or size > LARGEST_RUN
    if is_large and total > MOST_EXPANSION * stored:
        raise LargeDataError(
            _(
                "found rows that take {total:,} MiB in a file of {stored:,} bytes, expected "
                "{most_expansion:,} times its size at most",
                total=total >> 20,
                stored=stored,
                most_expansion=MOST_EXPANSION,
            )
        )


def read_regular(path: Path) -> bytes:
    """The bytes of a file, `LARGEST_FILE` at most. `ContentError` for more, and for a pipe or a device."""
    with open_regular(path) as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise _too_large_file(path, LARGEST_FILE)
    return content


def check_size(path: Path, most: int = LARGEST_FILE) -> None:
    """`ContentError` for a file of more bytes, a pipe or a device, before another library reads it."""
    refuse_pipe(path)
    if path.stat().st_size > most:
        raise _too_large_file(path, most)


def _too_large_file(path: Path, most: int) -> ContentError:
    size = path.stat().st_size
    return UnboundedError(
        _(
            "{path}: found {size:,} bytes, expected at most {most:,}: no file of this kind is as "
            "large; make it again, or write rows as JSON Lines (.jsonl)",
            path=path,
            size=size,
            most=most,
        )
    )


def read_text(path: Path, errors: str = "strict") -> str:
    """The text of a file as `read_regular`, with line feeds. `ContentError` if it is not UTF-8."""
    try:
        text = read_regular(path).decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise ContentError(
            _("{path}: not UTF-8 at byte {start}: save it as UTF-8", path=path, start=error.start)
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_end(path: Path, start: int = 0) -> str:
    """The text of a log from byte `start`, of which the last `LARGEST_RECORD` bytes at most."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(start, size - LARGEST_RECORD))
        return file.read(LARGEST_RECORD).decode("utf-8", errors="replace")


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line with its break); `ContentError` for one above `LARGEST_RECORD`."""
    number = 0
    with open_regular(path) as file:
        while line := file.readline(LARGEST_RECORD + 1):
            number += 1
            if len(line) > LARGEST_RECORD:
                raise too_large(f"{relative(path)}:{number}", _("line"))
            yield number, line


def text_lines(path: Path, errors: str = "strict") -> Iterator[tuple[int, str]]:
    """`lines_of` as text in UTF-8. `ContentError` for a line in another encoding."""
    for number, line in lines_of(path):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            yield number, line.decode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise ContentError(
                _(
                    "{path}:{number}: not UTF-8 at byte {start} of the line: save it as UTF-8",
                    path=path,
                    number=number,
                    start=error.start,
                )
            ) from error


def too_large(place: str, description: str) -> ContentError:
    """The error for a record beyond `LARGEST_RECORD`."""
    return UnboundedError(
        _(
            "{place}: found a {description} of more than {most} MiB, expected at most {most} MiB: shorten it",
            place=place,
            description=description,
            most=LARGEST_RECORD >> 20,
        )
    )


class BrokenListError(ValueError):
    """A JSON list is broken: `text` begins before the error, at `line` and `column` (from 0) of the file."""

    def __init__(self, text: str, line: int, column: int) -> None:
        """`text` is a JSON list that has the error, without the items that were read."""
        super().__init__(text, line, column)
        self.text = text
        self.line = line
        self.column = column


class JsonListReader:
    """Reads a JSON list item by item. It keeps the text of one item in memory."""

    def __init__(self, path: Path) -> None:
        """Begin at the start of the file."""
        self.path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        """Where the rest of the text begins: a separator and an item."""
        self._line = 1
        self._column = 0
        self._bytes = 0
        self._ended = False
        self._count = 0

    def items(self) -> Iterator[object]:
        """Yield the items. `BrokenListError` for other than a list, `ContentError` for too large an item."""
        decoder = json.JSONDecoder()
        with open_regular(self.path) as self._file:
            self._read_more()
            self._text = self._text.removeprefix("\ufeff")
            while True:
                begin = self._item_begin()
                if begin is None:
                    return
                yield self._item(decoder, begin)

    def _item_begin(self) -> int | None:
        """Where the next item begins, after `[` or a comma; None at the end of the list."""
        position = self._after_blanks(self._at)
        letter = self._text[position : position + 1]
        if letter == "]" and self._count:
            self._check_end(position)
            return None
        if letter != ("," if self._count else "["):
            raise self._broken()
        position = self._after_blanks(position + 1)
        if self._text[position : position + 1] == "]" and not self._count:
            self._check_end(position)
            return None
        return position

    def _check_end(self, position: int) -> None:
        """Nothing but blanks may follow the bracket at this position."""
        self._advance(position + 1)
        if self._after_blanks(self._at) < len(self._text):
            raise BrokenListError("[]" + self._text[self._at :], self._line, self._column - 2)

    def _after_blanks(self, position: int) -> int:
        """The next position without a blank; more is read as needed, and blanks are dropped."""
        while True:
            while self._text.startswith(_BLANKS, position):
                position += 1
            if position < len(self._text) or self._ended:
                return position
            if position - self._at > LARGEST_RECORD:
                raise self._too_large(_("gap"))
            self._read_more()

    def _item(self, decoder: json.JSONDecoder, begin: int) -> object:
        """The item that begins there; more is read until it has ended."""
        while True:
            try:
                value, end = decoder.raw_decode(self._text, begin)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - _CUT
                if self._ended or not is_cut:
                    raise self._broken() from error
            except (RecursionError, ValueError) as error:  # a number of too many digits
                raise self._broken() from error
            else:
                if end - begin > LARGEST_RECORD:
                    raise self._too_large(_("record {number}", number=self._count + 1))
                if end < len(self._text) or self._ended:
                    self._advance(end)
                    self._count += 1
                    return value
            if len(self._text) - begin > LARGEST_RECORD:
                raise self._too_large(_("record {number}", number=self._count + 1))
            self._read_more(len(self._text) - begin)

    def _too_large(self, description: str) -> ContentError:
        return too_large(f"{relative(self.path)}:{self._line}", description)

    def _advance(self, end: int) -> None:
        """Go to `end`, and forget the text before once it is a block."""
        passed = self._text[self._at : end]
        breaks = passed.count("\n")
        self._line += breaks
        self._column = len(passed) - passed.rfind("\n") - 1 if breaks else self._column + len(passed)
        self._at = end
        if end > BLOCK:
            self._text = self._text[end:]
            self._at = 0

    def _read_more(self, count: int = 0) -> None:
        """Append at least a block: as much as there is makes the time linear in the length of an item."""
        block = self._file.read(max(count, BLOCK))
        self._ended = not block
        try:
            self._text += self._decoder.decode(block, self._ended)
        except UnicodeDecodeError as error:
            begin = self._bytes + len(block) - len(error.object)
            raise ContentError(
                _(
                    "{path}: not UTF-8 at byte {start}: save it as UTF-8",
                    path=self.path,
                    start=begin + error.start,
                )
            ) from error
        self._bytes += len(block)

    def _broken(self) -> BrokenListError:
        """The rest as a list that is broken in the same place: `[0` stands for the items before."""
        rest = self._text[self._at :]
        if not self._count:
            return BrokenListError(rest, self._line, self._column)
        return BrokenListError("[0" + rest, self._line, self._column - 2)
