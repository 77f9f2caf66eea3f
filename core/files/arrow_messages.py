"""The record batches of Arrow data, from their headers alone: nothing is unpacked.

A header is a FlatBuffer, whose numbers are at places that it names. Format:
https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from tuneyard.core.language.message import _

MAGIC = b"ARROW1"
_CONTINUES = 0xFFFFFFFF
_DICTIONARY, _ROWS = 2, 3
"""Types of messages."""
_LARGEST_HEADER = 1 << 26
_END = 10
"""Bytes at the end of a file: the size of its footer, and the magic."""
_PAIR, _BLOCK = "<qq", "<qi4xq"
_PLAIN = -1
"""The size of a buffer in a compressed batch that is not compressed itself."""


class ArrowMessageError(ValueError):
    """The header of a message is damaged."""


class ArrowMessage(NamedTuple):
    """A record batch or a dictionary.

    - `rows`: the number of its rows, or of its values.
    - `size`: the bytes of its buffers when they are unpacked. `stored`: the bytes that they have in the file.
    - `columns`: the number of its columns, those inside of columns included.
    """

    is_dictionary: bool
    rows: int
    size: int
    stored: int
    columns: int
    is_packed: bool


def messages_of(file: BinaryIO) -> Iterator[ArrowMessage]:
    """Yield the record batches and dictionaries of a stream or a file, in the order in which they are read.

    `ArrowMessageError` for a damaged header. Data that ends too early are none: reading them finds it.
    """
    file.seek(0)
    if file.read(len(MAGIC)) == MAGIC:
        for start in _starts(file):
            step = _message_at(file, start)
            if step and step[1]:
                yield step[1]
        return
    start = 0
    while step := _message_at(file, start):
        start, message = step
        if message:
            yield message


def _starts(file: BinaryIO) -> list[int]:
    """Where the dictionaries and the record batches of a file begin, by its last bytes."""
    size = file.seek(0, 2)
    file.seek(max(size - _END, 0))
    end = file.read(_END)
    length = int.from_bytes(end[:4], "little")
    if len(end) < _END or not 0 < length <= min(size, _LARGEST_HEADER):
        return []
    file.seek(max(size - _END - length, 0))
    footer = file.read(length)
    try:
        root = _FlatTable(footer, _number(footer, "<I", 0))
        blocks = [*root.items(2, _BLOCK), *root.items(3, _BLOCK)]
    except (struct.error, OverflowError) as error:
        raise ArrowMessageError(_("the list of the record batches is damaged")) from error
    return [block[0] for block in blocks]


def _message_at(file: BinaryIO, start: int) -> tuple[int, ArrowMessage | None] | None:
    """Where the next message begins, and the rows in this one, if any. None where the data end."""
    if start < 0:
        raise ArrowMessageError(_("a message at byte {start}", start=start))
    file.seek(start)
    head = file.read(8)
    if len(head) < 8:
        return None
    length, more = struct.unpack("<II", head)
    start += 4
    if length == _CONTINUES:
        length = more
        start += 4
    if length == 0:
        return None
    if length > _LARGEST_HEADER:
        raise ArrowMessageError(_("a header of {length:,} bytes at byte {start}", length=length, start=start))
    file.seek(start)
    header = file.read(length)
    start += length
    if len(header) < length:
        return None
    try:
        body, message = _message(header, file, start)
    except (struct.error, OverflowError) as error:
        raise ArrowMessageError(_("the header before byte {start} is damaged", start=start)) from error
    if body < 0:
        raise ArrowMessageError(_("a body of {body} bytes at byte {start}", body=body, start=start))
    return start + body, message


class _FlatTable:
    """A table of a FlatBuffer: `field` is where a field of it is, None if it has its default."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at
        self.names = at - _number(data, "<i", at)
        self.size = _number(data, "<H", self.names)

    def field(self, number: int) -> int | None:
        offset = 4 + 2 * number
        if offset + 2 > self.size:
            return None
        offset = _number(self.data, "<H", self.names + offset)
        return self.at + offset if offset else None

    def number(self, field: int, form: str) -> int:
        offset = self.field(field)
        return 0 if offset is None else _number(self.data, form, offset)

    def table(self, field: int) -> "_FlatTable | None":
        offset = self.field(field)
        return None if offset is None else _FlatTable(self.data, offset + _number(self.data, "<I", offset))

    def items(self, field: int, form: str) -> list[tuple[int, ...]]:
        """A list of structs with numbers of this form."""
        offset = self.field(field)
        if offset is None:
            return []
        offset += _number(self.data, "<I", offset)
        size = struct.calcsize(form) * _number(self.data, "<I", offset)
        content = self.data[offset + 4 : offset + 4 + size]
        if len(content) < size:
            raise struct.error("a list is cut off")
        return list(struct.iter_unpack(form, content))


def _number(data: bytes, form: str, at: int) -> int:
    if at < 0:
        raise struct.error("a place before the header")
    value: int = struct.unpack_from(form, data, at)[0]
    return value


def _message(header: bytes, file: BinaryIO, body_start: int) -> tuple[int, ArrowMessage | None]:
    """The bytes of the body after a header, and what is in it; None for a schema."""
    root = _FlatTable(header, _number(header, "<I", 0))
    kind = root.number(1, "<B")
    body = root.number(3, "<q")
    batch = root.table(2)
    if kind == _DICTIONARY and batch:
        batch = batch.table(1)
    if kind not in (_DICTIONARY, _ROWS) or batch is None:
        return body, None
    is_packed = batch.field(3) is not None
    size = stored = 0
    for offset, length in batch.items(2, _PAIR):
        stored += length
        unpacked = length
        if is_packed and length >= 8:
            file.seek(body_start + offset)
            first = file.read(8)
            unpacked = int.from_bytes(first, "little", signed=True)
            if unpacked == _PLAIN:
                unpacked = length
        size += max(unpacked, 0)
    rows = batch.number(0, "<q")
    return body, ArrowMessage(kind == _DICTIONARY, rows, size, stored, len(batch.items(1, _PAIR)), is_packed)
