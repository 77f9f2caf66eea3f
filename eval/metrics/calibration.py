"""Calibration of a model's confidence: reliability by bins, and the expected calibration error."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuneyard.eval.statistics.rates import DRAWS, SEED, Groups, rate_of

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """`n` examples of similar confidence: their mean confidence (0-1), and their accuracy with its limits."""

    n: int
    confidence: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The expected calibration error (0-1) over `n` rows, and its bins.

    `chance` is the 95th percentile of the error under perfect calibration, with as many rows in each bin.
    """

    error: float
    chance: float
    n: int
    bins: Sequence[Bin]


def calibration(confidence: Sequence[float], correct: Sequence[bool], groups: Groups = None) -> Calibration:
    """Measure the calibration of answers by their confidence (0-1), in ten bins of equal width.

    The error is Σ n_b/n · |accuracy_b - confidence_b| (Naeini et al. 2015). A perfectly calibrated model has
    an error above 0 too, a larger one with fewer rows. `chance` shows its size (Bröcker and Smith 2007).
    """
    import numpy as np

    sure, right = np.asarray(confidence), np.asarray(correct, dtype=float)
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    bins = []
    for place in np.unique(places):
        in_bin = places == place
        bin_groups = groups and [groups[row] for row in np.flatnonzero(in_bin).tolist()]
        share = rate_of(right[in_bin].tolist(), bin_groups)
        bins.append(Bin(share.n, float(sure[in_bin].mean()), share.value, share.low, share.high))
    counts, means = np.array([b.n for b in bins]), np.array([b.confidence for b in bins])
    drawn = np.random.default_rng(SEED).binomial(counts, np.clip(means, 0, 1), size=(DRAWS, len(bins)))
    by_chance = np.abs(drawn - counts * means).sum(1) / len(sure)
    error = sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / len(sure)
    return Calibration(error, float(np.quantile(by_chance, 0.95)), len(sure), bins)
