"""Parts of a source file that can be read alone: ranges of bytes of lines, ranges of rows of tables.

A part is a run of the batches that a reader of the whole file would yield. So the parts of a file, read one
after another, give the same batches as the whole of it, and only what one batch tells the next one has to be
handed on.
"""

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from tuneyard.compiler.read import stream
from tuneyard.compiler.spec.file import Source
from tuneyard.core.files import line_breaks


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file.

    - `start`, `stop`: its bytes, or its rows in a file of columns (from 0); `stop` is None at the file's end.
    - `lead`: by how many bytes the first block is longer than others, so that blocks end at the same places.
    - `before`: the bytes of text before it. `first`: the number of its first line.
    - `header`: the names of the columns, if they stand before it.
    - `lines`: how many lines or rows it has, 0 if it is the whole of a file.
    """

    start: int = 0
    stop: int | None = None
    lead: int = 0
    before: int = 0
    first: int = 1
    header: tuple[str, ...] = ()
    lines: int = 0

    @property
    def begins(self) -> bool:
        """True for the first part of a file."""
        return self.start == 0

    @property
    def ends(self) -> bool:
        """True for the last part of a file."""
        return self.stop is None


WHOLE = Span()
CutFile = Callable[[stream.Readable, Source, str, int], Iterator[Span]]
"""Yields the parts of a file for a split, each of about so many bytes."""


class OpenRecordError(Exception):
    """A part ends inside a record: the rest of the file is to be read as one."""


def plain_text(path: stream.Readable, source: Source) -> bool:
    """True if a file is UTF-8 that is not compressed, as far as its first bytes tell."""
    if codecs.lookup(source.encoding).name != "utf-8":
        return False
    head = _head(path, 4)
    packed = head.startswith(stream.GZIP) or head == stream.ZSTD
    return not packed and head[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def first_bytes(path: stream.Readable, size: int) -> bytes:
    """The first bytes of a file without its byte-order mark."""
    return _head(path, size + len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)[:size]


def _head(path: stream.Readable, size: int) -> bytes:
    with stream.stored(path, size) as file:
        return file.read(size) or b""


def spans_of_lines(
    path: stream.Readable, size: int, first_block: int = 0, header: Sequence[str] = ()
) -> Iterator[Span]:
    """Yield parts of whole lines of a text file, each of about `size` bytes.

    Readers take a first block of `first_block` bytes (0: as the others) and then blocks of `BLOCK`, and a
    batch ends with the last whole line of a block. Parts end at such places.
    """
    first_block = first_block or stream.BLOCK
    with stream.stored(path) as file:
        mark = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
        file.seek(mark)
        start, lead, first = 0, 0, 1
        position, lines = mark, 0
        wanted = first_block
        while True:
            block = file.read(wanted)
            if not block:
                break
            wanted = stream.BLOCK
            cut = block.rfind(b"\n") + 1
            lines += line_breaks(block)
            boundary = position + cut
            position += len(block)
            is_long = boundary - start >= size and boundary - mark >= first_block
            if cut and is_long and boundary < position:
                yield _span(start, boundary, lead, mark, first, header, lines)
                start, lead, first = boundary, position - boundary, lines + 1
        yield _span(start, None, lead, mark, first, header, lines)


def _span(
    start: int, stop: int | None, lead: int, mark: int, first: int, header: Sequence[str], last: int
) -> Span:
    lines = last - first + 1
    if start == 0:
        return Span(0, stop, lines=lines)
    return Span(start, stop, lead, start - mark, first, tuple(header), lines)


def count_lines(path: stream.Readable) -> int:
    """How often a line ends in a file."""
    with stream.stored(path) as file:
        blocks = iter(partial(file.read, stream.BLOCK), b"")
        return sum(line_breaks(block) for block in blocks if block)
