"""Rows with equal keys (hashes of 8 bytes): what compares rows asks for the first row of each key."""

from array import array
from collections.abc import Iterable, Iterator
from itertools import compress, islice
from operator import ne
from typing import TypeAlias

from tuneyard.compiler.rows.draw import ROW_TYPE

FEW = 1 << 16  # rows that a dict matches sooner than numpy is imported, in 8 MB
SHARES = 128  # of the keys that are sorted at a time

Keys: TypeAlias = "array[int]"
Rows: TypeAlias = "array[int]"
Pairs = Iterator[tuple[int, int]]


def first_rows(keys: Keys) -> Rows:
    """The first row with the key of each row.

    Many keys are sorted by numpy, in a tenth of a dict's time. They are so in shares, by the low bits of the
    hashes: about 10 bytes a row meanwhile, 4 of which are the result.
    """
    if len(keys) < FEW:
        row_by_key: dict[int, int] = {}
        return array(ROW_TYPE, map(row_by_key.setdefault, keys, range(len(keys))))
    import numpy as np

    values = np.asarray(keys)
    shares = values.view(np.uint8)[:: values.itemsize] % SHARES
    first_row_of = array(ROW_TYPE, [0]) * len(keys)
    for share in range(SHARES):
        rows = np.flatnonzero(shares == share)
        _unused, numbers = np.unique(values[rows], return_inverse=True)
        first_by_number = np.empty_like(rows)
        first_by_number[numbers[::-1]] = rows[::-1]  # the last one that is written stays
        np.asarray(first_row_of)[rows] = first_by_number[numbers]
    return first_row_of


def repeated(keys: Keys) -> Pairs:
    """Yield (row, first row) for every row whose key came before. The keys are not kept meanwhile."""
    rows, first_row_of = range(len(keys)), first_rows(keys)
    return compress(zip(rows, first_row_of, strict=True), map(ne, rows, first_row_of))


def matches(keys: Iterable[int], others: Iterable[int]) -> Pairs:
    """Yield (row, first row of the others with its key) for every row whose key the others have."""
    joined = array("q", others)
    count = len(joined)
    joined.extend(keys)
    for row, first in enumerate(islice(first_rows(joined), count, None)):
        if first < count:
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
    first_row_of = first_rows(keys + others)
    # by the first row of a key: its next free row, from 1
    free_rows = array(ROW_TYPE, [0]) * len(first_row_of)
    rows_after = array(ROW_TYPE, [0]) * len(keys)  # the free row of the same key after it
    for row in range(len(keys) - 1, -1, -1):
        rows_after[row] = free_rows[first_row_of[row]]
        free_rows[first_row_of[row]] = row + 1
    pairs, other_pairs = array(ROW_TYPE), array(ROW_TYPE)
    for row in range(len(others)):
        first = first_row_of[len(keys) + row]
        if free_rows[first]:
            pairs.append(free_rows[first] - 1)
            other_pairs.append(row)
            free_rows[first] = rows_after[free_rows[first] - 1]
    return pairs, other_pairs
