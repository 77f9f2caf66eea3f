"""Writes files of records (JSON Lines, or an array with a record a line), and counts and hashes them."""

import hashlib
import mmap
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate
from os import pread
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from tuneyard.core.files import named

COPIED = 1 << 20  # bytes at a time
BLOCK = 1000  # rows that are copied at a time
SMALL = 1 << 32  # bytes: the locations of lines in a smaller file need 4 bytes
LINE = b"\n"


class Savepoint(NamedTuple):
    """How much of a file and of its keys is written, its number of records, and their hash."""

    size: int
    keys_size: int
    records: int
    digest: "hashlib._Hash"


class RecordFile:
    """A file of records being written; line n+1 of an array is record n, line n of JSON Lines.

    - `records`: their number, as the written bytes have it.
    - `sha256`: the hash of the file, once it is closed.
    - `keys`: the file of the fingerprints of its examples, 8 bytes each, None without a dataset.

    A file that `is_fragment` of another one has the separator after its last record, too, and no brackets.
    """

    def __init__(self, path: Path, *, has_keys: bool = False, is_fragment: bool = False) -> None:
        self.path, self.is_fragment = path, is_fragment
        self.records = 0
        self.sha256 = ""
        self.keys = path.with_name(f".{path.name}.fingerprints") if has_keys else None
        self.separator = LINE  # what stands between two records; JSON escapes line breaks in one
        self._head, self._tail = b"", LINE
        if path.suffix == ".json":
            self.separator, self._head, self._tail = b",\n", b"[\n", b"\n]\n"
        if is_fragment:
            self._head, self._tail = b"", self.separator
        self._digest = hashlib.sha256()
        self._open_files = ExitStack()

    def __enter__(self) -> Self:
        self._file: BinaryIO = self._open_files.enter_context(self.path.open("wb", buffering=0))
        self._keys_file = self._open_files.enter_context(self.keys.open("wb")) if self.keys else None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_unused: object) -> None:
        with self._open_files:
            if kind is None and self.records:
                self._write(self._tail)
                self.sha256 = self._digest.hexdigest()

    def add(self, data: bytes, keys: "array[int] | None" = None) -> None:
        """Append JSON texts without line breaks, each with `separator` after it, and keys of the examples."""
        if not data:
            return
        before = self.separator if self.records else self._head
        self.records += data.count(LINE)
        self._write(before + data[: -len(self.separator)])
        if keys is not None and self._keys_file is not None:
            with named(self.path):
                self._keys_file.write(keys)

    def add_fragment(self, fragment: Path) -> None:
        """Append the records of a file that `is_fragment` of this one, and their keys."""
        with named(self.path), fragment.open("rb", buffering=0) as source:
            rest = fragment.stat().st_size - len(self.separator)  # without what is after its last record
            if rest > 0:
                self._write(self.separator if self.records else self._head)
                self.records += 1
            while rest > 0 and (piece := source.read(min(rest, COPIED))):
                self.records += piece.count(LINE)
                self._write(piece)
                rest -= len(piece)
        if self._keys_file is not None:
            fragment_keys = fragment.with_name(f".{fragment.name}.fingerprints")
            with named(self.path):
                self._keys_file.write(fragment_keys.read_bytes())

    def add_rows(self, source: "RecordFile", order: Sequence[int]) -> None:
        """Append lines of a file that `is_fragment` of this one, and their keys, in this order.

        Memory: 4 bytes a line, 8 if the file has 4 GiB. Each line is read by a call. In a mapped file, lines
        in random order would count many pages as our memory.
        """
        keys_of_lines = keys_in(source.keys) if source.keys else None
        with source.path.open("rb") as file:
            gap = len(source.separator)
            is_small = source.path.stat().st_size < SMALL
            starts = array("I" if is_small else "Q", accumulate(map(len, file), initial=0))
            for first in range(0, len(order), BLOCK):
                rows = order[first : first + BLOCK]
                lines = [
                    pread(file.fileno(), starts[row + 1] - starts[row] - gap, starts[row]) for row in rows
                ]
                keys = array("Q", map(keys_of_lines.__getitem__, rows)) if keys_of_lines else None
                self.add(self.separator.join([*lines, b""]), keys)

    def savepoint(self) -> Savepoint:
        """What is written so far, to go `roll_back_to`."""
        keys_size = self._keys_file.tell() if self._keys_file else 0
        return Savepoint(self._file.tell(), keys_size, self.records, self._digest.copy())

    def roll_back_to(self, savepoint: Savepoint) -> None:
        """Take back all that was written after a mark."""
        with named(self.path):
            self._file.seek(savepoint.size)
            self._file.truncate()
            if self._keys_file is not None:
                self._keys_file.seek(savepoint.keys_size)
                self._keys_file.truncate()
        self.records = savepoint.records
        self._digest = savepoint.digest.copy()

    def delete(self) -> None:
        """Delete the file and its keys."""
        self.path.unlink()
        if self.keys:
            self.keys.unlink()

    def _write(self, data: bytes) -> None:
        """Write and hash. A disk that is nearly full takes only some bytes at first."""
        with named(self.path):
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        if not self.is_fragment:
            self._digest.update(data)


class CountedRecords(RecordFile):
    """Records of `data check`: rendered and counted, and not written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)

    def __enter__(self) -> Self:
        self._keys_file = None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_unused: object) -> None:
        return

    def add_rows(self, _source: RecordFile, order: Sequence[int]) -> None:
        """Count the rows of an earlier pass."""
        self.records += len(order)

    def savepoint(self) -> Savepoint:
        """The records that are counted so far."""
        return Savepoint(0, 0, self.records, self._digest)

    def roll_back_to(self, savepoint: Savepoint) -> None:
        """Count from a mark again."""
        self.records = savepoint.records

    def delete(self) -> None:
        """Nothing was written."""

    def _write(self, *_unused: object) -> None:
        return


def keys_in(path: Path) -> "memoryview[int]":
    """The keys in a file, in the byte order of this machine, which are read as they are needed.

    The file is unmapped once nobody holds them. Ctrl-C holds them while it is raised.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(mapped).cast("Q")
