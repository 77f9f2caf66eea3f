"""Which rows of a compile are written, and into which split: samples and splits drawn by a seed."""

from array import array
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import compress

from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.matching import numbered
from tuneyard.compiler.lint.text_keys import digest
from tuneyard.compiler.rows.draw import IN_REST, ROW_TYPE, draw_sample, draw_splits
from tuneyard.compiler.spec.model import Split
from tuneyard.core.datasets import REPORTING, TRAIN_SPLIT

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


def split_rows(split: Split, fingerprints: Fingerprints, order: Order, seed: int) -> dict[str, Order]:
    """Draw the rows of each split; `train` is the rows that the others leave. Order is kept within each.

    Memory: 4 bytes a row for the result and up to 17 while it is made. `fingerprints` forgets the
    columns `stable` and `clusters` as soon as they are read: 8 bytes a row each.
    """
    rows = fingerprints.take(order)
    numbers_by_hash = array("B")
    if split.by_hash:
        numbers_by_hash = split_numbers_by_hash(split, rows.values("stable"))
        fingerprints.forget("stable")
    clusters = numbered(_cluster_keys(split, rows))
    fingerprints.forget("clusters")
    if split.by_hash:
        split_numbers = _values_of_first_rows(numbers_by_hash, clusters)
    else:
        if split.seed is not None:
            seed = split.seed
        split_numbers = _drawn(split, rows, clusters, seed)
    rows_of_split = [array(ROW_TYPE) for _unused in (TRAIN_SPLIT, *split.shares)]
    for row, cluster in zip(order, clusters, strict=True):
        rows_of_split[split_numbers[cluster]].append(row)
    return dict(zip((TRAIN_SPLIT, *split.shares), rows_of_split, strict=True))


def _cluster_keys(split: Split, rows: Fingerprints) -> "array[int]":
    """The key of what stays together: a group, or equal rows, so that none is trained on and tested.

    Equal rows that are all of a class do not stay together: each split has a share of each class.
    """
    if split.group:
        return rows.column("clusters")
    prompts, answers = rows.column("prompts"), rows.column("answers")
    row_keys = (prompt ^ answer * _MIXER for prompt, answer in zip(prompts, answers, strict=True))
    clusters = array("q", row_keys)
    if not split.stratify:
        return clusters
    classes = rows.column("classes")
    first_of_class: dict[int, int] = {}
    classes_of_several: set[int] = set()
    for code, cluster in zip(classes, clusters, strict=True):
        if first_of_class.setdefault(code, cluster) != cluster:
            classes_of_several.add(code)
    cluster_of_row = array(clusters.typecode)
    for row, (code, cluster) in enumerate(zip(classes, clusters, strict=True)):
        cluster_of_row.append(cluster if code in classes_of_several else row)
    return cluster_of_row


def _values_of_first_rows(values: "array[int]", clusters: "array[int]") -> "array[int]":
    """Take the value of each cluster's first row; clusters are numbered as they first come."""
    first_values = array(values.typecode)
    for value, cluster in zip(values, clusters, strict=True):
        if cluster == len(first_values):
            first_values.append(value)
    return first_values


def split_numbers_by_hash(split: Split, keys: Iterable[int]) -> "array[int]":
    """The number of the split of each key (64 bits), by the share of the range 0 to 1 in which it lies.

    With a seed `test` has the lowest part of the range and `eval` the next, whatever their order in the
    spec: a later `eval` takes rows from `train` alone. Without one the parts are as the spec names them.
    """
    names = list(split.shares)
    parts = list(split.shares.items())
    if split.seed is not None:
        parts.sort(key=lambda part: [part[0] != name for name in REPORTING])
    split_numbers = array("B")
    for key in keys:
        position = _seeded(key, split.seed) / 2**64
        split_number = IN_REST
        for name, share in parts:
            if position < share:
                split_number = names.index(name) + 1
                break
            position -= share
        split_numbers.append(split_number)
    return split_numbers


def _seeded(key: int, seed: int | None) -> int:
    """The key for a seed; without one the key itself."""
    if seed is None:
        return key
    return int.from_bytes(digest((seed, key)))


def _drawn(split: Split, rows: Fingerprints, clusters: "array[int]", seed: int) -> "array[int]":
    """Draw clusters for each split: exact shares of rows, in each class if the split is stratified."""
    classes = _values_of_first_rows(rows.column("classes"), clusters) if split.stratify else None
    sizes = array(ROW_TYPE)
    for cluster in clusters:
        if cluster == len(sizes):
            sizes.append(0)
        sizes[cluster] += 1
    return draw_splits(sizes, classes, split.shares, seed)
