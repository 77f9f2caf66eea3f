"""Record files, written as they come: JSON Lines, or an array with one record a line."""

import hashlib
import mmap
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from compiler.follow import Follower
from core.errors import ContentError
from core.files import flush_soon, named

BLOCK = 1000
PIECE = 1 << 20
FLUSH = 1 << 24
FOLLOWED = 1 << 25  # bytes from which a second process pays: a fork takes some hundredths of a second
Look = Callable[[BinaryIO], Any]


class RecordFile:
    """A file of records being written; line n+1 of an array is record n, line n of JSON Lines.

    Counts the records (`rows`) and hashes the bytes on the way (`sha256`, after closing). Hashing
    and writing need no interpreter lock: a thread does both while the next batches are made, in large
    pieces, since it waits for the lock after each. `look` is called on the file, once it is whole or, in a
    process of its own, while it grows.
    """

    def __init__(self, path: Path, look: Look | None = None) -> None:
        self.path = path
        self._look = look
        self._follower: Follower | None = None
        self._written = 0
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
        with named(self.path), self._file:
            try:
                if kind is None and self.rows:
                    self._put(self._tail)
                    self._hand_over()
                    self._wait()
                    self.sha256 = self._digest.hexdigest()
            finally:
                self._thread.shutdown()
                if kind is not None:
                    self.forget()

    def looked(self) -> Any:
        """Return what `look` finds in the whole file: in a large one it looked while that was written."""
        if self._follower is None and self._look is not None:
            with self.path.open("rb") as file:
                return self._look(file)
        follower, self._follower = self._follower, None
        return follower.result() if follower else None

    def forget(self) -> None:
        """End a look at the file that nobody will ask for."""
        if self._follower:
            self._follower.abandon()
        self._follower = None

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
        if self._look and self._follower is None and self._written >= FOLLOWED:
            self._follower = Follower(self.path, self._look)
        if self._follower:
            self._follower.grown(self._written)
        self._pending = self._thread.submit(self._save, b"".join(self._ready))
        self._ready, self._size = [], 0

    def _wait(self) -> None:
        if self._pending:
            with named(self.path):
                self._pending.result()

    def _save(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)
        self._file.flush()
        self._written += len(data)
        self._unsynced += len(data)
        if self._unsynced >= FLUSH:
            at = self._file.tell()
            flush_soon(self._file, at - self._unsynced, at)
            self._unsynced = 0


def rearrange(path: Path, lines_there: int, order: Sequence[int], target: RecordFile) -> None:
    """Copy lines of a JSON Lines file, by number, in this order; memory holds 8 bytes a line.

    `ContentError` where the file has another number of lines than were written to it.
    """
    starts = array("Q", [0])
    with path.open("rb") as file:
        for line in file:
            starts.append(starts[-1] + len(line))
        if len(starts) - 1 != lines_there:
            raise ContentError(
                f"{target.path.name}: internal error: {lines_there} rows were staged to be arranged, and "
                f"{len(starts) - 1} came back: nothing was published; please report this"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as lines:
            for block in range(0, len(order), BLOCK):
                rows = order[block : block + BLOCK]
                target.write([lines[starts[row] : starts[row + 1] - 1] for row in rows])
