"""Settings that were trained with several seeds: limits over examples and seeds.

The mean of a setting's trainings has Student's limits over the seeds. The two errors are independent: their
squares add up.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist, stdev

import numpy as np

from tuneyard.core.training.metrics import SHARE, Metric
from tuneyard.eval.statistics.family import ALPHA, DifferenceTest, agreeing
from tuneyard.eval.statistics.rates import Z95, Estimate, Mean
from tuneyard.eval.statistics.spread import student_deviate


def seed_error(figures: Sequence[float]) -> float:
    """Standard error of the mean of a setting's trainings."""
    return stdev(figures) / math.sqrt(len(figures))


def seed_reach(figures: Sequence[float], comparisons: int = 1) -> float:
    """From the mean of a setting's trainings to its limits, with Bonferroni's correction."""
    deviate = NormalDist().inv_cdf(1 - ALPHA / 2 / comparisons)
    return seed_error(figures) * float(student_deviate(deviate, np.array(len(figures) - 1.0)))


def _distances(estimate: Estimate, reach: float) -> tuple[float, float]:
    """From a value down and up to its limits over examples and over seeds of this reach."""
    return math.hypot(estimate.value - estimate.low, reach), math.hypot(estimate.high - estimate.value, reach)


def figure_over_seeds(metric: Metric, mean: Mean, figures: Sequence[float]) -> Mean:
    """A setting's figure over examples and seeds: `figures` are those of its trainings."""
    below, above = _distances(mean, seed_reach(figures))
    low, high = mean.value - below, mean.value + above
    if metric.unit == SHARE:
        low, high = max(0.0, low), min(1.0, high)
    return replace(mean, low=low, high=high, stderr=math.hypot(mean.stderr, seed_error(figures)))


def over_seeds(
    test: DifferenceTest, seeds: Sequence[Sequence[float]], comparisons: int, bound: float
) -> DifferenceTest:
    """The difference over examples and seeds: `seeds` are the figures of trainings, by setting.

    `comparisons` is the size of the family, `bound` the largest possible difference.
    """
    reach = math.hypot(*(seed_reach(figures, comparisons) for figures in seeds))
    below, above = _distances(test, reach)
    nearer = below
    if test.value < 0:
        nearer = above
    p = 1.0
    if test.value:
        p = math.erfc(Z95 * abs(test.value) / nearer / math.sqrt(2))
    limits = max(-bound, test.value - below), min(bound, test.value + above)
    smallest = min(bound, math.hypot(test.smallest, reach))
    return DifferenceTest(test.value, *agreeing(limits, p), p, smallest)
