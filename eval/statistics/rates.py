"""Means and shares with their uncertainty: Wilson intervals, standard errors, both by cluster; calibration.

A row is one question. Rows that share a group (a premise) are not independent. Every figure therefore has a
form by cluster. Shares are 0 to 1, never percentages.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tuneyard.core.training.metrics import SHARE, Metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Number = TypeVar("Number", bound=np.generic)
    Cells = NDArray[np.int64]


Groups = Sequence[Hashable] | None
"""The group of each row, such as its cluster. None: all rows are independent."""
LOSS = "eval_loss"
DRAWS = 10_000
BINS = 10  # of confidence

AT_ONCE = 500  # draws whose counts of every kind of group are in memory at once
SEED = 42
Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % limits, in any unit. Shares are 0 to 1, differences of shares -1 to 1."""

    value: float
    low: float
    high: float

    @property
    def ci95(self) -> tuple[float, float]:
        """Lower and upper limit."""
        return self.low, self.high

    @property
    def with_limits(self) -> tuple[float, float, float]:
        """The value, its lower and its upper limit."""
        return self.value, self.low, self.high


@dataclass(frozen=True, slots=True)
class Mean(Estimate):
    """A mean, a share or a ratio over `n` rows, with its standard error."""

    n: int
    stderr: float

    def as_json(self) -> dict[str, object]:
        """Plain JSON values, as results.json has them. One row or cluster has neither error nor limits."""
        figure = {"value": self.value, "n": self.n, "stderr": self.stderr, "ci95": [self.low, self.high]}
        if math.isinf(self.stderr):
            figure |= {"stderr": None, "ci95": None}
        return figure


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927); `n` may be an effective sample size.

    The product of the limits is known, too. A limit from it, without a difference of nearly equal numbers, is
    right near 0: the lower one of a tiny share is above 0.
    """
    share = successes / n
    rest = 1 - share
    width = z * z / (2 * n) + z * math.sqrt(share * rest / n + z * z / (4 * n * n))
    return share**2 / (share + width), 1 - rest**2 / (rest + width)


def by_cluster(values: "NDArray[Number]", groups: Groups) -> "NDArray[Number]":
    """Sums over the rows of each group [groups, …], in the order of first rows. None: a row is a group."""
    import numpy as np

    if groups is None:
        return values
    numbers: dict[Hashable, int] = {}
    places = [numbers.setdefault(group, len(numbers)) for group in groups]
    sums = np.zeros((len(numbers), *values.shape[1:]), dtype=values.dtype)
    np.add.at(sums, places, values)
    return sums


def resample(cells: "Cells", draws: int = DRAWS, seed: int = SEED) -> "Cells":
    """Summed cells [draws, cells] of bootstrap samples of groups.

    Groups with the same counts are alike: drawing G with replacement is one multinomial draw over distinct
    rows.
    """
    import numpy as np

    kinds, counts = np.unique(cells, axis=0, return_counts=True)
    total = int(counts.sum())
    generator = np.random.default_rng(seed)
    samples = (
        generator.multinomial(total, counts / total, size=AT_ONCE) for _unused in range(0, draws, AT_ONCE)
    )
    return np.concatenate([sample @ kinds for sample in samples])


Row = Mapping[str, Any]
"""A line of predictions.jsonl, or of another tool's log."""
Rows = Sequence[Row]


def groups_of(rows: Rows) -> list[str] | None:
    """Cluster of each row (in older files its `group`), None unless every row has one."""
    groups = []
    for row in rows:
        group = group_of(row)
        if group is None:
            return None
        groups.append(group)
    return groups


def group_of(row: Row) -> str | None:
    """Cluster of a row of predictions.jsonl or of another tool's log."""
    group = row.get("cluster", row.get("group"))
    if group is None:
        return None
    return str(group)


def is_answered(row: Row) -> bool:
    """False for a row whose prompt did not fit the context, or that the server refused."""
    return "too_long" not in row and "refused" not in row


def hits(rows: Rows) -> list[bool]:
    """True for each row whose prediction equals the expected answer."""
    return [row["expected_output"] == row["predicted_output"] for row in rows]


def rate_of(values: Sequence[float], groups: Groups = None) -> Mean:
    """Mean of values between 0 and 1 (flags: their share) with Wilson's interval.

    Rows that share a group are not independent: error and interval are then by group, with Student's t for z.
    The interval takes as many rows as would give the same error, but groups with equal means by luck never
    make it narrower. If all values are equal, they do not show how similar the rows of a group are: each
    group counts as one row. For values other than flags the interval is conservative: flags have the largest
    variance for a mean.
    """
    import numpy as np

    from tuneyard.eval.statistics.spread import spread_of, student_deviate

    n = len(values)
    column, ones = np.array(values, dtype=float)[:, None], np.ones((n, 1))
    error = float(np.nan_to_num(spread_of(column, ones).error[0], posinf=0.0))  # of a single row: 0
    effect, reach = 1.0, Z95
    if groups is not None and len(set(groups)) < n:
        spread = spread_of(column, ones, groups)
        reach = float(student_deviate(Z95, spread.freedom)[0])
        effect = n / len(set(groups))
        if error:
            effect = max(1.0, float(np.nan_to_num(spread.error[0], posinf=0.0) / error) ** 2)
    mean = sum(values) / n
    low, high = wilson(mean * n / effect, n / effect, reach)
    return Mean(mean, low, high, n, error * math.sqrt(effect))


def share_of(flags: Sequence[bool], rows: Rows) -> dict[str, object] | None:
    """Share of rows with a true flag as results.json has it. None without rows."""
    if not rows:
        return None
    return rate_of(flags, groups_of(rows)).as_json()


def ratio(tops: Sequence[float], bottoms: Sequence[float], groups: Groups = None) -> Mean:
    """Σtops / Σbottoms over rows that may come in groups.

    The error is that of a ratio estimator (Cochran 1977, §6.3), linearised and by group. The limits allow for
    skewed values and for groups of any size (`spread`). A single group, or one that has all the weight, has
    an infinite error.
    """
    import numpy as np

    from tuneyard.eval.statistics.spread import spread_of, student_deviate

    sums, sizes = np.array([tops, bottoms], dtype=float)[:, :, None]
    spread = spread_of(sums, sizes, groups)
    low, high = spread.limits(0, float(student_deviate(Z95, spread.freedom)[0]))
    return Mean(float(spread.value[0]), low, high, len(tops), float(spread.error[0]))


def loss_of(losses: Sequence[float], tokens: Sequence[float], groups: Groups = None) -> Mean:
    """Loss per token, with the error and limits of `ratio`.

    No loss is below 0. If the lower limit is, there are too few rows for an interval: the error is infinite.
    """
    loss = ratio(losses, tokens, groups)
    if loss.low < 0:
        return Mean(loss.value, -math.inf, math.inf, loss.n, math.inf)
    return loss


def mean_of(values: Sequence[float], groups: Groups = None) -> Mean:
    """Mean of values in any unit, with the error and limits of `ratio`."""
    return ratio(values, [1] * len(values), groups)


def metric_mean(
    metric: Metric,
    values: Sequence[float],
    groups: Groups,
    weights: Sequence[float],
) -> Mean:
    """Mean of a metric's values with its interval: Wilson's for a share, otherwise that of `ratio`.

    `weights` is the weight of each row: the number of tokens of its loss.
    """
    if metric.unit == SHARE:
        return rate_of(values, groups)
    weighted = [value * weight for value, weight in zip(values, weights, strict=True)]
    if metric.name == LOSS:
        return loss_of(weighted, weights, groups)
    return ratio(weighted, weights, groups)


def average(figures: Sequence[Mean]) -> Mean:
    """Unweighted mean of independent figures.

    The limits combine the figures' own (Zou, Huang and Zhang 2009, A note on confidence interval estimation
    for a linear function of binomial proportions). So the interval has a width even if every share is 0 or 1,
    and never leaves the range of the figures.
    """
    count = len(figures)
    value = math.fsum(figure.value for figure in figures) / count
    below = math.hypot(*(figure.value - figure.low for figure in figures)) / count
    above = math.hypot(*(figure.high - figure.value for figure in figures)) / count
    error = math.hypot(*(figure.stderr for figure in figures)) / count
    return Mean(value, value - below, value + above, sum(figure.n for figure in figures), error)


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
