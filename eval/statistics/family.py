"""Several candidates against one model on the same rows: p, interval and verdict by one procedure.

The statistic of a candidate is T(δ) = |Σ(x - δm)| / √Σ(x - δm)², over clusters (or rows) with x the sum of
the differences and m the rows in it. Its null distribution flips the signs of whole clusters, for all
candidates at once, and takes the largest T of the family (max-T: Westfall and Young 1993). p is read from
it, and the interval holds every δ whose T(δ) is not above the same critical value: an interval leaves 0 out
exactly where p is under 5 %, and covers all candidates together at 95 %, so also the one that is chosen.

Trainings of one recipe with different seeds are judged by their mean (`replicated`): seeds and examples are
both samples of many.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.statistics.rates import AT_ONCE, SEED, Floats, by_cluster, t95

ALPHA = 0.05
Z_POWER = 0.8416212335729143  # the normal distribution's 80 % point
FLIPS = 20_000
DRAWN = 100_000
ENUMERATED = 12  # with as many clusters that differ, or fewer, every flip is counted
NEAR = 1e-6  # statistics nearer than this are equal
Bits = NDArray[np.uint8] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Units:
    """What is flipped as a whole: `sums` [units, candidates] of differences and `sizes` [units] in rows. Both
    are weighted, so that every dataset counts alike; `squares` is the sum of the rows' squared weights.
    `bound` is the largest difference that there can be: 1 of shares, none of a loss."""

    sums: Floats
    sizes: Floats
    squares: float
    rows_are_units: bool
    bound: float = 1.0

    @property
    def values(self) -> Floats:
        """Each candidate's mean difference."""
        return np.asarray(self.sums.sum(0) / self.sizes.sum())

    @property
    def power(self) -> Floats:
        """The root of each candidate's summed squares: what its sum is measured by."""
        return np.asarray(np.sqrt((self.sums**2).sum(0)))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A candidate's mean difference, simultaneous 95 % limits and p, and the minimum detectable effect."""

    value: float
    low: float
    high: float
    p: float
    smallest: float


def units_of(
    steps: Sequence[Floats],
    groups: Sequence[Sequence[Hashable] | None],
    counts: Sequence[Floats] | None = None,
    bound: float = 1.0,
) -> Units:
    """Return the units of one or more datasets, each with its differences [rows, candidates] and clusters.
    `counts` [rows] is what each row counts where that is not 1: the tokens that its loss is of."""
    sums, sizes, squares = [], [], 0.0
    ones = counts or [np.ones(len(own)) for own in steps]
    for own, keys, weights in zip(steps, groups, ones, strict=True):
        total = by_cluster(own * weights[:, None], keys)
        weight = 1.0 if len(steps) == 1 else 1 / float(weights.sum())
        sums.append(weight * total)
        sizes.append(weight * by_cluster(weights, keys))
        squares += float((weights**2).sum()) * weight**2
    alone = all(keys is None for keys in groups)
    return Units(np.concatenate(sums), np.concatenate(sizes), squares, alone, bound)


def estimates(units: Units) -> list[Estimate]:
    """Return what is known of each candidate of a family. Of one on independent rows p is mid-p McNemar's, of
    one on clusters exact; of several it is that of 20,000 flips with the seed fixed, or of all of them where
    few clusters differ."""
    whole = units.bound == 1 and bool(np.all(units.sums == np.round(units.sums)))
    alone = units.sums.shape[1] == 1 and whole
    return _estimated(units, *(_exact(units) if alone else _flipped(units)))


def _estimated(units: Units, p: Floats, reach: float) -> list[Estimate]:
    """Return the estimates by each candidate's p and the family's critical value."""
    floor = math.sqrt(units.squares / len(units.sizes)) if units.bound == 1 else 0.0
    size = units.sizes.sum()
    limits = [_limits(units, column, reach) for column in range(units.sums.shape[1])]
    least = np.minimum(units.bound, (reach + Z_POWER) * np.maximum(units.power, floor) / size)
    return [
        Estimate(float(value), *limit, float(chance), float(small))
        for value, limit, chance, small in zip(units.values, limits, p, least, strict=True)
    ]


def sliced(
    steps: Floats, labels: Sequence[str], groups: Sequence[Hashable] | None
) -> dict[str, list[Estimate]]:
    """Return the estimates of each candidate on the rows of each label, as one family: slices and candidates.
    `steps` are the differences [rows, candidates] of shares. A cluster in several slices is flipped whole."""
    names, candidates = list(dict.fromkeys(labels)), steps.shape[1]
    held = np.array([[label == name for name in names] for label in labels], dtype=float)
    whole = units_of([(held[:, :, None] * steps[:, None, :]).reshape(len(steps), -1)], [groups])
    sizes = units_of([held], [groups]).sums  # rows of each slice in each cluster
    p, reach = _flipped(whole)
    found = {}
    for place, name in enumerate(names):
        inside, columns = sizes[:, place] > 0, slice(place * candidates, (place + 1) * candidates)
        counted = sizes[inside, place], float(held[:, place].sum()), groups is None
        found[name] = _estimated(Units(whole.sums[inside, columns], *counted), p[columns], reach)
    return found


def shrunk(units: Units) -> Floats:
    """Return each candidate's difference drawn towards their mean by what chance would spread them. The
    factor is 1 - (expected spread of equal candidates) / (spread seen), 0 at least: empirical Bayes (Efron
    and Morris 1973), which takes the luck out of the figure of whichever is chosen."""
    values, size = units.values, units.sizes.sum()
    mean = values.mean()
    centred = units.sums - units.sums.mean(1, keepdims=True) - np.outer(units.sizes, values - mean)
    expected, spread = (centred**2).sum() / size**2, ((values - mean) ** 2).sum()
    factor = max(0.0, 1 - expected / spread) if spread else 0.0
    return np.asarray(mean + factor * (values - mean))


def null_sums(nets: Sequence[int]) -> NDArray[np.float64]:
    """Return the chances of each sum from -Σ|net| to Σ|net| when every net's sign is a fair coin."""
    chances = np.ones(1)
    for size, count in Counter(abs(net) for net in nets if net).items():
        heads = np.arange(count + 1)
        logs = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in heads]
        spread = np.zeros(2 * size * count + 1)
        spread[:: 2 * size] = np.exp(np.array(logs) - count * math.log(2))
        chances = np.convolve(chances, spread)
    return chances


def _exact(units: Units) -> tuple[Floats, float]:
    """Return p of a single candidate, and the critical value: t's, moved into the gap the test leaves."""
    nets, power = units.sums[:, 0], float(units.power[0])
    chances = null_sums(nets.astype(int).tolist())
    centre = len(chances) // 2
    folded = chances[centre:] * np.where(np.arange(centre + 1) > 0, 2, 1)
    tails = np.minimum(1.0, folded[::-1].cumsum()[::-1])
    p = tails - folded / 2 if units.rows_are_units else tails
    place = abs(round(float(nets.sum())))
    possible = folded > 0
    kept = np.flatnonzero(possible & (p >= ALPHA))[-1]
    above = np.flatnonzero(possible & (p < ALPHA))
    scale = power or 1.0
    reach = _within(float(kept / scale), float(above[0] / scale) if len(above) else math.inf, units)
    return np.array([p[place] if power else 1.0]), reach


def _flipped(units: Units) -> tuple[Floats, float]:
    """Return each candidate's p by the largest statistic of the family, and the critical value."""
    sums, power = units.sums[np.any(units.sums, axis=1)], units.power
    total = np.abs(units.sums.sum(0))
    seen = np.round(np.divide(total, power, out=np.zeros_like(total), where=power > 0), 9)
    if len(sums) <= ENUMERATED:
        every = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        largest = _largest(every, sums, power)
    else:
        generator = np.random.default_rng(SEED)
        draws = (_random_bits(generator, len(sums)) for _ in range(0, FLIPS, AT_ONCE))
        drawn = [_largest(bits, sums, power) for bits in draws]
        largest = np.append(np.concatenate(drawn), seen.max())  # what was seen is one of the flips
    largest = np.sort(largest)
    p = (len(largest) - np.searchsorted(largest, seen - NEAR)) / len(largest)
    rejected = math.ceil(ALPHA * len(largest)) - 1
    kept = float(largest[len(largest) - 1 - rejected])
    above = np.concatenate([largest, seen])
    above = above[above > kept + 2 * NEAR]
    return p, _within(kept + NEAR, float(above.min(initial=math.inf)), units)


def _random_bits(generator: np.random.Generator, count: int) -> Bits:
    """Return random bits [500, count]."""
    drawn = np.frombuffer(generator.bytes(AT_ONCE * (count // 8 + 1)), dtype=np.uint8)
    return np.unpackbits(drawn.reshape(AT_ONCE, -1), axis=1, count=count)


def _largest(bits: Bits, sums: Floats, power: Floats) -> Floats:
    """Return the family's largest statistic under each row of bits, which are signs."""
    signs = 2 * bits.astype(np.float32) - 1
    flipped = np.abs(signs @ sums.astype(np.float32)).astype(np.float64)
    return np.asarray(np.round(flipped / np.where(power > 0, power, 1.0), 9).max(axis=1))


def _within(kept: float, above: float, units: Units) -> float:
    """Return the 95 % point of t(G - 1) where it lies between the two attained values, else the nearest."""
    size = float(units.sizes.sum() ** 2 / (units.sizes**2).sum())  # clusters, by their weights
    freedom = max(1.0, size - 1)
    t = t95(freedom)
    wanted = t * math.sqrt(size / (freedom + t * t))
    return max(kept + NEAR, wanted if wanted < above - NEAR else (kept + above) / 2)


def _limits(units: Units, column: int, reach: float) -> tuple[float, float]:
    """Return the differences that T does not reject, within the bound: the roots of a quadratic. Of shares
    the variance at δ is no smaller than |δ|(1 - |δ|), that of the fewest rows that can differ: so an interval
    is no point where two models never differ, and Wilson's where they differ one way only."""
    sums, sizes = units.sums[:, column], units.sizes
    total, size, square = float(sums.sum()), float(sizes.sum()), reach * reach
    a = size**2 - square * float((sizes**2).sum())
    if a <= 0:  # so few clusters say nothing
        return -units.bound, units.bound
    b, c = total * size - square * float((sums * sizes).sum()), total**2 - square * float((sums**2).sum())
    root = math.sqrt(max(0.0, b * b - a * c))
    low, high = (b - root) / a, (b + root) / a
    if units.bound != 1:
        return low, high
    least = square * units.squares
    half = abs(total) * size + least / 2
    outer = (half + math.sqrt(max(0.0, half**2 - (size**2 + least) * total**2))) / (size**2 + least)
    inner = total**2 / ((size**2 + least) * outer)
    if total >= 0:
        low, high = min(low, inner), max(high, outer)
    if total <= 0:
        low, high = min(low, -outer), max(high, -inner)
    return max(-1.0, low), min(1.0, high)


@dataclass(frozen=True, slots=True)
class Replicated:
    """A mean difference over seeds and examples (-1 to 1), 95 % limits and two-sided p. `between` is the
    standard deviation of the seeds' differences, `sampling` the standard error that the examples alone would
    give (None for a single cluster)."""

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
