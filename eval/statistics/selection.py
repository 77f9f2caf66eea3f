"""Choosing on one half of the rows and reporting on the other, so that luck in choosing earns nothing."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from tuneyard.core.errors import ContentError

Split = tuple[list[int], list[int]]


def split_halves(keys: Sequence[str], seed: int, place: str) -> Split:
    """Return the rows to choose on and those to report, by a hash of what each row's group or question is:
    the same in every run and for every model, rows of one key together. `ContentError` if a half is empty."""
    halves: Split = ([], [])
    for row, key in enumerate(keys):
        halves[hashlib.sha256(f"{seed} {key}".encode()).digest()[0] % 2].append(row)
    if not all(halves):
        raise ContentError(
            f"{place}: {len(keys)} rows: too few to choose on one half and report on the other"
        )
    return halves


def held_out_rows(count: int, size: float, seed: int) -> list[int]:
    """Return the rows (from 0, in order) that a training with this `val_size` and seed did not train on. They
    are those that `train_test_split` of the datasets library holds out, by which both LLaMA-Factory and the
    published script part their rows; a `size` of 1 or more is a number of rows."""
    shuffled = np.random.default_rng(seed).permutation(count)
    held: list[int] = shuffled[: math.ceil(size * count) if size < 1 else int(size)].tolist()
    return sorted(held)
