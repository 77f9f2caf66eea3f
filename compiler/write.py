"""Record files, written as they come: JSON Lines, or an array with one record a line."""

import hashlib
import mmap
from array import array
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from core.files import flush_soon

BLOCK = 1000
PIECE = 1 << 20
FLUSH = 1 << 24


class RecordFile:
    """A file of records being written; line n+1 of an array is record n, line n of JSON Lines.

    Counts the records (`rows`) and hashes the bytes on the way (`sha256`, after closing). Hashing
    and writing need no interpreter lock: a thread does both while the next batches are made, in large
    pieces, since it waits for the lock after each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.sha256 = ""
        array = path.suffix == ".json"
        self._head, self._between, self._tail = (b"[\n", b",\n", b"\n]\n") if array else (b"", b"\n", b"\n")
        self._digest = hashlib.sha256()
        self._unsynced = 0
        self._ready: list[bytes] = []
        self._size = 0
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        self._file = self.path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.rows:
                self._put(self._tail)
                self._hand_over()
                self._wait()
                self.sha256 = self._digest.hexdigest()
        finally:
            self._thread.shutdown()
            self._file.close()

    def write(self, records: Sequence[bytes]) -> None:
        """Append records, each a JSON text without line breaks; an error may come some calls later."""
        if records:
            self._put((self._between if self.rows else self._head) + self._between.join(records))
            self.rows += len(records)

    def _put(self, data: bytes) -> None:
        self._ready.append(data)
        self._size += len(data)
        if self._size >= PIECE:
            self._hand_over()

    def _hand_over(self) -> None:
        self._wait()
        self._pending = self._thread.submit(self._save, b"".join(self._ready))
        self._ready, self._size = [], 0

    def _wait(self) -> None:
        if self._pending:
            self._pending.result()

    def _save(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)
        self._unsynced += len(data)
        if self._unsynced >= FLUSH:
            at = self._file.tell()
            flush_soon(self._file, at - self._unsynced, at)
            self._unsynced = 0


def rearrange(path: Path, order: Sequence[int], target: RecordFile) -> None:
    """Copy lines of a JSON Lines file, by number, in this order; memory holds 8 bytes a line."""
    starts = array("Q", [0])
    with path.open("rb") as file:
        for line in file:
            starts.append(starts[-1] + len(line))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as lines:
            for block in range(0, len(order), BLOCK):
                rows = order[block : block + BLOCK]
                target.write([lines[starts[row] : starts[row + 1] - 1] for row in rows])
