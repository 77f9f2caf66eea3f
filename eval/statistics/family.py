"""Several candidates against one model on the same rows: p, interval and verdict by one procedure.

The statistic of a candidate is its mean difference in standard errors (`spread`), over clusters (or rows).
A difference is significant if two tests agree, each for all candidates at once:

- sign flips of whole clusters, with the largest statistic of the family (max-T: Westfall and Young 1993).
  This test is exact if a difference is as likely as its opposite.
- the largest of correlated normal deviates, with Student's t for few or unequal clusters. This test is valid
  for the interval, away from a difference of 0.

p is the larger of the two, and the larger critical value gives the interval. A skewed statistic must also be
significant on a scale on which it is nearly normal; the interval is then the hull of both. So an interval
excludes 0 exactly if p is under 5 %, for any clusters. It covers all candidates together at 95 %, and so also
the chosen candidate.

`replicated` compares the mean of several trainings of one recipe: seeds and examples are both samples.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tuneyard.eval.statistics.estimate import DifferenceTest, Estimate
from tuneyard.eval.statistics.rates import AT_ONCE, SEED, Z95, by_cluster
from tuneyard.eval.statistics.spread import (
    Floats,
    Spread,
    lever,
    normal_deviate,
    satterthwaite,
    spread_of,
    student_deviate,
    unskewed,
)

ALPHA = 0.05
Z_POWER = 0.8416212335729143  # the normal distribution's 80 % point
FLIPS = 20_000
DRAWN = 100_000
ENUMERATED = 12  # up to so many clusters that differ, every flip is counted
NEAR = 1e-6  # statistics nearer than this are equal
ROUNDING = 1e-12  # a variance that is a smaller part of its squares is 0
Bits = NDArray[np.uint8] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a sign-flip test: clusters, or rows.

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

    @property
    def power(self) -> Floats:
        """The root of each candidate's summed squares: its standard error if it does not differ."""
        return np.asarray(np.sqrt((self.sums**2).sum(0)))


def units_of(
    steps: Sequence[Floats],
    groups: Sequence[Sequence[Hashable] | None],
    counts: Sequence[Floats] | None = None,
    bound: float = 1.0,
) -> Units:
    """Units of one or more datasets, each with its differences [rows, candidates] and clusters.

    `counts` [rows] is the weight of each row, by default 1: the number of tokens of its loss.
    """
    sums, sizes, squares = [], [], 0.0
    ones = counts or [np.ones(len(differences)) for differences in steps]
    for differences, keys, weights in zip(steps, groups, ones, strict=True):
        total = by_cluster(differences * weights[:, None], keys)
        weight = 1.0
        if len(steps) > 1:
            weight = 1 / float(weights.sum())
        sums.append(weight * total)
        sizes.append(weight * by_cluster(weights, keys))
        squares += float((weights**2).sum()) * weight**2
    alone = all(keys is None for keys in groups)
    every = np.concatenate(sums)
    shared = np.broadcast_to(np.concatenate(sizes)[:, None], every.shape)
    return Units(every, shared, np.full(every.shape[1], squares), alone, bound)


def estimates(units: Units) -> list[DifferenceTest]:
    """DifferenceTest of each candidate of a family, with limits and p of the whole family.

    For a single candidate on independent rows that are correct or incorrect, p is mid-p McNemar's. Otherwise
    p comes from 20,000 flips with a fixed seed (from all flips if few clusters differ), or from the normal
    family if that p is larger.
    """
    spread = spread_of(units.sums, units.sizes)
    whole = bool(np.all(units.sums == np.round(units.sums)))
    if whole and units.bound == 1 and units.rows_are_units and units.sums.shape[1] == 1:
        spread = replace(spread, skew=np.zeros(1))  # an exact test needs no correction
        p, reach = _exact(units)
    else:
        p, reach = _judged(units, spread)
    floor = np.zeros(len(p))
    if units.bound == 1:
        floor = np.sqrt(units.squares / len(units.sums))
    error = np.maximum(units.power, floor) / units.sizes.sum(axis=0)
    bounded = np.isfinite(reach) & np.isfinite(spread.error)  # otherwise no difference can be shown
    smallest = np.minimum(units.bound, (np.where(bounded, reach, 0) + Z_POWER) * error)
    smallest = np.where(bounded, smallest, units.bound)
    differences = []
    for column, value in enumerate(spread.value.tolist()):
        chance = float(p[column])
        low, high = _agreeing(_limits(units, spread, column, float(reach[column])), chance)
        differences.append(DifferenceTest(value, low, high, chance, float(smallest[column])))
    return differences


def skewness(units: Units) -> Floats:
    """Skewness of the distribution of each candidate's mean difference."""
    return spread_of(units.sums, units.sizes).skew


def sliced(
    steps: Floats, labels: Sequence[str], groups: Sequence[Hashable] | None
) -> dict[str, list[DifferenceTest]]:
    """Differences of each candidate on the rows of each label; slices and candidates are one family.

    `steps` are the differences [rows, candidates] of shares. A cluster in several slices is flipped whole.
    """
    names, candidates = list(dict.fromkeys(labels)), steps.shape[1]
    membership = (np.array(labels)[:, None] == np.array(names)[None, :]).astype(float)  # [rows, slices]
    sums = by_cluster((membership[:, :, None] * steps[:, None, :]).reshape(len(steps), -1), groups)
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


def null_sums(nets: Sequence[int]) -> NDArray[np.float64]:
    """Probability of each sum from -Σ|net| to Σ|net| if the sign of every net is a fair coin."""
    chances = np.ones(1)
    for size, count in Counter(abs(net) for net in nets if net).items():
        heads = np.arange(count + 1)
        logs = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in heads]
        spread = np.zeros(2 * size * count + 1)
        spread[:: 2 * size] = np.exp(np.array(logs) - count * math.log(2))
        chances = np.convolve(chances, spread)
    return chances


def _exact(units: Units) -> tuple[Floats, Floats]:
    """p of a single candidate on independent rows by all flips, and the critical value.

    The critical value is Student's, or a larger one if the exact test does not reject there. Above Student's
    value the exact test always rejects, because mid-p is the smaller p.
    """
    nets, power, rows = units.sums[:, 0], float(units.power[0]), len(units.sums)
    chances = null_sums(nets.astype(int).tolist())
    centre = len(chances) // 2
    folded = chances[centre:] * np.where(np.arange(centre + 1) > 0, 2, 1)
    tails = np.minimum(1.0, folded[::-1].cumsum()[::-1])
    p = tails - folded / 2
    place = abs(round(float(nets.sum())))
    possible = folded > 0
    largest_accepted = float(np.flatnonzero(possible & (p >= ALPHA))[-1])
    student = float(student_deviate(Z95, np.array(max(1.0, rows - 1.0))))
    reach = max(student, _student(largest_accepted + NEAR, power, rows))
    p_value = 1.0
    if power:
        p_value = float(p[place])
    return np.array([p_value]), np.array([reach])


def _student(net: float, power: float, rows: int) -> float:
    """t statistic of `rows` differences of -1, 0 or 1: `net` their sum, `power` the root of their squares."""
    if not power:
        return 0.0
    rest = rows * power**2 - net**2
    if rest <= 0:
        return math.inf
    return abs(net) * math.sqrt((rows - 1) / rest)


def _judged(units: Units, spread: Spread) -> tuple[Floats, Floats]:
    """p of each candidate, and the standard errors from its value to its limits.

    Both are the larger one of flips and of normal deviates.
    """
    flips = _Flips(units, spread.freedom)
    straight = flips.deviates(np.ones((1, flips.differing), dtype=np.uint8))[0]
    statistics = np.minimum(straight, _without_skew(spread, straight))
    flipped_p, flipped_reach = _placed(_largest_flipped(flips, straight), statistics)
    normal_p, normal_reach = _normal(spread, statistics)
    reach = max(flipped_reach, normal_reach)
    return np.maximum(flipped_p, normal_p), student_deviate(reach, spread.freedom)


def _without_skew(spread: Spread, straight: Floats) -> Floats:
    """Statistics on the scale on which skewed means are nearly normal, as normal deviates.

    0 for a statistic that changes its sign there.
    """
    usable = np.isfinite(straight) & (spread.error > 0)
    ratio = np.divide(spread.value, spread.error, out=np.zeros_like(straight), where=usable)
    moved = np.maximum(0.0, np.sign(ratio) * unskewed(ratio, spread.skew))
    return np.where(usable, normal_deviate(moved, spread.freedom), straight)


class _Flips:
    """The statistics of a family if the signs of its units are flipped, in standard errors."""

    def __init__(self, units: Units, freedom: Floats) -> None:
        """Compute the sums that no flip changes."""
        differing = np.any(units.sums, axis=1)
        size = units.sizes.sum(axis=0)
        levers = lever(units.sizes / size) ** 2
        weighted = units.sums / levers
        self.differing = int(differing.sum())
        self.freedom = freedom
        self.candidates = units.sums.shape[1]
        self.alike = bool(np.all(units.sizes == units.sizes[0, 0]))  # which is half the work
        self.flipped = (units.sums / size)[differing]
        if not self.alike:
            products = (weighted * units.sizes)[differing]
            self.flipped = np.concatenate([self.flipped, products], axis=1)
        self.total = self.flipped.sum(axis=0)
        self.squares = (weighted * units.sums).sum(axis=0)
        self.size_squares = (units.sizes**2 / levers).sum(axis=0)
        self.size = size
        self.product_by_mean = size * units.sizes[0] / levers[0]

    def deviates(self, kept: Bits) -> Floats:
        """Statistics [flips, candidates] as normal deviates.

        `kept` [flips, units that differ] is 1 for a unit that keeps its sign, 0 for a flipped unit.
        """
        sums = 2 * (kept.astype(np.float64) @ self.flipped) - self.total
        value = sums[:, : self.candidates]
        product = sums[:, self.candidates :]
        if self.alike:
            product = value * self.product_by_mean
        squares = self.squares - 2 * value * product + value**2 * self.size_squares
        squares = np.where(squares > ROUNDING * self.squares, squares, 0.0)
        error = np.sqrt(squares) / self.size
        endless = np.where(value == 0, 0.0, math.inf)
        statistic = np.divide(np.abs(value), error, out=endless, where=error > 0)
        return normal_deviate(statistic, self.freedom)


def _largest_flipped(flips: _Flips, seen: Floats) -> Floats:
    """Largest statistic of the family under each flip; `seen` are the statistics of the data themselves."""
    if flips.differing <= ENUMERATED:
        every = (np.arange(2**flips.differing)[:, None] >> np.arange(flips.differing)) & 1
        return np.asarray(flips.deviates(every).max(axis=1))
    drawn = [flips.deviates(kept).max(axis=1) for kept in _random_bits(flips.differing)]
    return np.append(np.concatenate(drawn), seen.max())  # the data themselves are one of the flips


def _random_bits(count: int) -> Iterator[Bits]:
    """Yield random bits [500, count] until there are `FLIPS` rows of them."""
    generator = np.random.default_rng(SEED)
    for _ in range(0, FLIPS, AT_ONCE):
        drawn = np.frombuffer(generator.bytes(AT_ONCE * (count // 8 + 1)), dtype=np.uint8)
        yield np.unpackbits(drawn.reshape(AT_ONCE, -1), axis=1, count=count)


def _placed(largest: Floats, statistics: Floats) -> tuple[Floats, float]:
    """p of each statistic among the family's largest under no difference, and their 95 % point."""
    ordered = np.sort(largest)
    p = (len(ordered) - np.searchsorted(ordered, statistics - NEAR)) / len(ordered)
    rejected = math.ceil(ALPHA * len(ordered)) - 1
    return p, float(ordered[len(ordered) - 1 - rejected]) + NEAR


def _normal(spread: Spread, statistics: Floats) -> tuple[Floats, float]:
    """p of each statistic, and the 95 % point, by the largest of correlated normal deviates.

    The deviates are correlated as the candidates' differences are.
    """
    if len(statistics) == 1:
        return np.array([math.erfc(float(statistics[0]) / math.sqrt(2))]), Z95
    usable = (spread.error > 0) & np.isfinite(spread.error)
    scaled = spread.influence / np.where(usable, spread.error, math.inf)
    correlation = scaled.T @ scaled
    if not usable.any():  # no candidate's differences vary: their correlation is unknown
        correlation = np.eye(len(statistics))
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0))
    drawn = np.random.default_rng(SEED).standard_normal((FLIPS, len(root))) @ root.T
    return _placed(np.abs(drawn).max(axis=1), statistics)


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
        rows = float(units.squares[column])
        clusters = float((units.sizes[:, column] ** 2).sum())
        size = float(units.sizes[:, column].sum())
        alike = clusters  # rows that never differ do not show how similar the rows of a cluster are
        if error:
            alike = rows
        inner, outer = _fewest(abs(value), reach**2 * alike / size**2)
        if value >= 0:
            low, high = min(low, inner), max(high, outer)
        if value <= 0:
            low, high = min(low, -outer), max(high, -inner)
    return max(-units.bound, low), min(units.bound, high)


def _fewest(value: float, square: float) -> tuple[float, float]:
    """Wilson's limits of a share from the square of the critical value over the number of rows."""
    half = value + square / 2
    outer = (half + math.sqrt(max(0.0, half**2 - (1 + square) * value**2))) / (1 + square)
    return value**2 / ((1 + square) * outer), outer


def _agreeing(limits: tuple[float, float], p: float) -> tuple[float, float]:
    """Limits that contain 0 if p is 5 % or more. A limit that is 0 up to rounding becomes 0."""
    low, high = limits
    if p < ALPHA:
        return low, high
    near = 0.0
    if math.isfinite(high - low):
        near = 10 * NEAR * (high - low)
    if low > -near:
        low = 0.0
    if high < near:
        high = 0.0
    return low, high


@dataclass(frozen=True, slots=True)
class Replicated(Estimate):
    """A mean difference over seeds and examples with its two-sided p.

    `between` is the standard deviation of the seeds' differences. `sampling` is the standard error of the
    examples alone (None for a single cluster).
    """

    p: float
    between: float
    sampling: float | None


def replicated(units: Units, tests: int = 1) -> Replicated:
    """Mean difference of a recipe's trainings [units, seeds], as one of `tests` (Bonferroni).

    Seeds and clusters (or rows) are crossed random factors, with a mean square each and a residual one
    (Judd, Westfall and Kenny 2012, doi:10.1037/a0028347). The error is the sum of the seeds' part, which has
    Student's t with seeds - 1 degrees of freedom, and the clusters', with those of `satterthwaite` (Behrens
    and Fisher): 100,000 draws, seed fixed. Few seeds that differ therefore give a wide interval.
    """
    count, seeds = units.sums.shape
    scaled = units.sums * count / units.sizes[:, 0].sum()
    rows, columns, value = scaled.mean(axis=1), scaled.mean(axis=0), float(scaled.mean())
    between = float(columns.std(ddof=1))
    if count < 2:
        return Replicated(value, -1.0, 1.0, 1.0, between, None)
    residual = ((scaled - rows[:, None] - columns + value) ** 2).sum() / ((count - 1) * (seeds - 1))
    of_row = seeds * float(rows.var(ddof=1))
    row_error = math.sqrt(max(0.0, of_row - float(residual)) / (count * seeds))
    generator = np.random.default_rng(SEED)
    freedom = float(satterthwaite(units.sizes[:, :1] / units.sizes[:, 0].sum())[0])
    of_seeds, of_rows = generator.standard_t(seeds - 1, DRAWN), generator.standard_t(freedom, DRAWN)
    errors = np.sort(np.abs(between / math.sqrt(seeds) * of_seeds + row_error * of_rows))
    half = float(errors[DRAWN - math.ceil(ALPHA * DRAWN / tests)])
    above = DRAWN - int(np.searchsorted(errors, abs(value)))
    low, high = max(-1.0, value - half), min(1.0, value + half)
    sampling = math.sqrt(of_row / (count * seeds))
    return Replicated(value, low, high, min(1.0, tests * above / DRAWN), between, sampling)
