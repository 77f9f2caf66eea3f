"""The rows that a training held out."""

import math


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
