"""Which rows go where, once all have been read: duplicates, samples, splits. Rows are numbers here."""

import random
from collections.abc import Sequence
from itertools import groupby

from compiler.fingerprints import Fingerprints
from compiler.spec import PART, Split

Order = Sequence[int]


def without_repeats(seen: Fingerprints) -> list[int]:
    """Return the rows that did not come before (same texts, same answer)."""
    again = {row for row, _ in seen.repeats()[0]}
    return [row for row in range(seen.rows) if row not in again]


def sampled(order: Order, size: float, seed: int) -> Order:
    """Return a seeded sample of rows in their old order; `size` is a share below 1, or a number."""
    wanted = round(size * len(order)) if isinstance(size, float) else min(size, len(order))
    return [order[at] for at in sorted(random.Random(seed).sample(range(len(order)), wanted))]


def shuffled(order: Order, seed: int) -> Order:
    """Return the rows in a seeded random order."""
    rows = list(order)
    random.Random(seed).shuffle(rows)
    return rows


def split_rows(split: Split, seen: Fingerprints, order: Order, seed: int) -> dict[str, Order]:
    """Return the rows of each split; `train` is what the others leave. Order is kept within each."""
    units = _units(seen, order) if split.group else [[row] for row in order]
    if split.by_hash:
        homes = [_home(split.shares, seen.stable[unit[0]]) for unit in units]
    else:
        homes = _drawn(split, seen, units, split.seed if split.seed is not None else seed)
    rows: dict[str, list[int]] = {name: [] for name in (PART, *split.shares)}
    for home, unit in zip(homes, units, strict=True):
        rows[home] += unit
    places = {row: place for place, row in enumerate(order)}
    return {name: sorted(found, key=places.__getitem__) for name, found in rows.items()}


def lone_classes(split: Split, seen: Fingerprints, order: Order) -> list[str]:
    """Return the classes of a single row: such a row goes to the other split, and none is trained on."""
    if not split.stratify:
        return []
    codes = sorted(seen.classes.rows[row] for row in order)
    alone = [code for code, same in groupby(codes) if len(list(same)) == 1]
    names = seen.classes.names()
    return [str(names[code]) for code in alone]


def _units(seen: Fingerprints, order: Order) -> list[list[int]]:
    """Return rows that must stay together, by group, in the order of their first row."""
    units: dict[int, list[int]] = {}
    for row in order:
        units.setdefault(seen.units.rows[row], []).append(row)
    return list(units.values())


def _home(shares: dict[str, float], key: int) -> str:
    at = key / 2**64
    for name, share in shares.items():
        if at < share:
            return name
        at -= share
    return PART


def _drawn(split: Split, seen: Fingerprints, units: list[list[int]], seed: int) -> list[str]:
    """Draw units for each split: exact shares of rows, of each class where the split is stratified."""
    draw = random.Random(seed)
    order = list(range(len(units)))
    draw.shuffle(order)
    homes = [PART] * len(units)
    classes: dict[int, list[int]] = {}
    for at in order:
        code = seen.classes.rows[units[at][0]] if split.stratify else 0
        classes.setdefault(code, []).append(at)
    total = sum(map(len, units))
    for name, share in split.shares.items():
        free = {code: [at for at in ats if homes[at] == PART] for code, ats in sorted(classes.items())}
        sizes = {code: sum(len(units[at]) for at in ats) for code, ats in free.items()}
        all_sizes = {code: sum(len(units[at]) for at in ats) for code, ats in classes.items()}
        wanted = _quotas({code: all_sizes[code] * share for code in free}, sizes, round(total * share))
        for code, ats in free.items():
            _fill(wanted[code], ats, units, homes, name)
    return homes


def _quotas(exact: dict[int, float], there: dict[int, int], total: int) -> dict[int, int]:
    """Round shares of classes to rows: at least one of each, then by the largest remainder to the total."""
    quotas = {code: min(max(1, int(value)), there[code]) for code, value in exact.items()}
    for code in sorted(exact, key=lambda code: (quotas[code] - exact[code], code)):
        if sum(quotas.values()) >= total:
            break
        quotas[code] = min(quotas[code] + 1, there[code])
    return quotas


def _fill(wanted: int, ats: list[int], units: list[list[int]], homes: list[str], name: str) -> None:
    """Send units to a split until it has so many rows; the last one goes where the miss is smaller."""
    taken = 0
    for at in ats:
        size = len(units[at])
        if (taken and abs(wanted - taken) <= abs(taken + size - wanted)) or wanted == 0:
            break
        homes[at] = name
        taken += size
