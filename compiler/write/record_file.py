"""Writes record files: JSON Lines, or an array with one record on each line."""

import contextlib
import hashlib
import io
import os
import signal
import zlib
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from tuneyard.compiler.write.pieces import SEPARATOR
from tuneyard.core.errors import ContentError
from tuneyard.core.files import flush_soon, named

BLOCK = 1000
PIECE = 1 << 20
WAIT = 0.01  # seconds
FLUSH = 1 << 24
FOLLOWED = 1 << 25  # bytes from which a second process pays: a fork takes some hundredths of a second
Look = Callable[[BinaryIO], Any]


class Checksum:
    """CRC-32 of the records of a file in their order, with the separator (`between`) after each."""

    def __init__(self, between: bytes) -> None:
        self._between = between
        self.value = 0

    def add(self, records: bytes) -> None:
        """Add records with the separators between them, as they are in the file."""
        self.value = zlib.crc32(self._between, zlib.crc32(records, self.value))


class RecordFile:
    """A file of records being written; line n+1 of an array is record n, line n of JSON Lines.

    - `rows`: the number of records. `sha256`: the hash of the file, after closing.
    - `encoded`: the checksum of the records as they are handed over.
    - `look`: reads the file back, once it is whole or, in another process, while it grows.
    - `in_pieces`: a row may become several records. `sources`: the number of rows.

    A thread hashes and writes while the next batches are made. It takes large pieces, since it waits for the
    interpreter lock after each.
    """

    def __init__(self, path: Path, look: Look | None = None, *, in_pieces: bool = False) -> None:
        self.path, self._look, self._in_pieces = path, look, in_pieces
        self.sources = 0
        self._follower: Follower | None = None
        self.rows, self.sha256 = 0, ""
        array = path.suffix == ".json"
        self._head, self._between, self._tail = (b"[\n", b",\n", b"\n]\n") if array else (b"", b"\n", b"\n")
        self.encoded = Checksum(self._between)
        self._digest = hashlib.sha256()
        self._flushed = 0
        self._ready = bytearray()
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
                    self._ready += self._tail
                    self._hand_over()
                    self._wait()
                    self.sha256 = self._digest.hexdigest()
            finally:
                self._thread.shutdown()
                if kind is not None:
                    self.stop_readback()

    def read_back(self) -> Any:
        """The result of `look` on the whole file. Of a large file another process has it ready."""
        if self._follower:
            return self._follower.result()
        with self.path.open("rb") as file:
            return self._look(file) if self._look else None

    def stop_readback(self) -> None:
        """End the other process, if its result is not needed."""
        if self._follower:
            self._follower.end()

    def add(self, records: Sequence[bytes]) -> None:
        """Append records, and add them to the checksum that the read-back must reproduce."""
        self.sources += len(records)
        if self._in_pieces and records:
            records = SEPARATOR.join(records).split(SEPARATOR)
        if records:
            self.encoded.add(self._between.join(records))
            self.write(records)

    def write(self, records: Sequence[bytes]) -> None:
        """Append records, each a JSON text without line breaks. An error may come some calls later."""
        if records:
            self._ready += (self._between if self.rows else self._head) + self._between.join(records)
            self.rows += len(records)
        if len(self._ready) >= PIECE:
            self._hand_over()

    def _hand_over(self) -> None:
        self._wait()
        if self._look and self._follower is None and self._file.tell() >= FOLLOWED:
            self._follower = Follower(self.path, self._look)
        self._pending = self._thread.submit(self._save, self._ready)
        self._ready = bytearray()

    def _wait(self) -> None:
        if self._pending:
            with named(self.path):
                self._pending.result()

    def _save(self, data: bytearray) -> None:
        self._digest.update(data)
        self._file.write(data)
        self._file.flush()
        at = self._file.tell()
        if at - self._flushed >= FLUSH:
            flush_soon(self._file, self._flushed, at)
            self._flushed = at


class Follower:
    """Reads a file in another process while it is still written.

    It uses fork(2), on Linux and macOS only. The child takes no lock and starts no thread. It ends with its
    parent, whose end of the pipe is closed then.
    """

    def __init__(self, path: Path, look: Look) -> None:
        from multiprocessing import get_context

        self.path = path
        fork = get_context("fork")
        self._pipe, child_end = fork.Pipe()
        self._child = fork.Process(target=_follow, args=(path, look, child_end, self._pipe), daemon=True)
        self._child.start()
        child_end.close()

    def result(self) -> Any:
        """Tell the child that the file is whole, and wait for its result. Raises its `ContentError`."""
        result: Any = ContentError(
            f"{self.path.name}: the process that read it back ended; nothing was published"
        )
        with contextlib.suppress(BrokenPipeError):  # it has ended with an error
            self._pipe.send(None)
        with contextlib.suppress(EOFError, ConnectionResetError):
            result = self._pipe.recv()
        self.end()
        if isinstance(result, ContentError):
            raise result
        return result

    def end(self) -> None:
        """End the child at once."""
        self._child.kill()
        self._child.join()
        self._pipe.close()


class _Growing(io.RawIOBase):
    """Reader that blocks until the writer is done."""

    def __init__(self, path: Path, pipe: Any) -> None:
        self._file, self._pipe, self._whole = path.open("rb", buffering=0), pipe, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            count = self._file.readinto(buffer) or 0
            if count or self._whole:
                return count
            if self._pipe.poll(WAIT):
                try:
                    self._whole = self._pipe.recv() is None
                except EOFError:  # the parent is gone
                    os._exit(1)


def _follow(path: Path, look: Look, pipe: Any, parent_end: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's end is told by the pipe
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent_end.close()
    try:
        try:
            result = look(io.BufferedReader(_Growing(path, pipe), PIECE))
        except ContentError as error:
            result = error
        pipe.send(result)
    finally:
        os._exit(0)  # of anything else the parent says that this process ended


def not_as_made(path: Path, part: str) -> ContentError:
    """Error for a file whose bytes differ from the written bytes."""
    return ContentError(
        f"{path.name}: {part}: the file on the disk differs from the written data. Nothing was published. "
        "Check the disk. If it is sound, please report this"
    )


def rearrange(staged: RecordFile, lines_there: int, order: Sequence[int], target: RecordFile) -> None:
    """Copy lines of a staged file by number, in this order. Memory: 8 bytes a line.

    Each line is read by a call. In a mapped file, lines in random order would count many pages as our memory.

    `ContentError` if the file has another number of lines, or other bytes than were staged.
    """
    starts, checksum = array("Q", [0]), 0
    with staged.path.open("rb") as file:
        for line in file:
            starts.append(starts[-1] + len(line))
            checksum = zlib.crc32(line, checksum)
        if len(starts) - 1 != lines_there:
            raise ContentError(
                f"{target.path.name}: internal error: {lines_there} rows were staged to be arranged, and "
                f"{len(starts) - 1} came back: nothing was published; please report this"
            )
        if checksum != staged.encoded.value:
            raise not_as_made(target.path, f"one of the records 1 to {lines_there}")
        for block in range(0, len(order), BLOCK):
            rows = order[block : block + BLOCK]
            lengths = [starts[row + 1] - starts[row] - 1 for row in rows]
            offsets = [starts[row] for row in rows]
            records = list(map(os.pread, repeat(file.fileno()), lengths, offsets))
            if list(map(len, records)) != lengths:
                raise not_as_made(target.path, f"one of the records 1 to {lines_there}")
            target.add(records)
