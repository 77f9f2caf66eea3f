"""Shares with their uncertainty: Wilson intervals, standard errors, and both by cluster.

A row is one question; rows that share a group (a premise) are not independent, so that every
measure here has a form by cluster. Numbers are shares (0-1), never percentages.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tuneyard.eval.statistics.spread import satterthwaite, spread_of, student_deviate

DRAWS = 10_000
Number = TypeVar("Number", bound=np.generic)

Cells = NDArray[np.int64]
AT_ONCE = 500  # draws whose counts of every kind of group are in memory at once
SEED = 42
Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a share (Wilson 1927); `n` may be an effective sample size.
    `ValueError` where there is no row, or not 0 <= successes <= n."""
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"found {successes} of {n}, expected 0 <= successes <= n and n > 0")
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def critical(rows: int, groups: Sequence[Hashable] | None) -> float:
    """Return how many standard errors a 95 % limit is away: Student's deviate by the number of clusters and
    their sizes, the normal one without clusters."""
    sizes = by_cluster(np.ones(rows), groups)
    if len(sizes) == rows:
        return Z95
    return float(student_deviate(Z95, satterthwaite(sizes[:, None] / rows))[0])


def clustered_stderr(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> float:
    """Return the standard error of a mean whose rows come in groups (`spread`). Of equal groups it is
    sqrt(G/(G-1) · Σ_g (Σ_{i∈g} (x_i - mean))²) / n (Miller 2024, arXiv:2411.00640, §2.2): with a row in each
    group, or without groups, that of independent rows, for a share sqrt(p(1-p)/(n-1)). 0 for one group;
    `ValueError` without rows."""
    sums = by_cluster(np.asarray(values, dtype=float), groups)
    sizes = by_cluster(np.ones(len(values)), groups)
    if len(sums) == 1:
        return 0.0
    return float(spread_of(sums[:, None], sizes[:, None]).error[0])


def by_cluster(values: NDArray[Number], groups: Sequence[Hashable] | None) -> NDArray[Number]:
    """Return the sums over the rows of each group [groups, …], by first row; without groups each row is one.
    `ValueError` where the lengths differ or there are no rows."""
    keys = range(len(values)) if groups is None else groups
    if len(values) != len(keys) or not len(keys):
        raise ValueError(f"found {len(values)} values and {len(keys)} groups, expected as many, one at least")
    numbers: dict[Hashable, int] = {}
    places = [numbers.setdefault(key, len(numbers)) for key in keys]
    sums = np.zeros((len(numbers), *values.shape[1:]), dtype=values.dtype)
    np.add.at(sums, places, values)
    return sums


def design_effect(values: Sequence[float], groups: Sequence[Hashable] | None) -> float:
    """Return the variance of a mean by group over that of independent rows, 1 at least. Few groups can look
    even by luck: an interval is never narrowed for that. Values that are all the same do not show how similar
    a group's rows are: each group counts as one row."""
    if groups is None:
        return 1.0
    plain = clustered_stderr(values)
    if not plain:
        return len(values) / len(set(groups))
    return max(1.0, (clustered_stderr(values, groups) / plain) ** 2)


def resample(cells: Cells) -> Cells:
    """Return the summed cells [10,000, cells] of bootstrap samples of groups, the seed fixed. Groups with the
    same counts are alike: drawing G with replacement is one multinomial draw over distinct rows."""
    kinds, counts = np.unique(cells, axis=0, return_counts=True)
    total = int(counts.sum())
    generator = np.random.default_rng(SEED)
    draws = (generator.multinomial(total, counts / total, size=AT_ONCE) for _ in range(0, DRAWS, AT_ONCE))
    return np.concatenate([drawn @ kinds for drawn in draws])


Rows = Sequence[Mapping[str, object]]


def groups_of(rows: Rows) -> list[str] | None:
    """Return the cluster of each row (in older files its `group`), None unless every row has one."""
    found = [group_of(row) for row in rows]
    return [group for group in found if group is not None] if None not in found else None


def group_of(row: Mapping[str, object]) -> str | None:
    """Return the cluster that a row of predictions.jsonl or of another tool's log names, else None."""
    named = row.get("cluster", row.get("group"))
    return None if named is None else str(named)


def hits(rows: Rows) -> list[bool]:
    """Return of each row whether it was predicted what was expected."""
    return [row["expected_output"] == row["predicted_output"] for row in rows]


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure in any unit over `n` rows with its standard error and 95 % limits."""

    value: float
    n: int
    stderr: float
    ci95: tuple[float, float]


def rate_of(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> Measured:
    """Return the mean of values between 0 and 1 (flags: their share) with Wilson's interval.

    Rows that share a group are not independent: error and interval are then by group, with Student's t for z.
    For values other than flags the interval is on the safe side: no mean varies more than a share of its
    size. `ValueError` where there are none.
    """
    error, effect = clustered_stderr(values), design_effect(values, groups)
    n, mean = len(values), sum(values) / len(values)
    reach = critical(n, groups)
    return Measured(mean, n, error * math.sqrt(effect), wilson(mean * n / effect, n / effect, reach))


def rate(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> dict[str, object]:
    """Return `rate_of` as plain JSON values."""
    found = asdict(rate_of(values, groups))
    return {**found, "ci95": list(found["ci95"])}


def accuracy_of(right: Sequence[bool], groups: Sequence[Hashable] | None = None) -> dict[str, object]:
    """Return the share of correct rows as results.json has it: `accuracy`, `n`, `stderr`, `ci95`."""
    found = rate(right, groups)
    return {"accuracy": found.pop("value"), **found}


def ratio(
    tops: Sequence[float], bottoms: Sequence[float], groups: Sequence[Hashable] | None = None
) -> Measured:
    """Return Σtops / Σbottoms over rows that may come in groups; `ValueError` where the bottoms sum to
    nothing. The error is that of a ratio estimator (Cochran 1977, §6.3), linearised and by group; the limits
    allow for skewed values and for groups of any size (`spread`)."""
    total = sum(bottoms)
    if total <= 0:
        raise ValueError(f"found a sum of {total}, expected more than 0")
    above = by_cluster(np.asarray(tops, dtype=float), groups)
    below = by_cluster(np.asarray(bottoms, dtype=float), groups)
    spread = spread_of(above[:, None], below[:, None])
    if math.isinf(spread.error[0]):  # a single group, or one that has all the weight
        value = float(spread.value[0])
        return Measured(value, len(tops), 0.0, (value, value))
    limits = spread.limits(0, float(student_deviate(Z95, spread.freedom)[0]))
    return Measured(float(spread.value[0]), len(tops), float(spread.error[0]), limits)


def mean_of(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> Measured:
    """Return the mean of values in any unit, with the error and limits of `ratio`."""
    return ratio(values, [1] * len(values), groups)


def average(figures: Sequence[Measured]) -> Measured:
    """Return the unweighted mean of independent figures; `ValueError` where there is none. The limits combine
    the figures' own (Zou, Huang and Zhang 2009, A note on confidence interval estimation for a linear
    function of binomial proportions): they are no point where every share is 0 or 1."""
    if not figures:
        raise ValueError("no figures")
    count, n = len(figures), sum(one.n for one in figures)
    value = math.fsum(one.value for one in figures) / count
    below, above = (math.hypot(*(one.value - one.ci95[side] for one in figures)) / count for side in (0, 1))
    error = math.hypot(*(one.stderr for one in figures)) / count
    return Measured(value, n, error, (value - below, value + above))
