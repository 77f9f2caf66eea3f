"""Models compared in any metric that each example has a value in: the same rows, the same procedure.

A figure is the mean of the values, or Σ weight · value / Σ weight where rows count by their tokens; its
limits are those of a ratio (Cochran 1977, §6.3), by cluster. Differences are judged as those of accuracy
are: p and limits of a family together, clusters flipped whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.errors import RequestError
from core.metrics import Metric
from eval.runs.comparison import PairedRows, families
from eval.runs.judgement import MEAN, PairedTest, ScoredRun, by_dataset
from eval.statistics.rates import Measured, average, rate_of, ratio


@dataclass(frozen=True, slots=True)
class GradedSection:
    """One dataset, or the mean over datasets: each model's figure and every difference; `left_out` are rows
    without a value of some model, `decides` is False where another section does."""

    name: str
    n: int
    left_out: int
    figures: Mapping[str, Measured]
    against_base: Sequence[PairedTest]
    between: Sequence[PairedTest]
    decides: bool = True


@dataclass(frozen=True, slots=True)
class GradedComparison:
    """All sections of a comparison in one metric; the last is the mean where there are several datasets."""

    metric: str
    meaning: Metric
    base: str
    models: Sequence[str]
    sections: Sequence[GradedSection]


def compare_graded(
    runs: Sequence[ScoredRun], base: str, metric: str, meaning: Metric, decide_on: str = ""
) -> GradedComparison:
    """Judge runs whose `values` are those of a metric; the mean takes the models that have every dataset.

    `RequestError` where a dataset has no row that every model has a value for, or `decide_on` is none.
    """
    by_set = by_dataset(runs, decide_on)
    data = {name: _paired(name, list(own.values()), metric) for name, own in by_set.items()}
    models = list(dict.fromkeys(run.model for run in runs))
    whole = [model for model in models if all(model in own for own in by_set.values())]
    mean = [(MEAN, (whole, list(data.values())))] if len(data) > 1 and whole else []
    asked = decide_on or (MEAN if mean else next(iter(data)))
    sections = []
    for name, (own, rows) in [*((name, ([*one.values], [one])) for name, one in data.items()), *mean]:
        figures = {model: _figure(rows, model, meaning) for model in own}
        left_out = sum(one.left_out for one in rows)
        tests = families(rows, own, base, meaning)
        n = sum(len(one.weights) for one in rows)
        sections.append(GradedSection(name, n, left_out, figures, *tests, decides=name == asked))
    return GradedComparison(metric, meaning, base, models, sections)


def _paired(name: str, runs: Sequence[ScoredRun], metric: str) -> PairedRows:
    """The rows of one dataset that every model has a value for."""
    first = runs[0]
    held = [i for i in range(len(first.rows)) if all(run.values[i] is not None for run in runs)]
    if not held:
        listed = ", ".join(run.source for run in runs)
        raise RequestError(f"{name}: no row has {metric} in all of {listed}")
    values = {run.model: [float(run.values[i] or 0) for i in held] for run in runs}
    groups = None if first.groups is None else [first.groups[i] for i in held]
    return PairedRows(values, [first.weights[i] for i in held], groups, len(first.rows) - len(held))


def _figure(data: Sequence[PairedRows], model: str, meaning: Metric) -> Measured:
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
