"""What the kept rows of a split were, in a few bytes each, so that rows can be compared with rows."""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, count, islice
from math import ceil
from operator import lt
from typing import Any, cast

from compiler.rows import Line

_NUMPY_PAYS = 500_000  # rows: its import takes a quarter of a second, a set of all keys 75 bytes a row


class Codes:
    """One small number for each row in place of its value: label, class or group."""

    def __init__(self) -> None:
        self.rows = array("I")
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
        taken.rows = _take(self.rows, order)
        return taken


def _keys() -> "array[int]":
    return array("q")


@dataclass(slots=True)
class Fingerprints:
    """Keys of normalised texts (hashes of 8 bytes), places, labels and lengths, row by row.

    With `counted_only`, rows are folded into counts as they come, and cannot be compared.
    """

    counted_only: bool = False
    prompts: "array[int]" = field(default_factory=_keys)
    answers: "array[int]" = field(default_factory=_keys)
    groups: "array[int]" = field(default_factory=_keys)
    ids: "array[int]" = field(default_factory=_keys)
    lengths: "array[int]" = field(default_factory=lambda: array("I"))
    stable: "array[int]" = field(default_factory=lambda: array("Q"))
    labels: Codes = field(default_factory=Codes)
    classes: Codes = field(default_factory=Codes)
    units: Codes = field(default_factory=Codes)
    texts: list[str] = field(default_factory=list)
    _rows: int = 0
    _lengths: Counter[int] = field(default_factory=Counter)
    _labels: Counter[int] = field(default_factory=Counter)
    _starts: list[int] = field(default_factory=list)
    _places: list[tuple[str, Sequence[Line]]] = field(default_factory=list)
    _order: Sequence[int] | None = None

    @property
    def rows(self) -> int:
        """How many rows were seen."""
        return self._rows + len(self.prompts)

    def begin(self, prefix: str, lines: Sequence[Line]) -> None:
        """Note the places of the rows whose keys come next."""
        self._starts.append(self.rows)
        plain = not isinstance(lines, range) and all(type(line) is int for line in lines)
        self._places.append((prefix, array("L", cast("Sequence[int]", lines)) if plain else lines))

    def fold(self) -> None:
        """Keep of the rows seen so far only what the manifest counts, and the cluster of each."""
        self._rows = self.rows
        self._lengths.update(self.lengths)
        self._labels.update(self.labels.rows)
        for values in (self.prompts, self.answers, self.ids, self.lengths, self.labels.rows):
            del values[:]
        self._starts.clear()
        self._places.clear()

    def place(self, row: int) -> str:
        """Return the address of the row with this number (from 0)."""
        row = row if self._order is None else self._order[row]
        part = bisect_right(self._starts, row) - 1
        prefix, lines = self._places[part]
        return f"{prefix}{lines[row - self._starts[part]]}"

    def take(self, order: Sequence[int]) -> "Fingerprints":
        """Return what was seen of some rows, in this order (what a split goes by stays behind)."""
        arrays = ("prompts", "answers", "groups", "ids", "lengths")
        taken: dict[str, Any] = {name: _take(getattr(self, name), order) for name in arrays}
        texts = [self.texts[row] for row in order] if self.texts else []
        return replace(self, **taken, texts=texts, labels=self.labels.take(order), _order=order)

    def repeats(self) -> "tuple[list[tuple[int, int]], list[tuple[int, int]]]":
        """Return (row, first row) for rows that came before, and for inputs with another answer."""
        first: dict[tuple[int, int], int] = {}
        asked = repeated(self.prompts)
        rows = sorted({row for pair in asked for row in pair})
        same = [(row, first.setdefault((self.prompts[row], self.answers[row]), row)) for row in rows]
        others = [(row, before) for row, before in asked if self.answers[row] != self.answers[before]]
        return [(row, before) for row, before in same if row != before], others

    def clusters(self) -> "array[int]":
        """Return a number for each row, equal where the group is, counted from 0 as they first come."""
        numbers: defaultdict[int, int] = defaultdict(count().__next__)
        return array("I", map(numbers.__getitem__, self.groups))

    def summary(self) -> dict[str, object]:
        """Return rows, label balance and lengths for the manifest."""
        names = self.labels.names()
        counts = self._labels + Counter(self.labels.rows)
        labels = dict(sorted((str(names[code]), count) for code, count in counts.items()))
        characters = quantiles(self._lengths + Counter(self.lengths))
        return {"rows": self.rows, "labels": labels, "characters": characters}


def repeated(keys: "array[int]") -> list[tuple[int, int]]:
    """Return (row, first row) for every row whose key came before, in order."""
    candidates: Iterable[int] = range(len(keys))
    if len(keys) > _NUMPY_PAYS:
        import numpy as np

        values = np.frombuffer(keys, np.int64)
        order = np.sort(values)
        twice = order[1:][order[1:] == order[:-1]]
        candidates = np.flatnonzero(np.isin(values, twice)).tolist() if len(twice) else ()
    elif all(map(lt, keys, islice(keys, 1, None))) or len(set(keys)) == len(keys):
        return []
    first: dict[int, int] = {}
    found = [(row, first.setdefault(keys[row], row)) for row in candidates]
    return [(row, before) for row, before in found if row != before]


def _take(values: "array[int]", order: Sequence[int]) -> "array[int]":
    return array(values.typecode, [values[row] for row in order]) if values else values


def quantiles(lengths: Counter[int]) -> dict[str, int]:
    """Return the shortest, median, 95th percentile and longest length (nearest rank); {} of none."""
    ordered = sorted(lengths.items())
    if not ordered:
        return {}
    sums = list(accumulate(count for _, count in ordered))

    def at(share: float) -> int:
        return ordered[bisect_left(sums, max(1, ceil(share * sums[-1])))][0]

    return {"min": ordered[0][0], "median": at(0.5), "p95": at(0.95), "max": ordered[-1][0]}
