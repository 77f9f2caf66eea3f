"""Rows with equal keys (hashes of 8 bytes), found in bounded memory.

Many keys are compared in shares: all equal keys fall into one share, and one share at a time is in memory.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator
from itertools import count, islice
from operator import lt
from typing import TYPE_CHECKING, TypeAlias

from tuneyard.compiler.lint.spool import Spool
from tuneyard.core.splits import ROW_TYPE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[np.int64]

NUMPY_PAYS = 200_000  # rows: its import takes 0.07 s, which a set of so many keys and the search take, too
SHARE = 1 << 18  # keys that are compared at once, at 8 bytes and as many again for each step
_MIXER = 0x9E3779B97F4A7C15  # odd, near 2**64 over the golden ratio (Knuth: TAOCP 3, section 6.4)

Pairs = list[tuple[int, int]]


def repeated(keys: Spool) -> Pairs:
    """(row, first row) for every row whose key came before, in the order of the rows."""
    if _increasing(keys):  # as most ids are
        return []
    if len(keys) <= NUMPY_PAYS:
        if len(set(keys)) == len(keys):
            return []
        firsts: dict[int, int] = {}
        each = ((row, firsts.setdefault(key, row)) for row, key in enumerate(keys))
        return [(row, first) for row, first in each if row != first]
    import numpy as np

    pairs: Pairs = []
    for values, rows in _shares(keys, _bits(len(keys))):
        places = _firsts(values)
        later = np.flatnonzero(places != np.arange(len(values)))
        pairs += zip(rows[later].tolist(), rows[places[later]].tolist(), strict=True)
    return sorted(pairs)


def matches(keys: Spool, others: Spool) -> Pairs:
    """(row, last row of the others with its key) for every row whose key the others have."""
    if max(len(keys), len(others)) <= NUMPY_PAYS:
        last_rows = {key: row for row, key in enumerate(others)}
        return [(row, last_rows[key]) for row, key in enumerate(keys) if key in last_rows]
    import numpy as np

    pairs: Pairs = []
    bits = _bits(max(len(keys), len(others)))
    for (values, rows), (other_values, other_rows) in zip(
        _shares(keys, bits), _shares(others, bits), strict=True
    ):
        if not len(other_values):
            continue
        order = np.argsort(other_values, kind="stable")
        last = np.searchsorted(other_values, values, "right", order) - 1  # -1: the last one, another key
        hits = np.flatnonzero(other_values[order[last]] == values)
        pairs += zip(rows[hits].tolist(), other_rows[order[last[hits]]].tolist(), strict=True)
    return sorted(pairs)


def paired(keys: Spool, others: Spool) -> "tuple[array[int], array[int]]":
    """Pair rows that have equal keys, each row once: the first one with the first one of the others.

    Returns the rows and the rows of the others, in the order of the others.
    """
    if max(len(keys), len(others)) <= NUMPY_PAYS:
        return _paired_in_memory(keys.whole(), others)
    import numpy as np

    pairs, other_pairs = [], []
    bits = _bits(max(len(keys), len(others)))
    for (values, rows), (other_values, other_rows) in zip(
        _shares(keys, bits), _shares(others, bits), strict=True
    ):
        ordered = np.argsort(values, kind="stable")
        other_ordered, other_starts = _sorted(other_values)
        sorted_values, wanted = values[ordered], other_values[other_ordered]
        repeats = np.arange(len(wanted)) - other_starts  # how often the key came before
        places = np.searchsorted(sorted_values, wanted) + repeats
        there = np.flatnonzero(places < len(values))
        there = there[sorted_values[places[there]] == wanted[there]]
        pairs.append(rows[ordered[places[there]]])
        other_pairs.append(other_rows[other_ordered[there]])
    found, other_found = np.concatenate(pairs), np.concatenate(other_pairs)
    order = np.argsort(other_found)
    return _as_rows(found[order]), _as_rows(other_found[order])


def _paired_in_memory(keys: "array[int]", others: Spool) -> "tuple[array[int], array[int]]":
    next_rows = array(ROW_TYPE, [0]) * len(keys)  # of a row with the same key, numbered from 1
    first_rows: dict[int, int] = {}
    for row in range(len(keys) - 1, -1, -1):
        key = keys[row]
        next_rows[row] = first_rows.get(key, 0)
        first_rows[key] = row + 1
    pairs, other_pairs = array(ROW_TYPE), array(ROW_TYPE)
    for row, key in enumerate(others):
        first = first_rows.get(key)
        if first:
            first_rows[key] = next_rows[first - 1]
            pairs.append(first - 1)
            other_pairs.append(row)
    return pairs, other_pairs


def _as_rows(numbers: "Numbers") -> "array[int]":
    return array(ROW_TYPE, numbers.astype(ROW_TYPE).tobytes())


def shared_keys(keys: Spool, others: Spool) -> int:
    """How many different keys both have."""
    if max(len(keys), len(others)) <= NUMPY_PAYS:
        return len(set(others).intersection(keys))
    import numpy as np

    bits = _bits(max(len(keys), len(others)))
    both = zip(_shares(keys, bits), _shares(others, bits), strict=True)
    return sum(len(np.intersect1d(values, other_values)) for (values, _), (other_values, _) in both)


def numbered(keys: Spool) -> Spool:
    """A number for each row, equal where the key is, counted from 0 as keys first appear."""
    numbers = Spool("I")
    if len(keys) <= NUMPY_PAYS:
        by_key: defaultdict[int, int] = defaultdict(count().__next__)
        for block in keys.blocks():
            numbers.fromlist([by_key[key] for key in block])
        return numbers
    import numpy as np

    first_rows = np.empty(len(keys), np.uint32)  # of the row's key: the row that has it first
    for values, rows in _shares(keys, _bits(len(keys))):
        first_rows[rows] = rows[_firsts(values)]
    is_first = first_rows == np.arange(len(keys), dtype=np.uint32)
    ranks = np.cumsum(is_first, dtype=np.uint32) - np.uint32(1)
    for start in range(0, len(keys), SHARE):
        numbers.fromlist(ranks[first_rows[start : start + SHARE]].tolist())
    return numbers


def _increasing(keys: Spool) -> bool:
    """True if each key is above the one before it."""
    last = None
    for block in keys.blocks():
        if last is not None and last >= block[0]:
            return False
        if not all(map(lt, block, islice(block, 1, None))):
            return False
        last = block[-1]
    return True


def _bits(rows: int) -> int:
    """How many bits of a mixed key name its share, so that one has about `SHARE` keys."""
    return max((rows - 1) // SHARE, 1).bit_length()


def _shares(keys: Spool, bits: int) -> "Iterator[tuple[Numbers, Numbers]]":
    """Yield the keys of each share, in the order of their rows, and the rows."""
    import numpy as np

    mixer, shift = np.uint64(_MIXER), np.uint64(64 - bits)
    for share in range(1 << bits):
        values, rows, start = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for block in keys.blocks():
            numbers = np.frombuffer(block, np.int64)
            chosen = np.flatnonzero((numbers.view(np.uint64) * mixer) >> shift == share)
            values.append(numbers[chosen])
            rows.append(chosen + start)
            start += len(numbers)
        yield np.concatenate(values), np.concatenate(rows)


def _firsts(values: "Numbers") -> "Numbers":
    """For each value the place of the first equal one. A stable sort would take four times as long."""
    import numpy as np

    ordered = np.argsort(values)
    starts = np.flatnonzero(_is_start(values[ordered]))
    firsts = np.empty_like(ordered)
    if len(values):
        sizes = np.diff(starts, append=len(values))
        firsts[ordered] = np.repeat(np.minimum.reduceat(ordered, starts), sizes)
    return firsts


def _sorted(values: "Numbers") -> "tuple[Numbers, Numbers]":
    """The order that sorts values, and for each place in it the place of the first equal value."""
    import numpy as np

    ordered = np.argsort(values, kind="stable")
    places = np.where(_is_start(values[ordered]), np.arange(len(values)), 0)
    return ordered, np.maximum.accumulate(places)


def _is_start(sorted_values: "Numbers") -> "NDArray[np.bool_]":
    """Whether each of the sorted values differs from the one before it."""
    import numpy as np

    is_start = np.ones(len(sorted_values), np.bool_)
    is_start[1:] = sorted_values[1:] != sorted_values[:-1]
    return is_start
