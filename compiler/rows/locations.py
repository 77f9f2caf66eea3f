"""The locations of all rows of a compile, in arrays: 4 bytes a row, or 8 if a file needs more than lines."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from tuneyard.compiler.rows import AtKey, InList, Line, Location, Prefix

_NUMBER = "I"
"""The type code of a line or an item: 4 bytes."""
_HIGHEST = (1 << 32) - 1


class _Run(NamedTuple):
    """What consecutive rows share: the prefix, and the text on both sides of an item's number."""

    prefix: Prefix
    before: str = ""
    after: str = ""


class _PlaceTexts:
    """Texts of some rows, one after the other in UTF-8, with the numbers of the rows and the texts' ends."""

    def __init__(self) -> None:
        self._rows = array(_NUMBER)
        self._ends = array("Q")
        self._bytes = bytearray()

    def add(self, row: int, text: str) -> None:
        """Append the text of a row. Rows come in their order."""
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._rows.append(row)
        self._ends.append(len(self._bytes))

    def append(self, other: "_PlaceTexts", first_row: int) -> None:
        """Append the texts of further rows, whose first one has this number here."""
        first_byte = len(self._bytes)
        self._rows.extend(first_row + row for row in other._rows)
        self._ends.extend(first_byte + end for end in other._ends)
        self._bytes += other._bytes

    def get(self, row: int) -> str | None:
        """The text of a row, None if it has none."""
        number = bisect_left(self._rows, row)
        if number == len(self._rows) or self._rows[number] != row:
            return None
        start = self._ends[number - 1] if number else 0
        return self._bytes[start : self._ends[number]].decode("utf-8", "surrogatepass")


class Locations:
    """The location of each row.

    `_lines` has the line of each row. `_items` is empty until a file has rows in a list or at keys: then it
    has their numbers plus 1, and 0 for the other rows. Keys, and the texts that a plug-in gives as lines, are
    in `_texts`.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._runs: list[_Run] = []
        self._lines = array(_NUMBER)
        self._items = array(_NUMBER)
        self._texts = _PlaceTexts()

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self._lines)

    def add(self, prefix: Prefix, lines: Sequence[Line]) -> None:
        """Append the locations of rows of one file."""
        if not lines:
            return
        if not self._runs or self._runs[-1].prefix != prefix:
            self._start_run(_Run(prefix))
        numbers = _plain_numbers(lines)
        if numbers is None:
            self._fill_items(self.rows)
            for line in lines:
                self._add_line(line)
        else:
            self._lines.extend(numbers)
            if self._items:
                self._fill_items(self.rows)

    def append(self, other: "Locations") -> None:
        """Append the locations of further rows."""
        first_row = self.rows
        self._starts += [first_row + start for start in other._starts]
        self._runs += other._runs
        self._texts.append(other._texts, first_row)
        self._lines.extend(other._lines)
        if other._items:
            self._fill_items(first_row)
            self._items.extend(other._items)
        elif self._items:
            self._fill_items(self.rows)

    def __getitem__(self, row: int) -> Location:
        run = self._runs[bisect_right(self._starts, row) - 1]
        number, item, text = self._lines[row], 0, self._texts.get(row)
        if self._items:
            item = self._items[row]
        line: Line = number
        if text is not None:
            line = AtKey(number, item - 1, text) if item else text
        elif item:
            line = InList(number, item - 1, run.before, run.after)
        return Location(run.prefix, line)

    def _add_line(self, line: Line) -> None:
        number, item, text = 0, 0, None
        if isinstance(line, InList):
            number, item = line.line, line.item + 1
            run = self._runs[-1]
            if (run.before, run.after) != (line.before, line.after):
                self._start_run(_Run(run.prefix, line.before, line.after))
        elif isinstance(line, AtKey):
            number, item, text = line.line, line.item + 1, line.text
        elif isinstance(line, int):
            number = line
        else:
            text = str(line)
        if not (0 <= number <= _HIGHEST and item <= _HIGHEST):
            number, item, text = 0, 0, str(line)
        if text is not None:
            self._texts.add(self.rows, text)
        self._lines.append(number)
        self._items.append(item)

    def _start_run(self, run: _Run) -> None:
        self._starts.append(self.rows)
        self._runs.append(run)

    def _fill_items(self, rows: int) -> None:
        self._items.extend(array(_NUMBER, [0]) * (rows - len(self._items)))


def _plain_numbers(lines: Sequence[Line]) -> "array[int] | None":
    """The lines as an array if each is a number of 4 bytes, None if one is not."""
    if set(map(type, lines)) != {int}:
        return None
    try:
        return array(_NUMBER, lines)  # type: ignore[arg-type]  # all are numbers, as the line above finds
    except OverflowError:
        return None
