"""Per-row hashes for finding duplicates and leaks, in columns of which memory holds the last rows alone."""

import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from itertools import accumulate
from math import ceil
from typing import cast

from tuneyard.compiler.lint.matching import Pairs, numbered, repeated
from tuneyard.compiler.lint.spool import Spool
from tuneyard.compiler.rows import Line

_NO_ID = -(1 << 62)  # and up: distinct keys for rows that the file does not number


class Codes:
    """The label or class of each row as a small number, since there are few different ones."""

    def __init__(self) -> None:
        self.rows = Spool("I")
        self._codes: dict[object, int] = {}

    def note(self, values: Sequence[object]) -> None:
        """Append the values of some rows."""
        for value in dict.fromkeys(values):
            self._codes.setdefault(value, len(self._codes))
        self.rows.fromlist(list(map(self._codes.__getitem__, values)))

    def names(self) -> list[object]:
        """The values by their numbers, in the order of their first appearance."""
        return list(self._codes)

    def append(self, other: "Codes") -> list[int]:
        """Append the codes of further rows. Returns the new number of each of their values."""
        numbers = [self._codes.setdefault(value, len(self._codes)) for value in other.names()]
        are_the_same = numbers == list(range(len(numbers)))
        for block in other.rows.blocks():
            self.rows.extend(block if are_the_same else map(numbers.__getitem__, block))
        return numbers

    def take(self, order: Sequence[int]) -> "Codes":
        """The codes of some rows."""
        taken = Codes()
        taken._codes = self._codes
        taken.rows = self.rows.take(order)
        return taken


@lru_cache(2)  # a warning names a row and its twin: both come in the order of their rows, from two places
def _unpacked(packed: bytes) -> list[str]:
    return zlib.decompress(packed).decode(errors="surrogatepass").split("\n")


@dataclass(frozen=True, slots=True)
class PackedLines:
    """Places within a file that are texts, such as `1 record 7`: about 3 bytes a row instead of 60."""

    packed: bytes

    def __getitem__(self, number: int) -> str:
        return _unpacked(self.packed)[number]


Places = Sequence[Line] | PackedLines | int


def _keys() -> Spool:
    return Spool("q")


@dataclass(slots=True)
class Fingerprints:
    """Keys of normalised texts (hashes of 8 bytes), places, labels and lengths, row by row.

    With `counted_only`, rows are folded into counts as they come, and cannot be compared.
    """

    counted_only: bool = False
    prompts: Spool = field(default_factory=_keys)
    answers: Spool = field(default_factory=_keys)
    groups: Spool = field(default_factory=_keys)
    ids: Spool = field(default_factory=_keys)
    lengths: Spool = field(default_factory=lambda: Spool("I"))
    stable: Spool = field(default_factory=lambda: Spool("Q"))
    labels: Codes = field(default_factory=Codes)
    classes: Codes = field(default_factory=Codes)
    units: Spool = field(default_factory=_keys)
    texts: list[str] = field(default_factory=list)
    _rows: int = 0
    _lengths: Counter[int] = field(default_factory=Counter)
    _labels: Counter[int] = field(default_factory=Counter)
    _starts: list[int] = field(default_factory=list)
    _places: list[tuple[str, Places]] = field(default_factory=list)
    _lines: Spool = field(default_factory=lambda: Spool("Q"))
    _without_id: list[tuple[int, int]] = field(default_factory=list)
    _order: Sequence[int] | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self._rows + len(self.prompts)

    def begin(self, prefix: str, lines: Sequence[Line]) -> None:
        """Note the places of the rows whose keys come next."""
        self._starts.append(self.rows)
        self._places.append((prefix, self._compact(lines)))

    def add_rows_without_id(self, count: int) -> None:
        """Give rows that the file does not number distinct ids. Their keys come next."""
        first = self.rows
        self._without_id.append((first, count))
        self.ids.extend(range(_NO_ID + first, _NO_ID + first + count))

    def append(self, other: "Fingerprints") -> None:
        """Append the fingerprints of the rows that come next, which another process may have made.

        `other` is not to be used any more.
        """
        if not self.rows:
            for column in fields(self):
                setattr(self, column.name, getattr(other, column.name))
            return
        first, first_line = self.rows, len(self._lines)
        self._starts += [first + start for start in other._starts]
        for prefix, lines in other._places:
            self._places.append((prefix, first_line + lines if isinstance(lines, int) else lines))
        ids = other.ids.whole()
        if ids:
            for start, count in other._without_id:
                keys = range(_NO_ID + first + start, _NO_ID + first + start + count)
                ids[start : start + count] = array("q", keys)
        self.ids.extend(ids)
        columns = (
            (self.prompts, other.prompts),
            (self.answers, other.answers),
            (self.groups, other.groups),
            (self.lengths, other.lengths),
            (self.stable, other.stable),
            (self.units, other.units),
            (self._lines, other._lines),
        )
        for mine, further in columns:
            for block in further.blocks():
                mine.extend(block)
        self.texts += other.texts
        self.classes.append(other.classes)
        numbers = self.labels.append(other.labels)
        self._rows += other._rows
        self._lengths.update(other._lengths)
        for code, count in other._labels.items():
            self._labels[numbers[code]] += count

    def fold(self) -> None:
        """Reduce the rows so far to the counts of the manifest and the cluster of each row."""
        self._rows = self.rows
        self._lengths.update(self.lengths)
        self._labels.update(self.labels.rows)
        for values in (self.prompts, self.answers, self.ids, self.lengths, self.labels.rows, self._lines):
            values.clear()
        self._starts.clear()
        self._places.clear()
        self._without_id.clear()

    def place(self, row: int) -> str:
        """The place of the row with this number (from 0)."""
        if self._order is not None:
            row = self._order[row]
        part = bisect_right(self._starts, row) - 1
        prefix, lines = self._places[part]
        number = row - self._starts[part]
        line = self._lines[lines + number] if isinstance(lines, int) else lines[number]
        return f"{prefix}{line}"

    def _compact(self, lines: Sequence[Line]) -> Places:
        """Lines in few bytes: a range, the position of the first one in `_lines`, or packed texts."""
        if isinstance(lines, range):
            return lines
        first, last = lines[0], lines[-1]
        if isinstance(first, int) and isinstance(last, int) and last > first:
            step = (last - first) // (len(lines) - 1)
            evenly = range(first, last + 1, max(step, 1))
            if list(evenly) == list(lines):
                return evenly
        if all(type(line) is int for line in lines):
            start = len(self._lines)
            self._lines.extend(cast("Sequence[int]", lines))
            return start
        text = "\n".join(map(str, lines))
        if text.count("\n") >= len(lines):  # a reader of others may have line breaks in its places
            return lines
        return PackedLines(zlib.compress(text.encode(errors="surrogatepass"), 1))

    def take(self, order: Sequence[int]) -> "Fingerprints":
        """The fingerprints of some rows, in this order, without the columns for drawing a split."""
        texts = [self.texts[row] for row in order] if self.texts else []
        return replace(
            self,
            prompts=self.prompts.take(order),
            answers=self.answers.take(order),
            groups=self.groups.take(order),
            ids=self.ids.take(order),
            lengths=self.lengths.take(order),
            texts=texts,
            labels=self.labels.take(order),
            _order=order,
        )

    def repeats(self) -> tuple[Pairs, Pairs]:
        """(row, first row) for repeated rows, and for repeated prompts with another answer."""
        first_rows: dict[tuple[int, int], int] = {}
        same_prompts = repeated(self.prompts)
        repeated_rows = []
        for row in sorted({row for pair in same_prompts for row in pair}):
            first = first_rows.setdefault((self.prompts[row], self.answers[row]), row)
            if first != row:
                repeated_rows.append((row, first))
        conflicts = [(row, first) for row, first in same_prompts if self.answers[row] != self.answers[first]]
        return repeated_rows, conflicts

    def clusters(self) -> Spool:
        """The number of the group of each row, counted from 0 in the order of the first rows."""
        return numbered(self.groups)

    def summary(self) -> dict[str, object]:
        """Rows, label balance and lengths for the manifest."""
        names = self.labels.names()
        counts = self._labels + Counter(self.labels.rows)
        labels = dict(sorted((str(names[code]), count) for code, count in counts.items()))
        characters = quantiles(self._lengths + Counter(self.lengths))
        return {"rows": self.rows, "labels": labels, "characters": characters}


def quantiles(lengths: Counter[int]) -> dict[str, int]:
    """The shortest, median, 95th percentile and longest length (nearest rank); {} without lengths."""
    ordered = sorted(lengths.items())
    if not ordered:
        return {}
    sums = list(accumulate(count for _, count in ordered))

    def at(share: float) -> int:
        return ordered[bisect_left(sums, max(1, ceil(share * sums[-1])))][0]

    return {"min": ordered[0][0], "median": at(0.5), "p95": at(0.95), "max": ordered[-1][0]}
