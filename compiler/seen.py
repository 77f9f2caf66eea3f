"""What the kept rows of a split were, in 8-byte keys, so that rows can be compared with rows at the end."""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import ceil
from typing import cast

from compiler.rows import Line

_NUMPY_PAYS = 100_000


def _keys() -> "array[int]":
    return array("q")


@dataclass(slots=True)
class Seen:
    """Keys of normalised texts, row by row (about 32 bytes a row), with places, labels and lengths."""

    prompts: "array[int]" = field(default_factory=_keys)
    pairs: "array[int]" = field(default_factory=_keys)
    groups: "array[int]" = field(default_factory=_keys)
    ids: "array[int]" = field(default_factory=_keys)
    labels: Counter[object] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    _starts: list[int] = field(default_factory=list)
    _places: list[tuple[str, Sequence[Line]]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows were seen."""
        return len(self.pairs)

    def begin(self, prefix: str, lines: Sequence[Line]) -> None:
        """Note the places of the rows whose keys come next."""
        self._starts.append(self.rows)
        self._places.append((prefix, _compact(lines)))

    def place(self, row: int) -> str:
        """Return the address of the row with this number (from 0)."""
        part = bisect_right(self._starts, row) - 1
        prefix, lines = self._places[part]
        return f"{prefix}{lines[row - self._starts[part]]}"

    def summary(self) -> dict[str, object]:
        """Return rows, label balance and lengths for the manifest."""
        labels = dict(sorted(self.labels.items(), key=str))
        return {"rows": self.rows, "labels": labels, "characters": _quantiles(self.lengths)}


def repeated(keys: "array[int]") -> list[tuple[int, int]]:
    """Return (first row, later row) for every row whose key came before, in order.

    numpy sorts 400,000 keys in 20 ms but takes a tenth of a second to import: small sets go without.
    """
    candidates: Iterable[int] = range(len(keys))
    if len(keys) > _NUMPY_PAYS:
        import numpy as np

        values = np.frombuffer(keys, np.int64)
        order = np.sort(values)
        twice = order[1:][order[1:] == order[:-1]]
        candidates = np.flatnonzero(np.isin(values, twice)).tolist() if len(twice) else ()
    elif len(set(keys)) == len(keys):
        return []
    first: dict[int, int] = {}
    found = [(first.setdefault(keys[row], row), row) for row in candidates]
    return [(one, other) for one, other in found if one != other]


def _compact(lines: Sequence[Line]) -> Sequence[Line]:
    """Keep a place for every row in as little memory as can be."""
    plain = not isinstance(lines, range) and all(type(line) is int for line in lines)
    return array("L", cast("Sequence[int]", lines)) if plain else lines


def _quantiles(lengths: Counter[int]) -> dict[str, int]:
    """Return the shortest, median, 95th percentile and longest length (nearest rank)."""
    ordered = sorted(lengths.items())
    total = sum(lengths.values())
    sums = list(accumulate(count for _, count in ordered))

    def at(share: float) -> int:
        return ordered[bisect_left(sums, max(1, ceil(share * total)))][0]

    return {"min": ordered[0][0], "median": at(0.5), "p95": at(0.95), "max": ordered[-1][0]}
