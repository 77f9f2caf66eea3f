"""Macro-F1 with its interval, and the differences of several models' macro-F1 on the same rows.

Macro-F1 is not a mean over rows. The jackknife estimates its error: it leaves out each row, or each cluster,
in turn. A rare label makes that error too small: if the only two examples of a label are both correct, no row
that is left out changes the label's F1.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneyard.eval.statistics.estimate import Estimate
from tuneyard.eval.statistics.family import Units
from tuneyard.eval.statistics.rates import Z95, by_cluster, wilson
from tuneyard.eval.statistics.spread import Floats, spread_of, student_deviate

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Counts by unit (a cluster, or a row) that macro-F1 is computed from.

    `hits` [units, labels] counts the correct rows of each label. `mentions` [units, labels] counts how often
    a label was expected or predicted: a hit is both, and so counts twice. `sizes` [units] counts the rows.
    """

    hits: Counts
    mentions: Counts
    sizes: Counts


def count_labels(
    gold: Sequence[str], predicted: Sequence[str], groups: Sequence[Hashable] | None = None
) -> LabelCounts:
    """Count hits and mentions of each label of `gold` by unit; the labels are sorted."""
    labels = {label: place for place, label in enumerate(sorted(set(gold)))}
    hits = np.zeros((len(gold), len(labels)), dtype=np.int64)
    mentions = np.zeros_like(hits)
    for row, (expected, answer) in enumerate(zip(gold, predicted, strict=True)):
        hits[row, labels[expected]] += expected == answer
        mentions[row, labels[expected]] += 1
        if answer in labels:
            mentions[row, labels[answer]] += 1
    sizes = by_cluster(np.ones(len(gold), dtype=np.int64), groups)
    return LabelCounts(by_cluster(hits, groups), by_cluster(mentions, groups), sizes)


def macro_f1(counts: LabelCounts) -> Estimate:
    """Macro-F1 with the wider of two intervals on each side.

    The first is Wilson's, for a share with the jackknife's error. The second combines the intervals of the
    labels (Zou, Huang and Zhang 2009). Each of those is Wilson's, of the rows in which the label was expected
    or predicted. The second stays wide if a label is rare.
    """
    each = _label_f1s(counts.hits.sum(axis=0), counts.mentions.sum(axis=0))
    value = float(each.mean())
    if len(counts.sizes) == 1:
        return Estimate(value, 0.0, 1.0)
    spread = spread_of(_linear_sums(counts)[:, None], counts.sizes.astype(float)[:, None])
    reach = float(student_deviate(Z95, spread.freedom)[0])
    error = float(spread.error[0])
    rows = float(len(counts.sizes))
    if error > 0 and 0 < value < 1:
        rows = value * (1 - value) / error**2
    low, high = wilson(value * rows, rows, reach)
    labels_low, labels_high = _combined(counts, each, reach)
    return Estimate(value, max(0.0, min(low, labels_low)), min(1.0, max(high, labels_high)))


def f1_differences(models: Sequence[LabelCounts], pairs: Sequence[tuple[int, int]]) -> Units:
    """Units of a family of differences in macro-F1; `pairs` are places of models, (old, new)."""
    sums = [_linear_sums(counts) for counts in models]
    steps = np.stack([sums[new] - sums[old] for old, new in pairs], axis=1)
    sizes = np.broadcast_to(models[0].sizes.astype(float)[:, None], steps.shape)
    return Units(steps, sizes, sizes.sum(axis=0), rows_are_units=False)


def _label_f1s(hits: Counts, mentions: Counts) -> Floats:
    """F1 of each label, nan for a label that is neither expected nor predicted."""
    return np.asarray(np.divide(2 * hits, mentions, out=np.full(hits.shape, np.nan), where=mentions > 0))


def _linear_sums(counts: LabelCounts) -> Floats:
    """Sums [units] that make macro-F1 a mean over rows.

    Their mean over all rows is macro-F1. Their residuals are the changes of macro-F1 without each unit.
    """
    hits, mentions = counts.hits.sum(axis=0), counts.mentions.sum(axis=0)
    value = float(_label_f1s(hits, mentions).mean())
    left = _label_f1s(hits - counts.hits, mentions - counts.mentions)
    has_f1 = ~np.isnan(left)
    others = np.divide(
        np.where(has_f1, left, 0).sum(axis=1),
        has_f1.sum(axis=1),
        out=np.full(len(left), value),
        where=has_f1.any(axis=1),
    )
    size = counts.sizes.sum()
    residuals = (value - others) * (size - counts.sizes)
    residuals = residuals - counts.sizes / size * residuals.sum()
    return np.asarray(residuals + value * counts.sizes)


def _combined(counts: LabelCounts, each: Floats, reach: float) -> tuple[float, float]:
    """Limits of the mean of the labels' F1, combined from the limits of each label.

    The correlation of the labels' errors is that of their F1 when units are left out.
    """
    hits, mentions = counts.hits.sum(axis=0), counts.mentions.sum(axis=0)
    left = _label_f1s(hits - counts.hits, mentions - counts.mentions)
    moved = np.where(np.isnan(left), 0.0, each - left)
    products = moved.T @ moved
    errors = np.sqrt(np.diag(products))
    scale = np.outer(errors, errors)
    correlations = np.divide(products, scale, out=np.eye(len(each)), where=scale > 0)
    limits = np.array([_label_limits(counts, label, reach) for label in range(len(each))])
    distances = limits - each[:, None]
    below, above = (math.sqrt(max(0.0, float(side @ correlations @ side))) for side in distances.T)
    return float(each.mean()) - below / len(each), float(each.mean()) + above / len(each)


def _label_limits(counts: LabelCounts, label: int, reach: float) -> tuple[float, float]:
    """Limits of a label's F1.

    Among the rows in which the label was expected or predicted, the share of hits is the Jaccard index J, and
    F1 = 2J / (1 + J).
    """
    hits = counts.hits[:, label]
    either = counts.mentions[:, label] - hits
    rows, correct = int(either.sum()), int(hits.sum())
    share = correct / rows
    left = np.divide(correct - hits, rows - either, out=np.full(len(hits), share), where=rows > either)
    squares = float(((share - left) ** 2).sum())
    effective = float((either > 0).sum())
    if squares > 0 and 0 < share < 1:
        effective = min(float(rows), share * (1 - share) / squares)
    low, high = wilson(share * effective, effective, reach)
    return 2 * low / (1 + low), 2 * high / (1 + high)
