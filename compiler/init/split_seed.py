"""The seed of a proposed split by hash: each class is in each split, and each split is near its share.

Afterwards the hash alone decides: more rows move no row that is there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tuneyard.compiler.engine.request import HashedRows
from tuneyard.compiler.engine.splits import split_numbers_by_hash
from tuneyard.compiler.spec.model import Split
from tuneyard.core.datasets import TRAIN_SPLIT

_MOST_HASHES = 400_000  # about a second
_MOST_SEEDS = 200
_NEAR = 0.05
"""The share of its rows by which a split may be larger or smaller, so that no further seed is tried."""


class SplitBySeed(NamedTuple):
    """The rows of each split by a seed, and the keys (groups or prompts) of the classes with too few of them.

    Such a class has less than one key for the smallest split, or no seed brought it into each split.
    """

    seed: int
    rows: dict[str, int]
    small_classes: dict[str, int]


class _Keys(NamedTuple):
    """The rows by their key, which stay together: `rows` of each key, and the classes that each key has."""

    keys: list[int]
    rows: list[int]
    classes: list[tuple[int, int]]


def choose_seed(split: Split, hashed: HashedRows) -> SplitBySeed:
    """Try seeds from 1 on, fewer for more rows, until one is near enough. The best one is taken."""
    shares = {TRAIN_SPLIT: 1 - sum(split.shares.values()), **split.shares}
    by_key = _by_key(hashed)
    keys_of_class = Counter(class_number for _unused, class_number in by_key.classes)
    too_small = {number for number, count in keys_of_class.items() if count * min(shares.values()) < 1}
    large_classes = keys_of_class.keys() - too_small
    best: tuple[tuple[int, int, float], SplitBySeed] | None = None
    tries = max(1, min(_MOST_SEEDS, _MOST_HASHES // max(1, len(by_key.keys))))
    for seed in range(1, tries + 1):
        numbers = split_numbers_by_hash(split._replace(seed=seed), by_key.keys)
        rows = _rows_of_splits(list(shares), numbers, by_key.rows)
        splits_of_class = Counter(
            class_number
            for _unused, class_number in {(numbers[key], number) for key, number in by_key.classes}
        )
        missing = {number for number in large_classes if splits_of_class[number] < len(shares)}
        distance = _distance(rows, shares)
        faults = (list(rows.values()).count(0), len(missing), distance)
        if best is None or faults < best[0]:
            small = {hashed.classes[number]: keys_of_class[number] for number in sorted(too_small | missing)}
            best = faults, SplitBySeed(seed, rows, small)
        if not missing and distance <= _NEAR:
            break
    if best is None:  # the loop runs at least once
        raise ValueError(tries)
    return best[1]


def _by_key(hashed: HashedRows) -> _Keys:
    """Put rows of the same key together."""
    rows_of_key = Counter(hashed.keys)
    number_of_key = {key: number for number, key in enumerate(rows_of_key)}
    numbers = map(number_of_key.__getitem__, hashed.keys)
    classes = list(dict.fromkeys(zip(numbers, hashed.class_numbers, strict=False)))
    return _Keys(list(rows_of_key), list(rows_of_key.values()), classes)


def _rows_of_splits(names: Sequence[str], numbers: Sequence[int], rows: Sequence[int]) -> dict[str, int]:
    """The rows of each split, of which each key has a number."""
    sizes = dict.fromkeys(names, 0)
    for number, count in zip(numbers, rows, strict=True):
        sizes[names[number]] += count
    return sizes


def _distance(rows: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """The largest difference of a split's rows from those of its share, as a part of these."""
    total = sum(rows.values())
    differences = []
    for name, share in shares.items():
        expected = max(1.0, share * total)
        differences.append(abs(rows[name] - expected) / expected)
    return max(differences)
