"""Two systems on the same rows: McNemar's test, sign flips of whole groups, and Holm's correction."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
Z_POWER = 0.8416212335729143  # the normal distribution's 80 % point


def mcnemar(better: int, worse: int) -> float:
    """Return the two-sided exact p of McNemar's test: a fair coin over the discordant rows."""
    total = better + worse
    term, tail = 1, 0
    for k in range(min(better, worse) + 1):
        tail += term
        term = term * (total - k) // (k + 1)
    return min(1.0, 2 * tail / (1 << total))


def sign_flip(nets: Sequence[int]) -> float:
    """Return the two-sided exact p that the sum of `nets` is this far from 0 when signs are random.

    Swapping the two systems in a whole group is what chance could do, whatever binds the group's
    rows together; with nets of ±1 this is McNemar's test.
    """
    chances = null_sums(nets)
    centre = len(chances) // 2
    far = np.abs(np.arange(len(chances)) - centre) >= abs(sum(nets))
    return min(1.0, float(chances[far].sum()))


def null_sums(nets: Sequence[int]) -> NDArray[np.float64]:
    """Return the chances of each sum from -Σ|net| to Σ|net| when every net's sign is a fair coin."""
    chances = np.ones(1)
    for size, count in Counter(abs(net) for net in nets).items():
        heads = np.arange(count + 1)
        logs = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in heads]
        spread = np.zeros(2 * size * count + 1)
        spread[:: 2 * size] = np.exp(np.array(logs) - count * math.log(2))
        chances = np.convolve(chances, spread)
    return chances


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values (Holm 1979), in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
