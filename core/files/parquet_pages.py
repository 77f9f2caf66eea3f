"""The pages of a column in a Parquet file, from their headers alone: nothing is unpacked.

A page may unpack to thousands of times its size: a dictionary has a text once for a million rows, and runs of
nulls take no bytes. Format: https://parquet.apache.org/docs/file-format/data-pages/. Headers are in Thrift's
compact protocol.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from tuneyard.core.language.message import _

DELTA_TEXTS = 7
"""The encoding DELTA_BYTE_ARRAY: a text repeats the beginning of the one before it."""
_HEADER = 1 << 12  # bytes that are read at first
_LARGEST_HEADER = 1 << 25  # statistics have two values of the page
_DEPTH = 8
_TYPE, _UNPACKED, _PACKED, _DATA, _DICTIONARY, _DATA_2 = 1, 2, 3, 5, 7, 8
"""Numbers of the fields of a page header."""
_DICTIONARY_PAGE = 2


class PageError(ValueError):
    """The header of a page is damaged."""


class ColumnPage(NamedTuple):
    """A page: its bytes when it is unpacked, the values in it, and their encoding."""

    is_dictionary: bool
    size: int
    values: int
    encoding: int


def pages_of(file: BinaryIO, start: int, size: int) -> Iterator[ColumnPage]:
    """Yield the pages of the column that has `size` bytes from `start`. `PageError` for a damaged header."""
    end = start + size
    while start < end:
        header, length = _header(file, start, end - start)
        packed, unpacked = header.get(_PACKED), header.get(_UNPACKED)
        if not isinstance(packed, int) or not isinstance(unpacked, int) or packed < 0 or unpacked < 0:
            raise PageError(_("the page at byte {start} has no size", start=start))
        about: object = {}
        for number in (_DATA, _DATA_2, _DICTIONARY):
            about = header.get(number, about)
        if not isinstance(about, dict):
            raise PageError(_("the page at byte {start} has no header of its values", start=start))
        values = about.get(1, 0)
        encoding = about.get(4 if _DATA_2 in header else 2, 0)
        yield ColumnPage(header.get(_TYPE) == _DICTIONARY_PAGE, unpacked, values, encoding)
        start += length + packed


def _header(file: BinaryIO, start: int, most: int) -> tuple[dict[int, object], int]:
    """The fields of the header at a byte, by number, and its length."""
    size = _HEADER
    while True:
        file.seek(start)
        data = file.read(min(size, most))
        reader = _Compact(data)
        try:
            return reader.struct(), reader.at
        except IndexError:
            if size >= min(most, _LARGEST_HEADER) or len(data) < min(size, most):
                raise PageError(_("the page at byte {start} is cut off", start=start)) from None
        size *= 8


class _Compact:
    """Reads Thrift's compact protocol. `IndexError` where the data ends, `PageError` for unknown types."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def struct(self, depth: int = 0) -> dict[int, object]:
        """The fields of a struct by number. Texts and lists are passed over."""
        if depth > _DEPTH:
            raise PageError(_("a page header is nested too deep"))
        fields: dict[int, object] = {}
        number = 0
        while True:
            head = self._byte()
            if head == 0:
                return fields
            step, kind = head >> 4, head & 15
            number = number + step if step else self._signed()
            fields[number] = self._value(kind, depth)

    def _value(self, kind: int, depth: int) -> object:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            self._skip(8)
        elif kind == 8:
            self._skip(self._unsigned())
        elif kind in (9, 10):
            self._list(depth)
        elif kind == 12:
            return self.struct(depth + 1)
        else:
            raise PageError(_("a page header has a field of the unknown type {kind}", kind=kind))
        return None

    def _list(self, depth: int) -> None:
        head = self._byte()
        count = head >> 4
        if count == 15:
            count = self._unsigned()
        kind = head & 15
        for _unused in range(count):
            if kind in (1, 2):
                self._byte()
            else:
                self._value(kind, depth + 1)

    def _byte(self) -> int:
        byte = self.data[self.at]
        self.at += 1
        return byte

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self.data):
            raise IndexError(count)

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise PageError(_("a page header has a number of more than 64 bits"))

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
