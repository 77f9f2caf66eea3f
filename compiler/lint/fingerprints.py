"""Per-row hashes for finding duplicates and leaks, in columns of which memory holds the last rows alone."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import ceil
from typing import Any, cast

from tuneyard.compiler.lint.matching import Pairs, numbered, repeated
from tuneyard.compiler.lint.spool import Spool
from tuneyard.compiler.rows import Line


class Codes:
    """One small number for each row in place of its value: a label or a class, of which there are few."""

    def __init__(self) -> None:
        self.rows = Spool("I")
        self._codes: dict[object, int] = {}

    def note(self, values: Sequence[object]) -> None:
        """Append the values of some rows."""
        for value in dict.fromkeys(values):
            self._codes.setdefault(value, len(self._codes))
        self.rows.fromlist(list(map(self._codes.__getitem__, values)))

    def names(self) -> list[object]:
        """Return the values by their numbers, in the order of their first appearance."""
        return list(self._codes)

    def take(self, order: Sequence[int]) -> "Codes":
        """Return the codes of some rows."""
        taken = Codes()
        taken._codes = self._codes
        taken.rows = self.rows.take(order)
        return taken


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
    _places: list[tuple[str, Sequence[Line] | int]] = field(default_factory=list)
    _lines: Spool = field(default_factory=lambda: Spool("Q"))
    _order: Sequence[int] | None = None

    @property
    def rows(self) -> int:
        """How many rows were seen."""
        return self._rows + len(self.prompts)

    def begin(self, prefix: str, lines: Sequence[Line]) -> None:
        """Note the places of the rows whose keys come next."""
        self._starts.append(self.rows)
        self._places.append((prefix, self._compact(lines)))

    def fold(self) -> None:
        """Keep of the rows seen so far only what the manifest counts, and the cluster of each."""
        self._rows = self.rows
        self._lengths.update(self.lengths)
        self._labels.update(self.labels.rows)
        for values in (self.prompts, self.answers, self.ids, self.lengths, self.labels.rows, self._lines):
            values.clear()
        self._starts.clear()
        self._places.clear()

    def place(self, row: int) -> str:
        """Return the address of the row with this number (from 0)."""
        row = row if self._order is None else self._order[row]
        part = bisect_right(self._starts, row) - 1
        prefix, lines = self._places[part]
        number = row - self._starts[part]
        line = self._lines[lines + number] if isinstance(lines, int) else lines[number]
        return f"{prefix}{line}"

    def _compact(self, lines: Sequence[Line]) -> Sequence[Line] | int:
        """Return lines in few bytes: a range, or where in `_lines` the first one is; others as they are."""
        if isinstance(lines, range):
            return lines
        if evenly := _as_range(lines):
            return evenly
        if all(type(line) is int for line in lines):
            start = len(self._lines)
            self._lines.extend(cast("Sequence[int]", lines))
            return start
        return lines

    def take(self, order: Sequence[int]) -> "Fingerprints":
        """Return what was seen of some rows, in this order (what a split goes by stays behind)."""
        arrays = ("prompts", "answers", "groups", "ids", "lengths")
        taken: dict[str, Any] = {name: getattr(self, name).take(order) for name in arrays}
        texts = [self.texts[row] for row in order] if self.texts else []
        return replace(self, **taken, texts=texts, labels=self.labels.take(order), _order=order)

    def repeats(self) -> tuple[Pairs, Pairs]:
        """Return (row, first row) for rows that came before, and for inputs with another answer."""
        first: dict[tuple[int, int], int] = {}
        asked = repeated(self.prompts)
        rows = sorted({row for pair in asked for row in pair})
        same = [(row, first.setdefault((self.prompts[row], self.answers[row]), row)) for row in rows]
        others = [(row, before) for row, before in asked if self.answers[row] != self.answers[before]]
        return [(row, before) for row, before in same if row != before], others

    def clusters(self) -> Spool:
        """Return a number for each row, equal where the group is, counted from 0 as they first come."""
        return numbered(self.groups)

    def summary(self) -> dict[str, object]:
        """Return rows, label balance and lengths for the manifest."""
        names = self.labels.names()
        counts = self._labels + Counter(self.labels.rows)
        labels = dict(sorted((str(names[code]), count) for code, count in counts.items()))
        characters = quantiles(self._lengths + Counter(self.lengths))
        return {"rows": self.rows, "labels": labels, "characters": characters}


def _as_range(lines: Sequence[Line]) -> range:
    """Return line numbers that are evenly apart as a range, an empty one for others."""
    first, last = lines[0], lines[-1]
    if not isinstance(first, int) or not isinstance(last, int) or last <= first:
        return range(0)
    step = (last - first) // (len(lines) - 1)
    evenly = range(first, last + 1, max(step, 1))
    return evenly if list(evenly) == list(lines) else range(0)


def quantiles(lengths: Counter[int]) -> dict[str, int]:
    """Return the shortest, median, 95th percentile and longest length (nearest rank); {} of none."""
    ordered = sorted(lengths.items())
    if not ordered:
        return {}
    sums = list(accumulate(count for _, count in ordered))

    def at(share: float) -> int:
        return ordered[bisect_left(sums, max(1, ceil(share * sums[-1])))][0]

    return {"min": ordered[0][0], "median": at(0.5), "p95": at(0.95), "max": ordered[-1][0]}
