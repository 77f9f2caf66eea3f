"""Which rows of a dataset a split holds out: one draw for compile, which writes them, and for eval.

A draw depends on nothing but the number of rows, their classes and groups, the shares and the seed.
"""

import math
import random
from collections.abc import Mapping, Sequence

NEARLY = 1e-9  # 100 × 0.29 is 28.999…, which means 29
REST = "train"  # the split of all that no other one holds out


def draw_splits(
    sizes: Sequence[int], classes: Sequence[int] | None, shares: Mapping[str, float], seed: int
) -> list[str]:
    """Return the split of each unit, a row or rows that stay together: exact shares of rows by a seeded draw.

    `sizes` are the units' numbers of rows. `classes` are numbers too: each share is taken of every class,
    None: of all rows as one.
    """
    order = list(range(len(sizes)))
    random.Random(seed).shuffle(order)
    homes = [REST] * len(sizes)
    units_of: dict[int, list[int]] = {}
    for unit in order:
        units_of.setdefault(0 if classes is None else classes[unit], []).append(unit)
    total = sum(sizes)
    for name, share in shares.items():
        free = {
            code: [unit for unit in units if homes[unit] == REST] for code, units in sorted(units_of.items())
        }
        free_rows = {code: sum(sizes[unit] for unit in units) for code, units in free.items()}
        all_rows = {code: sum(sizes[unit] for unit in units) for code, units in units_of.items()}
        exact = {code: all_rows[code] * share for code in free}
        quotas = _quotas(exact, free_rows, round(total * share))
        for code, units in free.items():
            for unit in _filling(quotas[code], units, sizes):
                homes[unit] = name
    return homes


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


def _filling(quota: int, units: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return the first units that have so many rows; the last one is in if that misses by less."""
    taken = 0
    chosen: list[int] = []
    for unit in units:
        with_it = taken + sizes[unit]
        if (taken and abs(quota - taken) <= abs(with_it - quota)) or quota == 0:
            break
        chosen.append(unit)
        taken = with_it
    return chosen
