"""A second process that works on a file while it is still being written, so that a second look costs no time.

Linux and macOS only, by fork(2): the child reads, computes and answers through a pipe; it takes no lock and
starts no thread. It ends with its parent, whose end of the other pipe is closed then.
"""

import io
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import ContentError

Work = Callable[[BinaryIO], Any]
_END = (1 << 64) - 1  # in place of a size: the file is whole
_BYTES = 8


class Follower:
    """Runs `work` on an open file from its beginning to its end, both of which may still be unwritten."""

    def __init__(self, path: Path, work: Work) -> None:
        self.path = path
        sizes, self._sizes = os.pipe()
        self._answer, answer = os.pipe()
        self._child = os.fork()
        if not self._child:
            _follow(path, work, sizes, answer, (self._sizes, self._answer))
        os.close(sizes)
        os.close(answer)

    def grown(self, size: int) -> None:
        """Let the child read this far: so many bytes are on their way to the disk."""
        try:
            os.write(self._sizes, size.to_bytes(_BYTES, "little"))
        except BrokenPipeError:  # it ended: `result` says why
            return

    def result(self) -> Any:
        """Say that the file is whole, wait, and return what `work` made; raises its `ContentError`."""
        self.grown(_END)
        with os.fdopen(self._answer, "rb") as answer:
            said = answer.read()
        self._reap()
        if not said:
            raise ContentError(
                f"{self.path.name}: the process that read it back ended; nothing was published"
            )
        made = pickle.loads(said)  # of our own child
        if isinstance(made, ContentError):
            raise made
        return made

    def abandon(self) -> None:
        """End the child: nobody wants what it makes."""
        os.kill(self._child, signal.SIGKILL)
        os.close(self._answer)
        self._reap()

    def _reap(self) -> None:
        os.close(self._sizes)
        os.waitpid(self._child, 0)


class _Growing(io.RawIOBase):
    """The file as far as the parent has said that it is written; reading waits for more."""

    def __init__(self, path: Path, sizes: int) -> None:
        self._file, self._sizes = path.open("rb", buffering=0), sizes
        self._at, self._size, self._whole = 0, 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._at >= self._size and not self._whole:
            told = os.read(self._sizes, _BYTES)
            if not told:  # the parent is gone
                os._exit(1)
            size = int.from_bytes(told, "little")
            self._whole, self._size = size == _END, size
        room = memoryview(buffer) if self._whole else memoryview(buffer)[: self._size - self._at]
        count = self._file.readinto(room) or 0
        self._at += count
        return count


def _follow(path: Path, work: Work, sizes: int, answer: int, parents: tuple[int, int]) -> None:
    """Do the child's work and end: nothing of the parent's (its handlers, its files) is to run here."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's end is told by the pipe
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for end in parents:
            os.close(end)
        try:
            made: Any = work(io.BufferedReader(_Growing(path, sizes), 1 << 20))
        except ContentError as error:
            made = error
        with os.fdopen(answer, "wb") as file:
            pickle.dump(made, file)
    finally:
        os._exit(0)
