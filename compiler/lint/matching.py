"""Rows with equal keys (hashes of 8 bytes): everything that compares rows asks for the first row of each key.

Keys are compared in shares by their lowest byte, so that memory holds the keys of one share as objects.
"""

from array import array
from collections.abc import Iterator
from typing import TypeAlias

from tuneyard.compiler.draw import ROW_TYPE

SHARES = 256  # values of a byte

Keys: TypeAlias = "array[int]"
Rows: TypeAlias = "array[int]"
Pairs = Iterator[tuple[int, int]]


def first_rows(keys: Keys) -> Rows:
    """The first row with the key of each row."""
    shares = [array(ROW_TYPE) for _ in range(SHARES)]
    last_bytes = bytes(memoryview(keys).cast("B")[:: keys.itemsize])
    for row, share in enumerate(last_bytes):
        shares[share].append(row)
    firsts = array(ROW_TYPE, range(len(keys)))
    for rows in shares:
        row_by_key: dict[int, int] = {}
        firsts_of_share = list(map(row_by_key.setdefault, map(keys.__getitem__, rows), rows))
        if len(row_by_key) < len(rows):
            for row, first in zip(rows, firsts_of_share, strict=True):
                firsts[row] = first
    return firsts


def repeated(keys: Keys) -> Pairs:
    """Yield (row, first row) for every row whose key came before."""
    for row, first in enumerate(first_rows(keys)):
        if row != first:
            yield row, first


def matches(keys: Keys, others: Keys) -> Pairs:
    """Yield (row, first row of the others with its key) for every row whose key the others have."""
    firsts = first_rows(others + keys)
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
    firsts = first_rows(keys + others)
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
