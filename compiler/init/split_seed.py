"""The seed of a proposed split by hash: each split is near its share of the rows and of each class.

Afterwards the hash alone decides: more rows move no row that is there.
"""

from array import array
from typing import TYPE_CHECKING, NamedTuple

from tuneyard.compiler.engine.request import HashedRows
from tuneyard.compiler.engine.splits import split_numbers_by_hash
from tuneyard.compiler.spec.model import Split
from tuneyard.core.datasets import TRAIN_SPLIT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_HASHES = 250_000  # about half a second
_MOST_SEEDS = 200
_NEAR = 0.05
"""The distance from the shares at which no further seed is tried."""


class SplitBySeed(NamedTuple):
    """The rows of each split by a seed, and the keys (groups or prompts) of the classes with too few of them.

    Such a class has less than one key for the smallest split, or no seed brought it into each split.
    """

    seed: int
    rows: dict[str, int]
    small_classes: dict[str, int]


def choose_seed(split: Split, hashed: HashedRows) -> SplitBySeed:
    """Try seeds from 1 on, fewer for more rows, until one is near enough. The best one is taken."""
    import numpy as np

    names = (TRAIN_SPLIT, *split.shares)
    shares = np.array([1 - sum(split.shares.values()), *split.shares.values()])
    class_count = max(1, len(hashed.classes))
    keys, key_of_row = np.unique(np.asarray(hashed.keys), return_inverse=True)
    class_of_row = np.zeros(len(key_of_row), dtype=np.int64)
    if hashed.class_numbers:
        class_of_row = np.asarray(hashed.class_numbers, dtype=np.int64)
    pairs, rows_of_pair = np.unique(key_of_row * class_count + class_of_row, return_counts=True)
    key_of_pair, class_of_pair = np.divmod(pairs, class_count)
    keys_by_class = np.bincount(class_of_pair, minlength=class_count)
    is_too_small = keys_by_class * shares.min() < 1
    plain_keys = array("Q", keys.tobytes())
    best_faults = (len(shares), class_count, 0.0)
    best = SplitBySeed(1, {}, {})
    for seed in range(1, max(1, min(_MOST_SEEDS, _MOST_HASHES // len(keys))) + 1):
        split_of_key = np.asarray(split_numbers_by_hash(split._replace(seed=seed), plain_keys), dtype=np.intp)
        cells = split_of_key[key_of_pair] * class_count + class_of_pair
        counts = np.bincount(cells, rows_of_pair, minlength=len(shares) * class_count)
        counts = counts.reshape(len(shares), class_count).astype(np.int64)
        is_missing = ~is_too_small & (counts == 0).any(axis=0)
        rows_of_splits = counts.sum(axis=1)
        distance = _distance(counts, shares)
        faults = (int((rows_of_splits == 0).sum()), int(is_missing.sum()), distance)
        if faults < best_faults:
            small = {
                hashed.classes[number]: int(keys_by_class[number])
                for number in np.flatnonzero(is_too_small | is_missing)
                if hashed.classes and keys_by_class[number]
            }
            rows_by_split = dict(zip(names, map(int, rows_of_splits), strict=True))
            best_faults, best = faults, SplitBySeed(seed, rows_by_split, small)
        if faults[:2] == (0, 0) and distance <= _NEAR:
            break
    return best


def _distance(counts: "NDArray[np.int64]", shares: "NDArray[np.float64]") -> float:
    """How far a split is from its shares of the classes, at most: the rows that are too many or too few.

    They are a part of its rows. `counts` are rows [splits, classes], `shares` [splits].
    """
    expected = shares[:, None] * counts.sum(axis=0)
    return float((abs(counts - expected).sum(axis=1) / expected.sum(axis=1)).max())
