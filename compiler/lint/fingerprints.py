"""Per-row hashes for finding duplicates and leaks, at most 40 bytes a row in plain arrays.

A worker pickles those of its file, and `append` puts the files together in their order.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from math import ceil
from operator import lt

from tuneyard.compiler.lint.matching import repeated
from tuneyard.compiler.rows import Line, Location, Prefix
from tuneyard.compiler.rows.locations import Locations
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import marked

COLUMNS = {
    "prompts": "q",
    "answers": "I",
    "groups": "q",
    "ids": "q",
    "lengths": "I",
    "labels": "H",
    "classes": "I",
    "clusters": "q",
    "stable": "Q",
}
"""The columns of fingerprints and their type codes. Columns that a dataset does not need stay empty.

- `prompts`: hash of what the model reads. `answers`: hash of what it writes, in 4 bytes, since it is compared
  only between rows with the same prompt.
- `groups`: hash of the cluster column. `ids`: key of the row's id, `NO_ID` without one.
- `lengths`: characters. `labels`, `classes`: the number of the value in `names`.
- `clusters`: hash of the column whose rows a split keeps together. `stable`: the number by which a split by
  hash draws.
"""
NO_ID = -(1 << 62)
Repeats = list[tuple[int, int]]
"""Rows, each with the first row that is like it."""


class Fingerprints:
    """Keys, locations, labels and lengths of rows (`COLUMNS`)."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._locations = Locations()
        self._columns = {name: array(code) for name, code in COLUMNS.items()}
        self._names: dict[str, dict[object, int]] = {"labels": {}, "classes": {}}
        self._order: Sequence[int] | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self._locations.rows if self._order is None else len(self._order)

    def add(self, prefix: Prefix, lines: Sequence[Line], columns: Mapping[str, Iterable[int]]) -> None:
        """Append a batch: the location of each row, and each column has a number for it."""
        self._locations.add(prefix, lines)
        for name, numbers in columns.items():
            self._columns[name].extend(numbers)

    def add_values(self, name: str, values: Sequence[object]) -> None:
        """Append the labels or classes of a batch, of which few are different."""
        number_by_value = self._names[name]
        for value in dict.fromkeys(values):
            number_by_value.setdefault(value, len(number_by_value))
        self._columns[name].extend(map(number_by_value.__getitem__, values))

    def append(self, other: "Fingerprints") -> None:
        """Append the fingerprints of the rows that come next, which another process may have made.

        `other` is not to be used any more.
        """
        if not self.rows:
            self._locations, self._columns, self._names = other._locations, other._columns, other._names
            self.texts = other.texts
            return
        for name, column in other._columns.items():
            if name in self._names:
                values = other.names(name)
                self.add_values(name, [values[number] for number in column])
            else:
                self._columns[name].extend(column)
        self.texts += other.texts
        self._locations.append(other._locations)

    def take(self, order: Sequence[int]) -> "Fingerprints":
        """The fingerprints of some rows, in this order, without a copy of their keys."""
        taken = Fingerprints()
        taken._locations, taken._columns, taken._names = self._locations, self._columns, self._names
        taken._order = order
        if self.texts:
            taken.texts = [self.texts[row] for row in order]
        return taken

    def column(self, name: str) -> "array[int]":
        """A column in the order of the rows."""
        column = self._columns[name]
        if self._order is None or not column or self._order == range(len(column)):
            return column
        return array(column.typecode, self.values(name))

    def values(self, name: str) -> Iterator[int]:
        """Yield a column in the order of the rows. `column` copies it if these are a part of all rows."""
        column = self._columns[name]
        if self._order is None or not column:
            return iter(column)
        return map(column.__getitem__, self._order)

    def forget(self, *names: str) -> None:
        """Free the memory of columns that no later step reads."""
        for name in names:
            del self._columns[name][:]

    def names(self, name: str) -> list[object]:
        """The labels or classes by their numbers, in the order of their first appearance."""
        return list(self._names[name])

    def location(self, row: int) -> Location:
        """The location of the row with this number (from 0)."""
        return self._locations[row if self._order is None else self._order[row]]

    def repeated_ids(self) -> Repeats:
        """(row, first row) for rows whose id came before."""
        ids = self.column("ids")
        if all(map(lt, ids, islice(ids, 1, None))):  # as most ids are
            return []
        return [(row, first) for row, first in repeated(ids) if ids[row] != NO_ID]

    def repeats(self) -> tuple[Repeats, Repeats]:
        """(row, first row) for repeated rows, and for repeated prompts with another answer."""
        pairs = repeated(self.column("prompts"))
        answers = self.column("answers")
        first_by_row: dict[tuple[int, int], int] = {}
        same_rows, conflicts = [], []
        for row, first in pairs:
            first_by_row.setdefault((first, answers[first]), first)
            first_same = first_by_row.setdefault((first, answers[row]), row)
            if first_same != row:
                same_rows.append((row, first_same))
            if answers[row] != answers[first]:
                conflicts.append((row, first))
        return same_rows, conflicts

    def summary(self) -> JsonObject:
        """Rows, label balance and lengths for the manifest."""
        names = self.names("labels")
        counts = Counter(self.column("labels"))
        labels = dict(sorted((str(names[number]), count) for number, count in counts.items()))
        characters = quantiles(Counter(self.column("lengths")))
        return {"rows": self.rows, "labels": labels, "characters": characters}


def quantiles(lengths: Counter[int]) -> dict[str, int]:
    """The shortest, median, 95th percentile and longest length (nearest rank); {} without lengths."""
    ordered = sorted(lengths.items())
    if not ordered:
        return {}
    sums = list(accumulate(count for _unused, count in ordered))
    middle, high = (bisect_left(sums, max(1, ceil(share * sums[-1]))) for share in (0.5, 0.95))
    return {
        marked("min"): ordered[0][0],
        marked("median"): ordered[middle][0],
        "p95": ordered[high][0],
        marked("max"): ordered[-1][0],
    }
