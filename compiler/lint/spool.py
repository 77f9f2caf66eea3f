"""Numbers, one a row, of which memory holds the last ones: what comes before lies in a temporary file."""

import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from os import pread
from pathlib import Path
from typing import BinaryIO, overload

from tuneyard.core.errors import ContentError
from tuneyard.core.files import named

IN_MEMORY = 1 << 20  # bytes of one column: a dataset of 100,000 rows writes no temporary file
BLOCK = 1 << 17  # numbers that are read at a time


class Spool(Sequence[int]):
    """A column of whole numbers that is appended to and read back; `typecode` is that of `array`.

    The file is without a name in the folder for temporary files (TMPDIR): it ends with the process.
    """

    def __init__(self, typecode: str) -> None:
        self.typecode = typecode
        self._recent = array(typecode)
        self._width = self._recent.itemsize
        self._file: BinaryIO | None = None
        self._filed = 0  # numbers in the file

    @classmethod
    def of_file(cls, path: Path, typecode: str) -> "Spool":
        """The numbers in a file, in this machine's byte order, which is only read."""
        spool = cls(typecode)
        spool._file = path.open("rb")
        spool._filed = path.stat().st_size // spool._width
        return spool

    def __getstate__(self) -> "array[int]":
        return self.whole()

    def __setstate__(self, numbers: "array[int]") -> None:
        self.__init__(numbers.typecode)  # type: ignore[misc]
        self.extend(numbers)

    def __len__(self) -> int:
        return self._filed + len(self._recent)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> "array[int]": ...
    def __getitem__(self, index: int | slice) -> "int | array[int]":
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError(f"found the step {step}, expected 1")
            return self._read(start, stop)
        if index < self._filed:
            return self._read(index, index + 1)[0]
        return self._recent[index - self._filed]

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.blocks())

    def blocks(self) -> "Iterator[array[int]]":
        """Yield all numbers in order, some at a time."""
        for start in range(0, len(self), BLOCK):
            yield self[start : start + BLOCK]

    def whole(self) -> "array[int]":
        """All numbers in memory, for access in any order."""
        return self[:]

    def extend(self, numbers: Iterable[int]) -> None:
        """Append numbers."""
        self._recent.extend(numbers)
        self._spill()

    def fromlist(self, numbers: list[int]) -> None:
        """Append a list of numbers, which is faster than `extend`."""
        self._recent.fromlist(numbers)
        self._spill()

    def clear(self) -> None:
        """Drop all numbers."""
        self._recent = array(self.typecode)
        self._filed = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def take(self, order: Sequence[int]) -> "Spool":
        """The numbers of some rows, in this order; an unused column has none.

        All are in memory while they are taken.
        """
        taken = Spool(self.typecode)
        if not len(self):
            return taken
        everything = self.whole()
        for start in range(0, len(order), BLOCK):
            taken.fromlist([everything[row] for row in order[start : start + BLOCK]])
        return taken

    def _spill(self) -> None:
        """Move the numbers in memory to the file if they are many."""
        if len(self._recent) * self._width < IN_MEMORY:
            return
        with named(Path(tempfile.gettempdir())):
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  # goes with the column
            self._file.write(self._recent)
            self._file.flush()
        self._filed += len(self._recent)
        self._recent = array(self.typecode)

    def _read(self, start: int, stop: int) -> "array[int]":
        """The numbers from `start` to `stop`; `ContentError` if the file became shorter."""
        filed_stop = max(min(stop, self._filed), start)
        numbers = array(self.typecode, [0]) * (filed_stop - start)
        if self._file is not None and numbers:
            with memoryview(numbers).cast("B") as room:
                self._fill(room, start * self._width)
        if stop > self._filed:
            numbers.extend(self._recent[max(start - self._filed, 0) : stop - self._filed])
        return numbers

    def _fill(self, room: memoryview, offset: int) -> None:
        """Read bytes of the file from `offset` into `room`, a piece at a time: memory holds them once."""
        if self._file is None:
            return
        filled = 0
        while filled < len(room):
            piece = pread(self._file.fileno(), min(len(room) - filled, IN_MEMORY), offset + filled)
            if not piece:
                raise ContentError("a temporary file became shorter; nothing was published")
            room[filled : filled + len(piece)] = piece
            filled += len(piece)
