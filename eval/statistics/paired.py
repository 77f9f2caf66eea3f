"""Two systems on the same rows: exact tests, the difference with its interval, and what n could show.

All rests on the rows where exactly one of the two is right: `better` counts those that the new
system gains, `worse` those that it loses, and discordance is their share of all rows.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.statistics.shares import DRAWS, SEED, Z95, design_effect, f1_means, resample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALPHA = 0.05
Z_POWER = 0.8416212335729143  # the normal distribution's 80 % point
FLIPS = 100_000


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of `new` minus that of `old` on the same `n` rows, as shares (-1 to 1).

    `design_effect` is the variance by cluster over that of independent rows (1 without groups);
    `nets` holds, for each group (or row) in which they differ, gains minus losses.
    """

    n: int
    better: int
    worse: int
    value: float
    low: float
    high: float
    p: float
    design_effect: float
    nets: tuple[int, ...]

    @property
    def discordance(self) -> float:
        """The share of rows on which exactly one of the two is right."""
        return (self.better + self.worse) / self.n


def difference(
    old: Sequence[bool], new: Sequence[bool], groups: Sequence[Hashable] | None = None
) -> Difference:
    """Compare two systems' right answers row by row.

    Independent rows: exact McNemar, and Bonett and Price's interval. Rows in groups: the exact
    sign-flip test over groups, and a percentile bootstrap that draws whole groups.
    """
    n = len(old)
    if n == 0 or len(new) != n or (groups is not None and len(groups) != n):
        raise ValueError("expected the same rows, at least one, for both systems and the groups")
    steps = [int(b) - int(a) for a, b in zip(old, new, strict=True)]
    better, worse = steps.count(1), steps.count(-1)
    value = (better - worse) / n
    if groups is None:
        low, high = bonett_price(better, worse, n)
        nets = tuple(step for step in steps if step)
        return Difference(n, better, worse, value, low, high, mcnemar(better, worse), 1.0, nets)
    by_group: defaultdict[Hashable, list[int]] = defaultdict(lambda: [0, 0])
    for step, group in zip(steps, groups, strict=True):
        by_group[group][0] += step
        by_group[group][1] += 1
    low, high = _bootstrap(list(by_group.values()))
    nets = tuple(net for net, _ in by_group.values() if net)
    effect = design_effect(steps, groups)
    return Difference(n, better, worse, value, low, high, sign_flip(nets), effect, nets)


@dataclass(frozen=True, slots=True)
class F1Difference:
    """Macro-F1 of `new` minus that of `old` on the same rows (-1 to 1), 95 % limits, and a two-sided p."""

    value: float
    low: float
    high: float
    p: float


def f1_difference(old: "NDArray[np.int64]", new: "NDArray[np.int64]") -> F1Difference:
    """Compare two systems' macro-F1 by their `label_cells` of the same groups.

    A percentile bootstrap over groups, and a randomisation test that swaps the two systems in whole
    groups (Yeh 2000): 10,000 draws each, seed fixed, so that p is never under 1e-4.
    """
    import numpy as np

    width = old.shape[1]
    drawn = resample(np.hstack([old, new]))
    low, high = np.quantile(f1_means(drawn[:, width:]) - f1_means(drawn[:, :width]), (0.025, 0.975))
    kinds, counts = np.unique(new - old, axis=0, return_counts=True)
    swapped = np.random.default_rng(SEED).binomial(counts, 0.5, size=(DRAWS, len(counts))) @ kinds
    both = f1_means(new.sum(0) - swapped) - f1_means(old.sum(0) + swapped)
    value = float(f1_means(new.sum(0, keepdims=True))[0] - f1_means(old.sum(0, keepdims=True))[0])
    p = float((1 + (np.abs(both) >= abs(value) - 1e-12).sum()) / (1 + DRAWS))
    return F1Difference(value, float(low), float(high), p)


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
    import numpy as np

    chances = _null(nets)
    centre = len(chances) // 2
    far = np.abs(np.arange(len(chances)) - centre) >= abs(sum(nets))
    return min(1.0, float(chances[far].sum()))


def mean_sign_flip(nets: Sequence[Sequence[int]], rows: Sequence[int]) -> float:
    """Return the two-sided p for the mean over sets of the differences, sum(nets)/rows of each.

    Each set's sum is drawn from its exact null distribution: 100,000 draws, seed fixed, so that p
    is never under 1e-5 (Phipson and Smyth 2010 for the added one).
    """
    import numpy as np

    generator = np.random.default_rng(SEED)
    drawn = np.zeros(FLIPS)
    for own, n in zip(nets, rows, strict=True):
        chances = _null(own)
        support = (np.arange(len(chances)) - len(chances) // 2) / n
        drawn += generator.choice(support, size=FLIPS, p=chances / chances.sum())
    seen = abs(sum(sum(own) / n for own, n in zip(nets, rows, strict=True)))
    return float((1 + (np.abs(drawn) >= seen - 1e-12).sum()) / (1 + FLIPS))


def _null(nets: Sequence[int]) -> "NDArray[np.float64]":
    """Chances of each sum from -Σ|net| to Σ|net| when every net's sign is a fair coin."""
    import numpy as np

    chances = np.ones(1)
    for size, count in Counter(abs(net) for net in nets).items():
        heads = np.arange(count + 1)
        logs = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in heads]
        spread = np.zeros(2 * size * count + 1)
        spread[:: 2 * size] = np.exp(np.array(logs) - count * math.log(2))
        chances = np.convolve(chances, spread)
    return chances


def bonett_price(better: int, worse: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a paired difference (Bonett and Price 2012, Laplace-adjusted Wald).

    Keeps its coverage in small samples, where the plain Wald interval does not, and is no point
    where the two never differ (doi:10.3102/1076998611411915).
    """
    gain, loss = (better + 1) / (n + 2), (worse + 1) / (n + 2)
    half = Z95 * math.sqrt((gain + loss - (gain - loss) ** 2) / (n + 2))
    return max(-1.0, gain - loss - half), min(1.0, gain - loss + half)


def _bootstrap(groups: Sequence[Sequence[int]]) -> tuple[float, float]:
    """The 95 % percentile interval of Σ net / Σ rows over resampled groups of [net, rows].

    One row gained and one lost are added, as Bonett and Price do, so that it is no point where the
    two systems never differ; with one row in each group it is near their interval.
    """
    if len(groups) < 2:  # one group says nothing of how groups differ
        return -1.0, 1.0
    import numpy as np

    sums = resample([*groups, [1, 1], [-1, 1]])
    low, high = np.quantile(sums[:, 0] / sums[:, 1], (0.025, 0.975))
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values (Holm 1979), in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def critical(tests: int = 1) -> float:
    """Return the normal point that the first of `tests` comparisons must pass (Holm's first step)."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(1 - ALPHA / (2 * tests))


def rows_needed(effect: float, discordance: float, tests: int = 1) -> float:
    """Return the rows at which McNemar's test finds a difference of `effect` with 80 % power.

    n = (z_a·√d + z_b·√(d - effect²))² / effect² (Connor 1987, doi:10.2307/2531961), d the
    discordance, which is no smaller than the effect. Infinite for an effect of 0.
    """
    if effect == 0:
        return math.inf
    spread = max(discordance, abs(effect))
    reach = critical(tests) * math.sqrt(spread) + Z_POWER * math.sqrt(max(0.0, spread - effect**2))
    return (reach / effect) ** 2


def smallest_difference(n: float, discordance: float, tests: int = 1) -> float:
    """Return the least difference that `n` rows show with 80 % power: `rows_needed` solved for it.

    `n` may be an effective sample size (rows over the design effect). 1 where even the greatest
    difference could not be shown.
    """
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if rows_needed(middle, discordance, tests) <= n else (middle, high)
    return high
