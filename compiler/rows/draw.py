"""Draw the rows of samples, splits and mixtures.

A draw depends only on the number of rows, their classes and groups, the shares and the seed.
"""

import math
import random
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence

NEARLY = 1e-9  # 100 × 0.29 is 28.999…, which means 29
IN_REST = 0  # the number of `train`, the split of all that no other one holds out
ROW_TYPE = "I"  # typecode of an array of row numbers: 4 bytes each


def draw_splits(
    sizes: Sequence[int], classes: Sequence[int] | None, shares: Mapping[str, float], seed: int
) -> "array[int]":
    """Draw the split of each cluster (a row, or rows that stay together) in exact shares of rows.

    A cluster's entry is 0 for `train`, otherwise the number of its split among `shares`, counted from 1.
    `sizes` are the numbers of rows of the clusters, `classes` the numbers of their classes. Every class has
    each share. With None the shares are of all rows. Memory: 6 bytes a cluster besides the arguments.
    """
    split_numbers = array("B", [IN_REST]) * len(sizes)
    if classes is None:
        classes = bytes(len(sizes))
    order = array(ROW_TYPE, range(len(sizes)))
    random.Random(seed).shuffle(order)
    class_rows: Counter[int] = Counter()
    for code, size in zip(classes, sizes, strict=True):
        class_rows[code] += size
    total = class_rows.total()
    free_rows = class_rows.copy()
    for number, share in enumerate(shares.values(), start=1):
        exact = {code: class_rows[code] * share for code in sorted(class_rows)}
        quotas = _quotas(exact, free_rows, round(total * share))
        if 0 < free_rows.total() <= sum(quotas.values()):  # the last row is one to train on
            quotas[max(quotas, key=quotas.__getitem__)] -= 1
        free_rows.subtract(_fill(split_numbers, number, order, quotas, sizes, classes))
    return split_numbers


def draw_sample(rows: int, size: int, seed: int) -> bytearray:
    """Mark `size` of `rows` rows with 1, all others with 0. Memory: 5 bytes a row."""
    order = array(ROW_TYPE, range(rows))
    random.Random(seed).shuffle(order)
    is_drawn = bytearray(rows)
    for row in order[:size]:
        is_drawn[row] = 1
    return is_drawn


def apportioned(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Split `total` rows by shares that add up to 1; the largest remainders get the rows left by rounding.

    >>> apportioned(10, {"a": 0.5, "b": 0.25, "c": 0.25})
    {'a': 5, 'b': 3, 'c': 2}
    """
    exact = {name: total * share for name, share in shares.items()}
    rows = {name: math.floor(value + NEARLY) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: rows[name] - exact[name])
    for name in by_remainder[: total - sum(rows.values())]:
        rows[name] += 1
    return rows


def _quotas(exact: Mapping[int, float], available: Mapping[int, int], total: int) -> dict[int, int]:
    """Round shares of classes to rows: at least one of each, then by the largest remainder to the total."""
    quotas = {code: min(max(1, int(value)), available[code]) for code, value in exact.items()}
    for code in sorted(exact, key=lambda code: (quotas[code] - exact[code], code)):
        if sum(quotas.values()) >= total:
            break
        quotas[code] = min(quotas[code] + 1, available[code])
    return quotas


def _fill(
    split_numbers: "array[int]",
    number: int,
    order: Sequence[int],
    quotas: Mapping[int, int],
    sizes: Sequence[int],
    classes: Sequence[int],
) -> dict[int, int]:
    """Give a split the first free clusters of each class, up to the quota of rows of the class.

    The last cluster of a class is in if that misses the quota by less. The result is the rows taken by class.
    """
    taken_rows = dict.fromkeys(quotas, 0)
    open_classes = {code for code, quota in quotas.items() if quota > 0}
    for cluster in order:
        if not open_classes:
            break
        code = classes[cluster]
        if split_numbers[cluster] != IN_REST or code not in open_classes:
            continue
        quota, rows = quotas[code], taken_rows[code]
        rows_with_cluster = rows + sizes[cluster]
        if not rows or abs(rows_with_cluster - quota) < quota - rows:
            split_numbers[cluster] = number
            taken_rows[code] = rows_with_cluster
        if rows_with_cluster >= quota:
            open_classes.remove(code)
    return taken_rows
