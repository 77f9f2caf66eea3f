"""A bar on a terminal for a compile of over two seconds: how many bytes of the sources are read."""

import io
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tuneyard.compiler.read.stream import Readable, stored_size
from tuneyard.core.remote_files import RemoteFile

if TYPE_CHECKING:
    from tqdm import tqdm

DELAY = 2.0


class Progress:
    """Counts the bytes read of source files; tqdm is imported when the bar is due, not before."""

    def __init__(self, paths: Iterable[Readable]) -> None:
        self.total = sum(map(stored_size, paths))
        self.done = 0
        self.began = time.monotonic()
        self.on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self.bar: tqdm[Any] | None = None

    def watch(self, path: Readable) -> Readable:
        """The same file with a bar that moves while it is read."""
        if isinstance(path, RemoteFile):
            return replace(path, moved=self.move)
        return _Watched(path, self.move) if isinstance(path, Path) else path

    def move(self, count: int) -> None:
        """Count bytes that were read, and show them on a terminal once two seconds have passed."""
        self.done += count
        if not self.on_terminal:
            return
        if self.bar is None and time.monotonic() - self.began >= DELAY:
            from tqdm import tqdm

            self.bar = tqdm(
                desc="reading", total=self.total, unit="B", unit_scale=True, leave=False, file=sys.stderr
            )
        if self.bar is not None:
            self.bar.update(self.done - self.bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


class _Watched(NamedTuple):
    path: Path
    move: Callable[[int], None]

    @property
    def name(self) -> str:
        return self.path.name

    def open(self, _mode: Literal["rb"], _buffering: Literal[0], /) -> io.RawIOBase:
        return _Counted(self.path, self.move)


class _Counted(io.FileIO):
    def __init__(self, path: Path, move: Callable[[int], None]) -> None:
        super().__init__(path)
        self.move = move

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        self.move(count)
        return count
