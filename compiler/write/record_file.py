"""Writes files of records (JSON Lines, or an array with a record a line), and counts and hashes them."""

import hashlib
from array import array
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from tuneyard.core.files import flush_soon, named

COPIED = 1 << 20  # bytes at a time
FLUSHED = 1 << 24
LINE = b"\n"


class Brackets(NamedTuple):
    """What stands before, between and after the records of a file. JSON escapes line breaks in a record."""

    head: bytes
    between: bytes
    tail: bytes


def brackets_of(path: Path) -> Brackets:
    """Those of a JSON array for `….json`, of JSON Lines for other files."""
    if path.suffix == ".json":
        return Brackets(b"[\n", b",\n", b"\n]\n")
    return Brackets(b"", LINE, LINE)


class RecordFile:
    """A file of records being written; line n+1 of an array is record n, line n of JSON Lines.

    - `records`: their number, as the written bytes have it.
    - `sha256`: the hash of the file, once it is closed.
    - `keys`: the file of the fingerprints of its examples, 8 bytes each, None for a file that is no dataset.

    A file that `is_part` of another one has the separator after its last record, too, and no brackets.
    """

    def __init__(self, path: Path, *, has_keys: bool = False, is_part: bool = False) -> None:
        self.path, self.is_part = path, is_part
        self.records = 0
        self.sha256 = ""
        self.keys = path.with_name(f".{path.name}.fingerprints") if has_keys else None
        self._brackets = brackets_of(path)
        if is_part:
            self._brackets = Brackets(b"", self.between, self.between)
        self._digest = hashlib.sha256()
        self._written = self._flushed = 0
        self._open_files = ExitStack()

    @property
    def between(self) -> bytes:
        """What stands between two records."""
        return self._brackets.between

    def __enter__(self) -> Self:
        self._file: BinaryIO = self._open_files.enter_context(self.path.open("wb", buffering=0))
        self._keys_file = self._open_files.enter_context(self.keys.open("wb")) if self.keys else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open_files:
            if kind is None and self.records:
                self._write(self._brackets.tail)
                self.sha256 = self._digest.hexdigest()

    def add(self, data: bytes, keys: "array[int] | None" = None) -> None:
        """Append JSON texts without line breaks, each with `between` after it, and keys of the examples."""
        if not data:
            return
        before = self.between if self.records else self._brackets.head
        self.records += data.count(LINE)
        self._write(before + data[: -len(self.between)])
        if keys is not None and self._keys_file is not None:
            with named(self.path):
                self._keys_file.write(keys)

    def add_part(self, part: Path) -> None:
        """Append the records of a file that `is_part` of this one, and their keys."""
        with named(self.path), part.open("rb", buffering=0) as source:
            rest = b""
            while piece := source.read(COPIED):
                whole, line_break, start = (rest + piece).rpartition(LINE)
                self.add(whole + line_break)
                rest = start
        if self._keys_file is not None:
            keys = array("Q")
            part_keys = part.with_name(f".{part.name}.fingerprints")
            with part_keys.open("rb") as source:
                keys.frombytes(source.read())
            with named(self.path):
                self._keys_file.write(keys)

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
        if not self.is_part:
            self._digest.update(data)
        self._written += len(data)
        if self._written - self._flushed >= FLUSHED:
            flush_soon(self._file, self._flushed, self._written)
            self._flushed = self._written
