"""Mean and spread of sampled answers that were generated several times, each time with other seeds.

One figure of sampled answers depends on the draw. Over several draws the mean depends on it less, and the
spread shows how much. OUT/MODEL/DATASET contains the first repeat, its folder `repeats` the others.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from tuneyard.eval.scoring.task import Figure
from tuneyard.eval.statistics.rates import Z95, wilson

Repeats = Mapping[str, Any]
"""`repeats` of results.json: `n`, and under `figures` the values, mean, sd and ci95 of each figure."""


def repeated(runs: Sequence[Mapping[str, Figure]]) -> dict[str, object]:
    """Summarise the figures that all repeats have: mean, 95 % interval and all values.

    `runs` are the figures of each repeat by name. `sd` is the standard deviation between repeats.
    """
    summaries = {}
    for name in runs[0]:
        if not all(name in run for run in runs):
            continue
        figures = [run[name] for run in runs]
        values = [figure.value for figure in figures]
        summaries[name] = {
            "mean": fmean(values),
            "sd": stdev(values),
            "ci95": list(_interval(figures)),
            "values": values,
        }
    return {"n": len(runs), "figures": summaries}


def repeats_lines(repeats: Repeats) -> list[str]:
    """One line a figure: the mean of the repeats, its interval and their standard deviation."""
    lines = []
    for name, summary in repeats["figures"].items():
        low, high = summary["ci95"]
        lines.append(
            f"{repeats['n']} repeats: {name} mean {summary['mean']:.4g} [{low:.4g}, {high:.4g}], "
            f"standard deviation {summary['sd']:.3g}"
        )
    return lines


def _interval(figures: Sequence[Figure]) -> tuple[float, float]:
    """95 % interval of the mean over repeats, for other rows and other draws.

    A single run's variance s² is that of rows and of draws together, and sd² is that of draws alone. Over R
    repeats the draws count 1/R: s² - sd² (1 - 1/R), and no less than sd²/R. For a share the interval is
    Wilson's, with as many rows as give this variance.
    """
    count = len(figures)
    values = [figure.value for figure in figures]
    mean, between = fmean(values), stdev(values) ** 2
    single = fmean([((figure.ci95[1] - figure.ci95[0]) / (2 * Z95)) ** 2 for figure in figures])
    variance = max(single - between * (1 - 1 / count), between / count)
    if not figures[0].share or not math.isfinite(variance):
        half = Z95 * math.sqrt(variance)
        return mean - half, mean + half
    if not 0 < mean < 1 or variance == 0:
        return figures[0].ci95
    rows = mean * (1 - mean) / variance
    return wilson(mean * rows, rows)
