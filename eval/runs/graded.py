"""Models compared in any metric that each example has a value in: the same rows, the same procedure.

A figure is the mean of the values, or Σ weight · value / Σ weight where rows count by their tokens; its
limits are those of a ratio (Cochran 1977, §6.3), by cluster. Differences are judged as those of accuracy
are: p and limits of a family together, clusters flipped whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import RequestError
from core.metrics import Metric
from eval.runs.comparison import MANY, pairs_with
from eval.runs.judgement import MEAN, ScoredRun
from eval.statistics.family import Estimate, estimates, shrunk, units_of
from eval.statistics.rates import Measured, average, rate_of, ratio


@dataclass(frozen=True, slots=True)
class GradedTest:
    """`model` minus `against` in the metric's unit, and how many examples are better or worse by it.

    `shrunk` is the difference drawn towards the candidates' mean, of three or more against the base.
    """

    model: str
    against: str
    found: Estimate
    better: int
    worse: int
    shrunk: float | None = None


@dataclass(frozen=True, slots=True)
class GradedSection:
    """One dataset, or the mean over datasets: each model's figure and every difference.

    `left_out` are rows without a value of some model. `decides` is False where another section does.
    """

    name: str
    n: int
    left_out: int
    figures: Mapping[str, Measured]
    against_base: Sequence[GradedTest]
    between: Sequence[GradedTest]
    decides: bool = True


@dataclass(frozen=True, slots=True)
class GradedComparison:
    """All sections of a comparison in one metric; the last is the mean where there are several datasets."""

    metric: str
    meaning: Metric
    base: str
    models: Sequence[str]
    sections: Sequence[GradedSection]


@dataclass(frozen=True, slots=True)
class _Dataset:
    """The rows of one dataset that every model has a value for, as arrays by model."""

    name: str
    values: Mapping[str, Sequence[float]]
    weights: Sequence[float]
    groups: Sequence[str] | None
    left_out: int


def compare_graded(
    runs: Sequence[ScoredRun], base: str, metric: str, meaning: Metric, decide_on: str = ""
) -> GradedComparison:
    """Judge runs whose `values` are those of a metric; the mean takes the models that have every dataset.

    `RequestError` where a dataset has no row that every model has a value for, or `decide_on` is none.
    """
    by_set: dict[str, list[ScoredRun]] = {}
    for run in runs:
        by_set.setdefault(run.dataset, []).append(run)
    if decide_on not in ("", *by_set):
        raise RequestError(f"--decide-on {decide_on}: no such dataset; expected one of {', '.join(by_set)}")
    data = [_paired(name, own, metric) for name, own in by_set.items()]
    models = list(dict.fromkeys(run.model for run in runs))
    whole = [model for model in models if all(model in one.values for one in data)]
    asked = decide_on or (MEAN if len(data) > 1 and whole else data[0].name)
    sections = [_section(one.name, [one], list(one.values), base, meaning, asked) for one in data]
    if len(data) > 1 and whole:
        sections.append(_section(MEAN, data, whole, base, meaning, asked))
    return GradedComparison(metric, meaning, base, models, sections)


def _paired(name: str, runs: Sequence[ScoredRun], metric: str) -> _Dataset:
    first = runs[0]
    held = [i for i in range(len(first.rows)) if all(run.values[i] is not None for run in runs)]
    if not held:
        listed = ", ".join(run.source for run in runs)
        raise RequestError(f"{name}: no row has {metric} in all of {listed}")
    values = {run.model: [float(run.values[i] or 0) for i in held] for run in runs}
    groups = None if first.groups is None else [first.groups[i] for i in held]
    return _Dataset(name, values, [first.weights[i] for i in held], groups, len(first.rows) - len(held))


def _section(
    name: str, data: Sequence[_Dataset], models: Sequence[str], base: str, meaning: Metric, asked: str
) -> GradedSection:
    figures = {model: _figure(data, model, meaning) for model in models}
    pairs = pairs_with(models, base)
    against = _family([pair for pair in pairs if pair[0] == base], data, meaning, len(models) > MANY)
    between = _family([pair for pair in pairs if pair[0] != base], data, meaning, False)
    n, left_out = sum(len(one.weights) for one in data), sum(one.left_out for one in data)
    return GradedSection(name, n, left_out, figures, against, between, name == asked)


def _figure(data: Sequence[_Dataset], model: str, meaning: Metric) -> Measured:
    """A model's figure on a dataset (limits of a share: Wilson), or the unweighted mean over several."""
    found = []
    for one in data:
        if meaning.unit == "share":
            share = rate_of(one.values[model], one.groups)
            found.append(Measured(share.value, share.stderr, share.ci95))
            continue
        tops = [value * weight for value, weight in zip(one.values[model], one.weights, strict=True)]
        found.append(ratio(tops, one.weights, one.groups))
    return average(found)


def _family(
    pairs: Sequence[tuple[str, str]], data: Sequence[_Dataset], meaning: Metric, many: bool
) -> list[GradedTest]:
    if not pairs:
        return []
    own = [{model: np.array(values) for model, values in one.values.items()} for one in data]
    steps = [np.stack([values[new] - values[old] for old, new in pairs], axis=1) for values in own]
    bound = 1.0 if meaning.unit == "share" else float("inf")
    counts = [np.array(one.weights) for one in data]
    units = units_of(steps, [one.groups for one in data], counts, bound)
    drawn = shrunk(units).tolist() if many else [None] * len(pairs)
    sign = 1 if meaning.higher else -1
    better, worse = (sum((side * sign * each > 0).sum(0) for each in steps) for side in (1, -1))
    return [
        GradedTest(new, old, one, int(up), int(down), towards)
        for (old, new), one, up, down, towards in zip(
            pairs, estimates(units), better, worse, drawn, strict=True
        )
    ]
