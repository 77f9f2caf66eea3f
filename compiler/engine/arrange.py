"""Which rows of a compile are written, and into which split: samples and splits drawn by a seed."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import compress

from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.matching import numbered
from tuneyard.compiler.rows.draw import IN_REST, ROW_TYPE, draw_sample, draw_splits
from tuneyard.compiler.spec.model import Split
from tuneyard.core.datasets import TRAIN_SPLIT

Order = Sequence[int]
_MIXER = 0x5851F42D  # below 2^31, so that the product with 4 bytes fits into 8


def sampled(order: Order, size: float, seed: int) -> Order:
    """Draw a sample of rows by a seed, in their old order; `size` is a share below 1, or a number of rows.

    A share is taken as it is written: 0.575 of 100 rows is 58, and the float's product is below 57.5.
    """
    rows = int(min(size, len(order)))
    if size < 1:
        rows = round(Fraction(str(size)) * len(order))
    if rows == len(order):
        return order
    return array(ROW_TYPE, compress(order, draw_sample(len(order), rows, seed)))


def split_rows(split: Split, seen: Fingerprints, order: Order, seed: int) -> dict[str, Order]:
    """Draw the rows of each split; `train` is the rows that the others leave. Order is kept within each.

    Memory: 4 bytes a row for the result and up to 17 while it is made. `seen` forgets the columns `stable`
    and `units` as soon as they are read: 8 bytes a row each.
    """
    rows = seen.take(order)
    homes_by_hash = array("B")
    if split.by_hash:
        homes_by_hash = _homes_by_hash(split.shares, rows.values("stable"))
        seen.forget("stable")
    units = numbered(_units(split, rows))
    seen.forget("units")
    if split.by_hash:
        homes = _firsts(homes_by_hash, units)
    else:
        if split.seed is not None:
            seed = split.seed
        homes = _drawn(split, rows, units, seed)
    rows_of_split = [array(ROW_TYPE) for _unused in (TRAIN_SPLIT, *split.shares)]
    for row, unit in zip(order, units, strict=True):
        rows_of_split[homes[unit]].append(row)
    return dict(zip((TRAIN_SPLIT, *split.shares), rows_of_split, strict=True))


def _units(split: Split, rows: Fingerprints) -> "array[int]":
    """The key of what stays together: a group, or equal rows, so that none is trained on and tested.

    Equal rows that are all of a class do not stay together: each split has a share of each class.
    """
    if split.group:
        return rows.column("units")
    prompts, answers = rows.column("prompts"), rows.column("answers")
    row_keys = (prompt ^ answer * _MIXER for prompt, answer in zip(prompts, answers, strict=True))
    units = array("q", row_keys)
    if not split.stratify:
        return units
    classes = rows.column("classes")
    first_of_class: dict[int, int] = {}
    classes_of_several: set[int] = set()
    for code, unit in zip(classes, units, strict=True):
        if first_of_class.setdefault(code, unit) != unit:
            classes_of_several.add(code)
    unit_of_row = array(units.typecode)
    for row, (code, unit) in enumerate(zip(classes, units, strict=True)):
        unit_of_row.append(unit if code in classes_of_several else row)
    return unit_of_row


def _firsts(values: "array[int]", units: "array[int]") -> "array[int]":
    """Take the value of each unit's first row; units are numbered as they first come."""
    firsts = array(values.typecode)
    for value, unit in zip(values, units, strict=True):
        if unit == len(firsts):
            firsts.append(value)
    return firsts


def _homes_by_hash(shares: Mapping[str, float], keys: Iterable[int]) -> "array[int]":
    """Number the split of each key (64 bits) by where it falls between 0 and 1."""
    homes = array("B")
    for key in keys:
        place = key / 2**64
        home = IN_REST
        for number, share in enumerate(shares.values(), start=1):
            if place < share:
                home = number
                break
            place -= share
        homes.append(home)
    return homes


def _drawn(split: Split, rows: Fingerprints, units: "array[int]", seed: int) -> "array[int]":
    """Draw units for each split: exact shares of rows, in each class if the split is stratified."""
    classes = _firsts(rows.column("classes"), units) if split.stratify else None
    sizes = array(ROW_TYPE)
    for unit in units:
        if unit == len(sizes):
            sizes.append(0)
        sizes[unit] += 1
    return draw_splits(sizes, classes, split.shares, seed)
