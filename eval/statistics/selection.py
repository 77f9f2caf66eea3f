"""Selection split (a half to choose on, a half to report), and the rows that a training held out."""

import hashlib
import math
from collections.abc import Sequence

from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _

Split = tuple[list[int], list[int]]


def split_halves(keys: Sequence[str], seed: int, place: str) -> Split:
    """Rows to choose on and rows to report, by a hash of each row's key: its cluster or question.

    The halves are the same in every run and for every model. Rows of one key stay together. `ContentError` if
    a half has less than two rows.
    """
    halves: Split = ([], [])
    for row, key in enumerate(keys):
        digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
        halves[digest[0] % 2].append(row)
    if min(map(len, halves)) < 2:
        raise ContentError(
            _(
                "{place}: {number} rows: too few to choose on one half and report on the other; add rows",
                place=place,
                number=len(keys),
            )
        )
    return halves


def held_out_rows(count: int, size: float, seed: int) -> list[int]:
    """Rows (from 0, in order) that a training with this `val_size` and seed did not train on.

    `train_test_split` of the datasets library holds them out, both in LLaMA-Factory and in the published
    script. A `size` of 1 or more is a number of rows.
    """
    import numpy as np

    shuffled = np.random.default_rng(seed).permutation(count)
    number = int(size)
    if size < 1:
        number = math.ceil(size * count)
    held_out: list[int] = shuffled[:number].tolist()
    return sorted(held_out)
