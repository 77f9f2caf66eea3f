"""Rows with equal keys (hashes of 8 bytes): everything that compares rows asks for the first row of each key.

Many keys are compared in shares by their lowest byte, so that memory holds the sorted keys of one share.
"""

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TypeAlias

from tuneyard.compiler.draw import ROW_TYPE

NUMPY_PAYS = 100_000  # rows: numpy's import takes a sixth of the CPU time of a small compile
SHARE = 1 << 18  # keys that are sorted at once
MOST_SHARES = 256  # values of a byte

Keys: TypeAlias = "array[int]"
Rows: TypeAlias = "array[int]"
Pairs = Iterator[tuple[int, int]]


def first_rows(*columns: Keys) -> Rows:
    """The first row with the key of each row. The rows of several columns are numbered one after another."""
    rows = sum(map(len, columns))
    if rows <= NUMPY_PAYS:
        row_by_key: dict[int, int] = {}
        numbered_keys = enumerate(chain.from_iterable(columns))
        return array(ROW_TYPE, (row_by_key.setdefault(key, row) for row, key in numbered_keys))
    import numpy as np

    shares = 1
    while shares < MOST_SHARES and rows > shares * SHARE:
        shares *= 2
    firsts = array(ROW_TYPE, [0]) * rows
    numbers_of_firsts = np.frombuffer(firsts, ROW_TYPE)
    for share in range(shares):
        share_rows, share_keys = [], []
        start = 0
        for block in _blocks(columns):
            keys = np.frombuffer(block, np.int64)
            places = np.flatnonzero(keys.view(np.uint8)[::8] % shares == share)
            share_rows.append(places + start)
            share_keys.append(keys[places])
            start += len(keys)
        numbers, keys = np.concatenate(share_rows), np.concatenate(share_keys)
        if not len(keys):
            continue
        order = np.argsort(keys)
        keys = keys[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        first_places = np.minimum.reduceat(order, starts)
        sizes = np.diff(starts, append=len(keys))
        numbers_of_firsts[numbers[order]] = numbers[np.repeat(first_places, sizes)]
    return firsts


def _blocks(columns: Sequence[Keys]) -> Iterator[memoryview]:
    for column in columns:
        for start in range(0, len(column), SHARE):
            yield memoryview(column)[start : start + SHARE]


def repeated(keys: Keys) -> Pairs:
    """Yield (row, first row) for every row whose key came before."""
    for row, first in enumerate(first_rows(keys)):
        if row != first:
            yield row, first


def matches(keys: Keys, others: Keys) -> Pairs:
    """Yield (row, first row of the others with its key) for every row whose key the others have."""
    firsts = first_rows(others, keys)
    for row in range(len(keys)):
        first = firsts[len(others) + row]
        if first < len(others):
            yield row, first


def numbered(keys: Keys) -> Rows:
    """A number for each row, equal where the key is, counted from 0 as keys first appear."""
    numbers = first_rows(keys)
    count = 0
    for row, first in enumerate(numbers):
        if row == first:
            numbers[row] = count
            count += 1
        else:
            numbers[row] = numbers[first]
    return numbers


def paired(keys: Keys, others: Keys) -> tuple[Rows, Rows]:
    """Pair rows that have equal keys, each row once: the first one with the first one of the others.

    Returns the rows and the rows of the others, in the order of the others.
    """
    firsts = first_rows(keys, others)
    free_rows = array(ROW_TYPE, [0]) * len(firsts)  # by the first row of a key: its next free row, from 1
    rows_after = array(ROW_TYPE, [0]) * len(keys)  # the free row of the same key after it
    for row in range(len(keys) - 1, -1, -1):
        rows_after[row] = free_rows[firsts[row]]
        free_rows[firsts[row]] = row + 1
    pairs, other_pairs = array(ROW_TYPE), array(ROW_TYPE)
    for row in range(len(others)):
        first = firsts[len(keys) + row]
        if free_rows[first]:
            pairs.append(free_rows[first] - 1)
            other_pairs.append(row)
            free_rows[first] = rows_after[free_rows[first] - 1]
    return pairs, other_pairs
