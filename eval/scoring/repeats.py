"""Mean and spread of sampled answers that were generated several times, each time with other seeds.

One figure of sampled answers depends on the draw. Over several draws the mean depends on it less, and the
spread shows how much. OUT/MODEL/DATASET contains the first repeat, its folder `repeats` the others.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from tuneyard.core.language.translation import tr
from tuneyard.eval.scoring.task import Figure, share_line
from tuneyard.eval.statistics.estimate import Mean
from tuneyard.eval.statistics.rates import Z95, average

Repeats = Mapping[str, Any]
"""`repeats` of results.json: `n`, and under `figures` the values, mean, sd and ci95 of each figure."""
SAME = 1e-6  # relative difference of two figures that only the order of additions makes


def repeated(runs: Sequence[Mapping[str, Figure]]) -> dict[str, object]:
    """Summarise the figures that all repeats have: mean, 95 % interval and all values.

    `runs` are the figures of each repeat by name. `sd` is the standard deviation between repeats.
    """
    summaries = {}
    for name, figure in runs[0].items():
        if not all(name in run for run in runs):
            continue
        figures = [run[name] for run in runs]
        values = [each.value for each in figures]
        summaries[name] = {
            "mean": fmean(values),
            "sd": stdev(values),
            "ci95": list(_interval(figures)),
            "values": values,
            "share": figure.share,
        }
    return {"n": len(runs), "figures": summaries}


def repeats_lines(repeats: Repeats) -> list[str]:
    """One line a figure: the mean of the repeats, its interval and their standard deviation."""
    return [_line(repeats["n"], name, summary) for name, summary in repeats["figures"].items()]


def _line(count: int, name: str, summary: Mapping[str, Any]) -> str:
    low, high = summary["ci95"]
    mean = f"{summary['mean']:.4g} [{low:.4g}, {high:.4g}]"
    deviation = f"{summary['sd']:.3g}"
    if summary["share"]:
        mean = share_line({"value": summary["mean"], "ci95": summary["ci95"]})
        deviation = f"{summary['sd']:.1%}"
    line = "{count} repeats: {figure} mean {mean}, standard deviation {deviation}"
    return tr(line, count=count, figure=name, mean=mean, deviation=deviation)


def _interval(figures: Sequence[Figure]) -> tuple[float, float]:
    """95 % interval of the mean over repeats, for other rows and other draws.

    The rows are the same in each repeat, the draws are others. So two repeats correlate by the share of the
    rows in the variance of a single run: 1 - sd² / s². A figure that the draws do not change has the interval
    of a single run.
    """
    first = figures[0]
    if all(_is_same(figure, first) for figure in figures):
        return first.ci95
    means = []
    for figure in figures:
        low, high = figure.ci95
        means.append(Mean(figure.value, low, high, figure.n, (high - low) / (2 * Z95)))
    single = fmean([mean.stderr**2 for mean in means])
    between = stdev([figure.value for figure in figures]) ** 2
    correlation = 0.0
    if between < single:
        correlation = 1 - between / single
    return average(means, correlation).ci95


def _is_same(figure: Figure, other: Figure) -> bool:
    """True if two figures and their limits are the same number."""
    pairs = zip((figure.value, *figure.ci95), (other.value, *other.ci95), strict=True)
    return all(math.isclose(one, two, rel_tol=SAME, abs_tol=SAME) for one, two in pairs)
