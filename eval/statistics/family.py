"""Several candidates against one model on the same rows: p, interval and verdict by one procedure.

The statistic of a candidate is its mean difference in standard errors (`spread`), over clusters (or rows).
It is judged by the largest of correlated normal deviates, with Student's t for few or unequal clusters
(max-T: Westfall and Young 1993). A skewed statistic must also be significant on a scale on which it is nearly
normal; the interval is then the hull of both. So an interval excludes 0 exactly if p is under 5 %, for any
clusters. It covers all candidates together at 95 %, and so also the chosen candidate.

The mean of a setting that was trained with several seeds has Student's limits over the seeds. The errors over
examples and seeds are independent: their squares add up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, stdev
from typing import Self

import numpy as np

from tuneyard.core.training.metrics import SHARE, Metric
from tuneyard.eval.statistics.rates import SEED, Z95, Estimate, Groups, Mean, by_cluster, wilson
from tuneyard.eval.statistics.spread import (
    Floats,
    Spread,
    normal_deviate,
    spread_of,
    student_deviate,
    unskewed,
)

ALPHA = 0.05
Z_POWER = 0.8416212335729143  # the normal distribution's 80 % point
DRAWS = 20_000
SKEWED = 0.25  # skewness of a mean's distribution
NEAR = 1e-6  # statistics nearer than this are equal


@dataclass(frozen=True, slots=True)
class DifferenceTest(Estimate):
    """A mean difference with its two-sided p. Limits and p hold for all comparisons of one family together.

    `smallest` is the minimum detectable effect (80 % power).
    """

    p: float
    smallest: float

    def opposite(self) -> Self:
        """The same test of the opposite difference."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a test: clusters, or rows.

    `sums` [units, candidates] are summed differences and `sizes`, of the same shape, numbers of rows. Both
    are weighted, so that every dataset counts alike. `squares` [candidates] is the sum of the rows' squared
    weights. `bound` is the largest possible difference: 1 of shares, infinite of a loss.
    """

    sums: Floats
    sizes: Floats
    squares: Floats
    rows_are_units: bool
    bound: float = 1.0

    @property
    def values(self) -> Floats:
        """Each candidate's mean difference."""
        return np.asarray(self.sums.sum(0) / self.sizes.sum(0))


def units_of(
    differences: Sequence[Floats],
    groups: Sequence[Groups],
    counts: Sequence[Floats] | None = None,
    bound: float = 1.0,
) -> Units:
    """Units of one or more datasets, each with its differences [rows, candidates] and clusters.

    `counts` [rows] is the weight of each row, by default 1: the number of tokens of its loss.
    """
    sums, sizes, squares = [], [], 0.0
    ones = counts or [np.ones(len(of_dataset)) for of_dataset in differences]
    for of_dataset, keys, weights in zip(differences, groups, ones, strict=True):
        total = by_cluster(of_dataset * weights[:, None], keys)
        weight = 1.0
        if len(differences) > 1:
            weight = 1 / float(weights.sum())
        sums.append(weight * total)
        sizes.append(weight * by_cluster(weights, keys))
        squares += float((weights**2).sum()) * weight**2
    alone = all(keys is None for keys in groups)
    every = np.concatenate(sums)
    shared = np.broadcast_to(np.concatenate(sizes)[:, None], every.shape)
    return Units(every, shared, np.full(every.shape[1], squares), alone, bound)


def estimates(units: Units, spread: Spread | None = None) -> list[DifferenceTest]:
    """DifferenceTest of each candidate of a family, with limits and p of the whole family.

    `spread` has the differences and their errors if they are no means over rows (macro-F1). For a single mean
    on independent rows that are correct or incorrect, p is mid-p McNemar's.
    """
    is_exact = units.rows_are_units and units.sums.shape[1] == 1 and units.bound == 1
    is_exact = is_exact and spread is None and bool(np.all(units.sums == np.round(units.sums)))
    if spread is None:
        spread = spread_of(units.sums, units.sizes)
    if is_exact:
        spread = replace(spread, skew=np.zeros(1))  # an exact test needs no correction
        p, reach = _exact(units)
    else:
        p, reach = _judged(units, spread)
    floor = np.zeros(len(p))
    if units.bound == 1:
        floor = np.sqrt(units.squares / len(units.sums))
    equal = np.sqrt((units.sums**2).sum(axis=0))  # the error of a candidate that does not differ
    error = np.maximum(equal, floor) / units.sizes.sum(axis=0)
    smallest = np.minimum(units.bound, (reach + Z_POWER) * error)
    smallest = np.where(np.isfinite(spread.error), smallest, units.bound)  # a single unit shows nothing
    tests = []
    for column, value in enumerate(spread.value.tolist()):
        chance = float(p[column])
        low, high = agreeing(_limits(units, spread, column, float(reach[column])), chance)
        tests.append(DifferenceTest(value, low, high, chance, float(smallest[column])))
    return tests


def is_skewed(units: Units) -> bool:
    """True if a few units decide a mean difference: its interval may be too narrow."""
    return bool(np.abs(spread_of(units.sums, units.sizes).skew).max() > SKEWED)


def sliced(differences: Floats, labels: Sequence[str], groups: Groups) -> dict[str, list[DifferenceTest]]:
    """Differences of each candidate on the rows of each label; slices and candidates are one family.

    `differences` [rows, candidates] are those of shares. A cluster in several slices stays one unit.
    """
    names, candidates = list(dict.fromkeys(labels)), differences.shape[1]
    membership = (np.array(labels)[:, None] == np.array(names)[None, :]).astype(float)  # [rows, slices]
    sums = by_cluster(
        (membership[:, :, None] * differences[:, None, :]).reshape(len(differences), -1), groups
    )
    sizes = np.repeat(by_cluster(membership, groups), candidates, axis=1)
    rows = np.repeat(membership.sum(axis=0), candidates)
    family = estimates(Units(sums, sizes, rows, groups is None))
    by_name = {}
    for place, name in enumerate(names):
        by_name[name] = family[place * candidates : (place + 1) * candidates]
    return by_name


def shrunk(units: Units) -> Floats:
    """Each candidate's difference, shrunk towards their mean to correct the luck of the chosen candidate.

    The factor is 1 - (expected spread of equal candidates) / (observed spread), at least 0: empirical Bayes
    (Efron and Morris 1973).
    """
    values, size = units.values, units.sizes[:, 0].sum()
    mean = values.mean()
    centred = units.sums - units.sums.mean(1, keepdims=True) - units.sizes * (values - mean)
    expected, spread = (centred**2).sum() / size**2, ((values - mean) ** 2).sum()
    factor = 0.0
    if spread:
        factor = max(0.0, 1 - expected / spread)
    return np.asarray(mean + factor * (values - mean))


def sign_test(decided: int) -> tuple[Floats, Floats]:
    """Two-sided p of the exact sign test of `decided` tosses, and its mid-p (McNemar's).

    Each by the smaller of the numbers of wins and losses, 0 to decided // 2.
    """
    fewer = np.arange(decided // 2 + 1)
    logs = [math.lgamma(decided + 1) - math.lgamma(k + 1) - math.lgamma(decided - k + 1) for k in fewer]
    chances = np.exp(np.array(logs) - decided * math.log(2))
    both = np.where(2 * fewer < decided, 2, 1) * chances  # of as many wins, or as many losses
    exact = np.minimum(1.0, 2 * chances.cumsum())
    return exact, exact - both / 2


def _exact(units: Units) -> tuple[Floats, Floats]:
    """Mid-p McNemar's p of a single candidate on independent rows, and the critical value.

    The critical value is Student's, or a larger one if the exact test does not reject there. Above Student's
    value the exact test always rejects, because mid-p is the smaller p.
    """
    nets, rows = units.sums[:, 0], len(units.sums)
    discordant, net = int(np.abs(nets).sum()), abs(round(float(nets.sum())))
    _unused, mid = sign_test(discordant)
    largest_accepted = discordant - 2 * int(np.argmax(mid >= ALPHA))
    student = float(student_deviate(Z95, np.array(max(1.0, rows - 1.0))))
    reach = max(student, _student(largest_accepted + NEAR, float((nets**2).sum()), rows))
    p = 1.0
    if discordant:
        p = float(mid[(discordant - net) // 2])
    return np.array([p]), np.array([reach])


def _student(net: float, squares: float, rows: int) -> float:
    """t statistic of `rows` differences of -1, 0 or 1: `net` their sum, `squares` that of their squares."""
    if not squares:
        return 0.0
    rest = rows * squares - net**2
    if rest <= 0:
        return math.inf
    return abs(net) * math.sqrt((rows - 1) / rest)


def _judged(units: Units, spread: Spread) -> tuple[Floats, Floats]:
    """p of each candidate, and the standard errors from its value to its limits.

    The statistic is the smaller of two normal deviates: the plain one, and that on the scale on which skewed
    means are nearly normal, where it is 0 if its sign changes. p is at least that of the exact sign test if
    all units of a candidate differed in the same direction. So a few clusters show nothing, even if they
    agree.
    """
    endless = np.where(spread.value == 0, 0.0, math.inf)
    plain = np.divide(np.abs(spread.value), spread.error, out=endless, where=spread.error > 0)
    moved = np.maximum(0.0, unskewed(plain, np.sign(spread.value) * spread.skew))
    p, reach = _normal(spread, normal_deviate(np.minimum(plain, moved), spread.freedom))
    smallest = np.minimum(1.0, 2.0 ** (1 - np.count_nonzero(units.sums, axis=0)))
    return np.maximum(p, smallest), student_deviate(reach, spread.freedom)


def _normal(spread: Spread, statistics: Floats) -> tuple[Floats, float]:
    """p of each statistic, and the 95 % point, by the largest of correlated normal deviates.

    The deviates are correlated as the candidates' differences are.
    """
    if len(statistics) == 1:
        return np.array([math.erfc(float(statistics[0]) / math.sqrt(2))]), Z95
    lengths = np.sqrt((spread.influence**2).sum(axis=0))
    usable = (spread.error > 0) & np.isfinite(spread.error) & (lengths > 0)
    scaled = spread.influence / np.where(usable, lengths, math.inf)
    correlation = scaled.T @ scaled
    if not usable.any():  # no candidate's differences vary: their correlation is unknown
        correlation = np.eye(len(statistics))
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0))
    drawn = np.random.default_rng(SEED).standard_normal((DRAWS, len(root))) @ root.T
    largest = np.sort(np.abs(drawn).max(axis=1))
    as_large = DRAWS - np.searchsorted(largest, statistics - NEAR)
    rejected = math.ceil(ALPHA * DRAWS) - 1
    return np.maximum(1, as_large) / DRAWS, float(largest[DRAWS - 1 - rejected]) + NEAR


def _limits(units: Units, spread: Spread, column: int, reach: float) -> tuple[float, float]:
    """Limits of the differences that the test does not reject, within the bound.

    The variance of a difference δ of shares is at least |δ|(1 - |δ|), that of the fewest rows that can
    differ. So an interval has a width even if two models never differ. It is Wilson's if they differ one way
    only.
    """
    value, error = float(spread.value[column]), float(spread.error[column])
    if math.isinf(error) or math.isinf(reach):  # too few clusters for any limit
        return -units.bound, units.bound
    low, high = spread.limits(column, reach)
    if units.bound == 1:
        squared_sizes = float(units.squares[column])
        if not error:  # rows that never differ do not show how similar the rows of a cluster are
            squared_sizes = float((units.sizes[:, column] ** 2).sum())
        rows = float(units.sizes[:, column].sum()) ** 2 / squared_sizes
        inner, outer = wilson(min(1.0, abs(value)) * rows, rows, reach)
        if value >= 0:
            low, high = min(low, inner), max(high, outer)
        if value <= 0:
            low, high = min(low, -outer), max(high, -inner)
    return max(-units.bound, low), min(units.bound, high)


def agreeing(limits: tuple[float, float], p: float) -> tuple[float, float]:
    """Limits that contain 0 if p is 5 % or more. A limit that is 0 up to rounding becomes 0."""
    low, high = limits
    if p < ALPHA:
        return low, high
    near = 10 * NEAR * (high - low)
    if low > -near:
        low = 0.0
    if high < near:
        high = 0.0
    return low, high


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
