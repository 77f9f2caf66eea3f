"""Several candidates against one model on the same rows: p, interval and verdict by one procedure.

The statistic of a candidate is T(δ) = |Σ(x - δm)| / √Σ(x - δm)², over clusters (or rows) with x the sum of
the differences and m the rows in it. Its null distribution flips the signs of whole clusters, for all
candidates at once, and takes the largest T of the family (max-T: Westfall and Young 1993). p is read from
it, and the interval holds every δ whose T(δ) is not above the same critical value: an interval leaves 0 out
exactly where p is under 5 %, and covers all candidates together at 95 %, so also the one that is chosen.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.statistics.paired import ALPHA, Z_POWER, null_sums
from eval.statistics.shares import AT_ONCE, SEED, t95

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLIPS = 20_000
ENUMERATED = 12  # with as many clusters that differ, or fewer, every flip is counted
NEAR = 1e-6  # statistics nearer than this are equal


@dataclass(frozen=True, slots=True)
class Units:
    """What is flipped as a whole: `sums` [units, candidates] of differences and `sizes` [units] in rows.

    Both are weighted, so that every dataset counts alike; `squares` is the sum of the rows' squared weights.
    `bound` is the largest difference that there can be: 1 of shares, none of a loss.
    """

    sums: "NDArray[np.float64]"
    sizes: "NDArray[np.float64]"
    squares: float
    rows_are_units: bool
    bound: float = 1.0

    @property
    def values(self) -> "NDArray[np.float64]":
        """Each candidate's mean difference."""
        found: NDArray[np.float64] = self.sums.sum(0) / self.sizes.sum()
        return found


@dataclass(frozen=True, slots=True)
class Estimate:
    """A candidate's mean difference, simultaneous 95 % limits and p, and the minimum detectable effect."""

    value: float
    low: float
    high: float
    p: float
    smallest: float


def units_of(
    steps: "Sequence[NDArray[np.float64]]",
    groups: Sequence[Sequence[Hashable] | None],
    counts: "Sequence[NDArray[np.float64]] | None" = None,
    bound: float = 1.0,
) -> Units:
    """Return the units of one or more datasets, each with its differences [rows, candidates] and clusters.

    `counts` [rows] is what each row counts where that is not 1: the tokens that its loss is of. `ValueError`
    where a dataset has no rows, or not as many clusters as rows.
    """
    import numpy as np

    sums, sizes, squares = [], [], 0.0
    ones = counts or [np.ones(len(own)) for own in steps]
    for own, keys, weights in zip(steps, groups, ones, strict=True):
        count = len(own)
        if count == 0 or (keys is not None and len(keys) != count):
            raise ValueError("expected the same rows, at least one, for both models and the clusters")
        weight = 1.0 if len(steps) == 1 else 1 / float(weights.sum())
        numbers: dict[Hashable, int] = {}
        places = np.array(
            [numbers.setdefault(key, len(numbers)) for key in (range(count) if keys is None else keys)]
        )
        total = np.zeros((len(numbers), own.shape[1]))
        np.add.at(total, places, own * weights[:, None])
        sums.append(weight * total)
        sizes.append(weight * np.bincount(places, weights))
        squares += float((weights**2).sum()) * weight**2
    alone = all(keys is None for keys in groups)
    return Units(np.concatenate(sums), np.concatenate(sizes), squares, alone, bound)


def estimates(units: Units) -> list[Estimate]:
    """Return what is known of each candidate of a family; of one on independent rows by mid-p McNemar.

    Of one candidate the null distribution is exact (of clusters without mid-p), of several it is 20,000 flips
    with the seed fixed, or all of them where few clusters differ.
    """
    import numpy as np

    total, power = np.abs(units.sums.sum(0)), np.sqrt((units.sums**2).sum(0))
    seen = np.round(np.divide(total, power, out=np.zeros_like(total), where=power > 0), 9)
    whole = units.bound == 1 and bool(np.all(units.sums == np.round(units.sums)))
    alone = len(seen) == 1 and whole
    return _estimated(units, *(_exact(units, float(power[0])) if alone else _flipped(units, power, seen)))


def _estimated(units: Units, p: "NDArray[np.float64]", reach: float) -> list[Estimate]:
    """Return the estimates by each candidate's p and the family's critical value."""
    import numpy as np

    power = np.sqrt((units.sums**2).sum(0))
    floor = math.sqrt(units.squares / len(units.sizes)) if units.bound == 1 else 0.0
    size = units.sizes.sum()
    limits = [_limits(units, column, reach) for column in range(units.sums.shape[1])]
    least = np.minimum(units.bound, (reach + Z_POWER) * np.maximum(power, floor) / size)
    return [
        Estimate(float(value), *limit, float(chance), float(small))
        for value, limit, chance, small in zip(units.values, limits, p, least, strict=True)
    ]


def sliced(
    steps: "NDArray[np.float64]", labels: Sequence[str], groups: Sequence[Hashable] | None
) -> dict[str, list[Estimate]]:
    """Return the estimates of each candidate on the rows of each label, as one family: slices and candidates.

    `steps` are the differences [rows, candidates] of shares. A cluster with rows in several slices is
    flipped whole in all of them.
    """
    import numpy as np

    names, candidates = list(dict.fromkeys(labels)), steps.shape[1]
    held = np.array([[label == name for name in names] for label in labels], dtype=float)
    whole = units_of([(held[:, :, None] * steps[:, None, :]).reshape(len(steps), -1)], [groups])
    sizes = units_of([held], [groups]).sums  # rows of each slice in each cluster
    total, power = np.abs(whole.sums.sum(0)), np.sqrt((whole.sums**2).sum(0))
    seen = np.round(np.divide(total, power, out=np.zeros_like(total), where=power > 0), 9)
    p, reach = _flipped(whole, power, seen)
    found = {}
    for place, name in enumerate(names):
        inside, columns = sizes[:, place] > 0, slice(place * candidates, (place + 1) * candidates)
        own = Units(
            whole.sums[inside, columns], sizes[inside, place], float(held[:, place].sum()), groups is None
        )
        found[name] = _estimated(own, p[columns], reach)
    return found


def shrunk(units: Units) -> "NDArray[np.float64]":
    """Return each candidate's difference drawn towards their mean by what chance would spread them.

    The factor is 1 - (expected spread of equal candidates) / (spread seen), 0 at least: empirical Bayes
    (Efron and Morris 1973), which takes the luck out of the figure of whichever is chosen.
    """
    import numpy as np

    values, size = units.values, units.sizes.sum()
    mean = values.mean()
    centred = units.sums - units.sums.mean(1, keepdims=True) - np.outer(units.sizes, values - mean)
    expected, spread = (centred**2).sum() / size**2, ((values - mean) ** 2).sum()
    factor = max(0.0, 1 - expected / spread) if spread else 0.0
    found: NDArray[np.float64] = mean + factor * (values - mean)
    return found


def _exact(units: Units, power: float) -> "tuple[NDArray[np.float64], float]":
    """Return p of a single candidate, and the critical value: t's, moved into the gap the test leaves."""
    import numpy as np

    nets = units.sums[:, 0]
    chances = null_sums([int(net) for net in nets if net])
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


def _flipped(
    units: Units, power: "NDArray[np.float64]", seen: "NDArray[np.float64]"
) -> "tuple[NDArray[np.float64], float]":
    """Return each candidate's p by the largest statistic of the family, and the critical value."""
    import numpy as np

    sums = units.sums[np.any(units.sums, axis=1)]
    if len(sums) <= ENUMERATED:
        largest = _largest(_every_sign(len(sums)), sums, power)
    else:
        generator = np.random.default_rng(SEED)
        draws = (_signs(generator, len(sums)) for _ in range(0, FLIPS, AT_ONCE))
        drawn = [_largest(signs, sums, power) for signs in draws]
        largest = np.append(np.concatenate(drawn), seen.max())  # what was seen is one of the flips
    largest = np.sort(largest)
    p = (len(largest) - np.searchsorted(largest, seen - NEAR)) / len(largest)
    rejected = math.ceil(ALPHA * len(largest)) - 1
    kept = float(largest[len(largest) - 1 - rejected])
    above = np.concatenate([largest, seen])
    above = above[above > kept + 2 * NEAR]
    return p, _within(kept + NEAR, float(above.min(initial=math.inf)), units)


def _every_sign(count: int) -> "NDArray[np.float32]":
    import numpy as np

    return (1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)).astype(np.float32)


def _signs(generator: "np.random.Generator", count: int) -> "NDArray[np.float32]":
    """Return random signs [500, count]."""
    import numpy as np

    bits = np.frombuffer(generator.bytes(AT_ONCE * (count // 8 + 1)), dtype=np.uint8)
    drawn = np.unpackbits(bits.reshape(AT_ONCE, -1), axis=1, count=count).astype(np.float32)
    return 2 * drawn - 1


def _largest(
    signs: "NDArray[np.float32]", sums: "NDArray[np.float64]", power: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """Return the family's largest statistic under each row of signs."""
    import numpy as np

    flipped = np.abs(signs @ sums.astype(np.float32)).astype(np.float64)
    found: NDArray[np.float64] = np.round(flipped / np.where(power > 0, power, 1.0), 9).max(axis=1)
    return found


def _within(kept: float, above: float, units: Units) -> float:
    """Return the 95 % point of t(G - 1) where it lies between the two attained values, else the nearest."""
    size = float(units.sizes.sum() ** 2 / (units.sizes**2).sum())  # clusters, by their weights
    freedom = max(1.0, size - 1)
    t = t95(freedom)
    wanted = t * math.sqrt(size / (freedom + t * t))
    return max(kept + NEAR, wanted if wanted < above - NEAR else (kept + above) / 2)


def _limits(units: Units, column: int, reach: float) -> tuple[float, float]:
    """Return the differences that T does not reject, within the bound: the roots of a quadratic.

    Of shares the variance at δ is no smaller than |δ|(1 - |δ|), that of the fewest rows that can differ: so
    an interval is no point where two models never differ, and Wilson's where they differ one way only.
    """
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
