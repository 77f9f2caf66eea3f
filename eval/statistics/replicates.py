"""The mean over trainings with different seeds, when seeds and examples are both samples of many."""

import math
from dataclasses import dataclass

import numpy as np

from eval.statistics.family import ALPHA, Units
from eval.statistics.rates import SEED

DRAWN = 100_000


@dataclass(frozen=True, slots=True)
class Replicated:
    """A mean difference over seeds and examples (-1 to 1), 95 % limits and two-sided p.

    `between` is the standard deviation of the seeds' differences, `sampling` the standard error that
    the examples alone would give (None for a single cluster).
    """

    value: float
    low: float
    high: float
    p: float
    between: float
    sampling: float | None


def replicated(units: Units, tests: int = 1) -> Replicated:
    """Return what the trainings [units, seeds] together say, as one of `tests` (Bonferroni).

    Seeds and clusters (or rows) are crossed random factors, with a mean square each and a residual one
    (Judd, Westfall and Kenny 2012, doi:10.1037/a0028347). The error is the sum of the seeds' part, which has
    Student's t with seeds - 1 degrees of freedom, and the clusters' (Behrens and Fisher): 100,000
    draws, seed fixed. Few seeds that differ so give the wide interval that they should.
    """
    count, seeds = units.sums.shape
    scaled = units.sums * count / units.sizes.sum()
    rows, columns, value = scaled.mean(axis=1), scaled.mean(axis=0), float(scaled.mean())
    between = float(columns.std(ddof=1))
    if count < 2:
        return Replicated(value, -1.0, 1.0, 1.0, between, None)
    residual = ((scaled - rows[:, None] - columns + value) ** 2).sum() / ((count - 1) * (seeds - 1))
    of_row = seeds * float(rows.var(ddof=1))
    own = math.sqrt(max(0.0, of_row - float(residual)) / (count * seeds))
    generator = np.random.default_rng(SEED)
    of_seeds, of_rows = generator.standard_t(seeds - 1, DRAWN), generator.standard_t(count - 1, DRAWN)
    errors = np.sort(np.abs(between / math.sqrt(seeds) * of_seeds + own * of_rows))
    half = float(errors[DRAWN - math.ceil(ALPHA * DRAWN / tests)])
    above = DRAWN - int(np.searchsorted(errors, abs(value)))
    low, high = max(-1.0, value - half), min(1.0, value + half)
    sampling = math.sqrt(of_row / (count * seeds))
    return Replicated(value, low, high, min(1.0, tests * above / DRAWN), between, sampling)
