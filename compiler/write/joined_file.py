"""A file of records that is joined from the parts that tasks have written, and rows of one put in order."""

import hashlib
import os
import shutil
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Self

from xxhash import xxh3_64

from tuneyard.compiler.write.record_file import Damage, RecordFile, WrittenPart, brackets_of, not_as_made
from tuneyard.core.errors import ContentError
from tuneyard.core.files import flush_soon, named

BLOCK = 1000  # rows that are put in order at a time
COPIED = 1 << 20
FLUSH = 1 << 24


class JoinedFile:
    """A file of records that takes in written parts, one after another, and deletes them.

    - `records`, `sources`: the numbers of records and of rows.
    - `sha256`: the hash of the file as it is on the disk, once it is closed.
    - `parts`: the number of records and the checksum of each part.
    - `prints`: the file of the records' fingerprints, None for a file that is no dataset.

    A thread copies and hashes, which needs no interpreter lock. What was copied is read again from the file:
    its checksum must be that of the records as they were encoded. A part that has a hash is the whole file.
    It is moved, and not read again. A file that is `hidden` is not read again here either.
    """

    def __init__(self, path: Path, *, hidden: bool = False) -> None:
        self.path, self.hidden = path, hidden
        self.records = self.sources = 0
        self.sha256 = ""
        self.parts: list[tuple[int, int]] = []
        self.prints: Path | None = None
        self._brackets = brackets_of(path)
        self._end = 0  # of the last record
        self._digest = hashlib.sha256()
        self._flushed = 0
        self._handle = -1
        self._thread = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []
        self._is_stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._wait()
                if self.records and not self.sha256:
                    self._finish()
        finally:
            self._is_stopped = True  # after an error or a signal, nobody waits for what is left to copy
            self._thread.shutdown(cancel_futures=True)
            if self._handle >= 0:
                os.close(self._handle)

    def add(self, part: WrittenPart) -> None:
        """Append the records of a part. An error may come some calls later."""
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()
        first = self.records
        if part.damage is not None:
            raise part.damage.error(self.path, first)
        self.records += part.records
        self.sources += part.sources
        self.parts.append((part.records, part.checksum))
        self._pending.append(self._thread.submit(self._append, part, first))
        if part.prints:
            self._add_prints(part.prints)

    @property
    def _is_read(self) -> bool:
        """True if the file is read again while parts are added."""
        return not (self.hidden or self.sha256)

    def _wait(self) -> None:
        while self._pending:
            self._pending.pop(0).result()

    def _add_prints(self, prints: Path) -> None:
        if self.prints is None:
            self.prints = self.path.with_name(f".{self.path.name}.fingerprints")
            prints.replace(self.prints)
            return
        with named(self.prints), prints.open("rb") as source, self.prints.open("ab") as target:
            shutil.copyfileobj(source, target)
        prints.unlink()

    def _append(self, part: WrittenPart, first: int) -> None:
        """Move or copy the records of a part to the end, and check what is there then."""
        if self.sha256:
            raise ValueError(f"{part.path}: the file was whole before")
        with named(self.path):
            body = part.size - len(self._brackets.head) - len(self._brackets.tail)
            if self._handle < 0:
                part.path.replace(self.path)
                self._handle = os.open(self.path, os.O_RDWR)
                self.sha256 = part.sha256
                start = len(self._brackets.head)
                self._look(0, start)
            else:
                start = self._end + len(self._brackets.between)
                _write_at(self._handle, self._brackets.between, self._end)
                self._copy(part.path, start, body)
                part.path.unlink()
                self._look(self._end, start)
            self._end = start + body
            checksum = self._look(start, self._end)
            checksum.update(self._brackets.between)
            if self._is_read and checksum.intdigest() != part.checksum:
                raise Damage(1, part.records).error(self.path, first)
            if self._end - self._flushed >= FLUSH:
                flush_soon(self._handle, self._flushed, self._end)
                self._flushed = self._end

    def _copy(self, source: Path, start: int, size: int) -> None:
        """Copy the records of a file to `start`."""
        offset = len(self._brackets.head)
        with source.open("rb", buffering=0) as file:
            while size and not self._is_stopped:
                data = os.pread(file.fileno(), min(size, COPIED), offset)
                if not data:
                    raise not_as_made(self.path, "a part of it became shorter")
                _write_at(self._handle, data, start)
                offset += len(data)
                start += len(data)
                size -= len(data)

    def _look(self, start: int, stop: int) -> xxh3_64:
        """Read bytes of the file and add them to its hash. Returns their checksum."""
        checksum = xxh3_64()
        while start < stop and self._is_read and not self._is_stopped:
            data = os.pread(self._handle, min(stop - start, COPIED), start)
            if not data:
                raise not_as_made(self.path, "it became shorter")
            self._digest.update(data)
            checksum.update(data)
            start += len(data)
        return checksum

    def _finish(self) -> None:
        with named(self.path):
            _write_at(self._handle, self._brackets.tail, self._end)
            size = self._end + len(self._brackets.tail)
            os.ftruncate(self._handle, size)
            self._look(self._end, size)
            self.sha256 = self._digest.hexdigest()


def _write_at(handle: int, data: bytes, offset: int) -> None:
    """Write all bytes; a disk that is nearly full takes only some of them at first."""
    while data:
        count = os.pwrite(handle, data, offset)
        data = data[count:]
        offset += count


class StagedRows:
    """The lines of a joined file, for taking them in another order. Memory: 8 bytes a line.

    `ContentError` if it has another number of lines than were written, or other bytes. It names `target`,
    the file that the lines are for.
    """

    def __init__(self, staged: JoinedFile, rows: int, target: Path) -> None:
        self.path, self.target = staged.path, target
        self._starts = array("Q", [0])
        with staged.path.open("rb") as file:
            for first, (records, expected) in _with_firsts(staged.parts):
                checksum = xxh3_64()
                for _ in range(records):
                    line = file.readline()
                    if not line:
                        break
                    self._starts.append(self._starts[-1] + len(line))
                    checksum.update(line)
                if checksum.intdigest() != expected:
                    self._refuse_other_count(rows, file.read())
                    numbers = f"{first + 1} to {first + records}"
                    raise not_as_made(target, f"one of the records {numbers} in the order of the source")
            self._refuse_other_count(rows, file.read())

    def _refuse_other_count(self, rows: int, rest: bytes) -> None:
        found = len(self._starts) - 1 + rest.count(b"\n")
        if found != rows:
            raise ContentError(
                f"{self.target.name}: internal error: {rows} rows were staged to be arranged, and "
                f"{found} came back: nothing was published; please report this"
            )

    def places(self, rows: Sequence[int]) -> "tuple[array[int], array[int]]":
        """The offset and the length of each of these rows, without its line break."""
        starts = self._starts
        offsets = array("Q", [starts[row] for row in rows])
        lengths = array("Q", [starts[row + 1] - starts[row] - 1 for row in rows])
        return offsets, lengths


def _with_firsts(parts: Sequence[tuple[int, int]]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield each part with the number of records before it."""
    first = 0
    for part in parts:
        yield first, part
        first += part[0]


def copy_rows(source: Path, offsets: "array[int]", lengths: "array[int]", target: RecordFile) -> None:
    """Copy lines of a file by their places, in this order.

    Lines that are shorter than their places say become the damage of `target`, which ends there. Each line is
    read by a call. In a mapped file, lines in random order would count many pages as our memory.
    """
    with source.open("rb") as file:
        for start in range(0, len(offsets), BLOCK):
            wanted = lengths[start : start + BLOCK]
            records = list(map(os.pread, repeat(file.fileno()), wanted, offsets[start : start + BLOCK]))
            if list(map(len, records)) != list(wanted):
                target.damage = Damage(target.rows + 1, target.rows + len(records))
                return
            target.add(target.between.join([*records, b""]), len(records))
