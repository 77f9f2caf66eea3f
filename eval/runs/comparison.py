"""From scored runs to a judgement: figures by set and on average, paired tests, a decision.

Pure functions from `ScoredRun`s to a `Comparison` of accuracies, or a `GradedComparison` in any metric that
each example has a value in, by the same procedure. A family of comparisons is what one section (a set, or the
mean) is asked: every model against the base; and apart from it every pair of the other models. A graded
figure is the mean of the values, or Σ weight · value / Σ weight where rows count by their tokens.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from core.errors import RequestError
from core.metrics import Metric, metric_of
from eval.metrics.calibration import calibration
from eval.metrics.labels import MOST, UNKNOWN
from eval.runs.judgement import MEAN, Comparison, ModelScore, PairedTest, ScoredRun, Section, by_dataset
from eval.statistics.family import Estimate, Units, estimates, shrunk, units_of
from eval.statistics.rates import (
    Cells,
    Floats,
    Measured,
    average,
    f1_parts,
    label_cells,
    macro_f1,
    rate_of,
    ratio,
)

MANY = 3  # from so many candidates on, the figure of the best is noticeably too high
ACCURACY = metric_of("accuracy")


@dataclass(frozen=True, slots=True)
class PairedRows:
    """The rows of one dataset: each model's values, what each row counts, clusters, and rows left out."""

    values: Mapping[str, Sequence[float]]
    weights: Sequence[float]
    groups: Sequence[str] | None
    left_out: int = 0


def compare(
    runs: Sequence[ScoredRun], base: str, decide_on: str = "", margin: float | None = None
) -> Comparison:
    """Judge runs that hold each model and set at most once; the mean takes the models that have every set.

    The verdict is on the mean, or on the set `decide_on`; the other sections describe. `margin` is a share.
    `RequestError` where there is no such set, or a margin and nothing to compare with.
    """
    models = list(dict.fromkeys(run.model for run in runs))
    by_set = by_dataset(runs, decide_on)
    if margin is not None and len(models) < 2:
        raise RequestError(f"--margin: only {models[0]} was given; expected a model to compare it with")
    from tqdm import tqdm

    shown = tqdm(by_set.items(), desc="sets compared", delay=2, leave=False)
    sets = [_set_section(name, own, base) for name, own in shown]
    whole = [model for model in models if all(model in own for own in by_set.values())]
    mean = _mean_section(sets, list(by_set.values()), whole, base) if len(sets) > 1 and whole else None
    asked = decide_on or (MEAN if mean else "")
    sets, means = (
        [replace(one, margin=margin, decided_by="" if one.name == asked else asked) for one in sections]
        for sections in (sets, [mean] if mean else [])
    )
    return Comparison(base, models, sets, means[0] if means else None)


def families(
    data: Sequence[PairedRows], models: Sequence[str], base: str, meaning: Metric = ACCURACY
) -> tuple[list[PairedTest], list[PairedTest]]:
    """Return the tests of every model against the base, and of the others among each other, on the mean of
    datasets, each family judged together; of three or more against the base each value is shrunk, too."""
    others = [model for model in models if model != base]
    against = [(base, model) for model in others if base in models]
    tests, units = _family(against, data, meaning)
    if units and len(against) >= MANY:
        tests = [replace(one, shrunk=value) for one, value in zip(tests, shrunk(units).tolist(), strict=True)]
    return tests, _family(list(combinations(others, 2)), data, meaning)[0]


def _family(
    pairs: Sequence[tuple[str, str]], data: Sequence[PairedRows], meaning: Metric
) -> tuple[list[PairedTest], Units | None]:
    if not pairs:
        return [], None
    values = [{name: np.array(own, dtype=float) for name, own in one.values.items()} for one in data]
    steps = [np.stack([own[new] - own[old] for old, new in pairs], axis=1) for own in values]
    bound = 1.0 if meaning.unit == "share" else math.inf
    units = units_of(steps, [one.groups for one in data], [np.array(one.weights) for one in data], bound)
    return paired_tests(pairs, np.concatenate(steps), estimates(units), meaning), units


def paired_tests(
    pairs: Sequence[tuple[str, str]], steps: Floats, found: Sequence[Estimate], meaning: Metric = ACCURACY
) -> list[PairedTest]:
    """Return the tests of (old, new) models by their differences [rows, pairs] and what is known of each."""
    gains = steps if meaning.higher else -steps
    better, worse = ((sign * gains > 0).sum(0).tolist() for sign in (1, -1))
    return [
        PairedTest(new, old, one.value, one.low, one.high, len(gains), up, down, one.smallest, one.p)
        for (old, new), one, up, down in zip(pairs, found, better, worse, strict=True)
    ]


def _set_section(name: str, runs: Mapping[str, ScoredRun], base: str) -> Section:
    run = min(runs.values(), key=lambda run: not run.rows)  # the first whose rows are known
    majority, label = _majority(run)
    cells = _cells(runs)
    against, between, over = _tests([runs], [*runs], base)
    if cells:
        against, between = _with_f1(against, cells), _with_f1(between, cells)
    groups = None if run.groups is None else len(set(run.groups))
    figures = {model: _figure(own, cells.get(model)) for model, own in runs.items()}
    return Section(name, len(run.gold), groups, majority, label, figures, against, between, over)


def _mean_section(
    sets: Sequence[Section], by_set: Sequence[Mapping[str, ScoredRun]], models: Sequence[str], base: str
) -> Section:
    figures = {model: _mean_figure([section.figures[model] for section in sets]) for model in models}
    majority = math.fsum(section.majority for section in sets) / len(sets)
    n = sum(section.n for section in sets)
    return Section(MEAN, n, None, majority, "", figures, *_tests(by_set, models, base))


def _tests(
    by_set: Sequence[Mapping[str, ScoredRun]], models: Sequence[str], base: str
) -> tuple[list[PairedTest], list[PairedTest], dict[str, PairedTest]]:
    """Both families of the models whose rows are known, and each against the commonest answers."""
    known = [model for model in models if all(own[model].rows for own in by_set)]
    data = [_correct(own, known) for own in by_set] if known else []
    over = {}
    for model in known:
        constant = [_against_majority(own[model]) for own in by_set]
        over[model] = _family([("majority", model)], constant, ACCURACY)[0][0]
    return *families(data, known, base), over


def _correct(runs: Mapping[str, ScoredRun], models: Sequence[str]) -> PairedRows:
    first = runs[models[0]]
    return PairedRows({model: runs[model].correct for model in models}, [1.0] * len(first.rows), first.groups)


def _against_majority(run: ScoredRun) -> PairedRows:
    """A model's answers beside always giving the commonest one, on the same rows."""
    label = _majority(run)[1]
    values = {run.model: run.correct, "majority": [gold == label for gold in run.gold]}
    return PairedRows(values, [1.0] * len(run.rows), run.groups)


def _majority(run: ScoredRun) -> tuple[float, str]:
    """What always giving the commonest answer would score: on the whole set, where the run knows it."""
    label, count = Counter(run.gold).most_common(1)[0]
    share, said = run.facts.get("majority"), run.facts.get("majority_label", label)
    return (float(share), str(said)) if isinstance(share, int | float) else (count / len(run.gold), label)


def _cells(runs: Mapping[str, ScoredRun]) -> dict[str, Cells]:
    """What each model's macro-F1 is made of; nothing where the answers are free text or all the same."""
    if not all(1 < len(set(run.gold)) <= MOST for run in runs.values()):
        return {}
    return {model: label_cells(run.gold, run.predicted, run.groups) for model, run in runs.items()}


def _with_f1(family: Sequence[PairedTest], cells: Mapping[str, Cells]) -> list[PairedTest]:
    """The tests of one family with the differences of macro-F1, by the same procedure on each row's part."""
    if not family:
        return []
    parts = {model: f1_parts(own) for model, own in cells.items()}
    steps = np.stack([parts[test.model] - parts[test.against] for test in family], axis=1)
    found = estimates(units_of([steps], [None]))
    return [replace(test, macro_f1=one) for test, one in zip(family, found, strict=True)]


def _figure(run: ScoredRun, cells: Cells | None) -> ModelScore:
    found = rate_of(run.correct, run.groups)
    trained, metrics = (run.facts.get(name) for name in ("trained_on", "metrics"))
    said = set(run.predicted) if len(set(run.gold)) > 1 and run.rows else set()
    return ModelScore(
        found.value,
        *found.ci95,
        found.stderr,
        found.n,
        unparsed=sum(given == UNKNOWN for given in run.predicted),
        macro_f1=None if cells is None else macro_f1(cells),
        calibration=calibration(run.confidence, run.correct, run.groups) if run.confidence else None,
        trained_on=trained.get("examples", 0) if isinstance(trained, Mapping) else 0,
        metrics=metrics if isinstance(metrics, Mapping) else {},
        always=said.pop() if len(said) == 1 else "",
    )


def _mean_figure(figures: Sequence[ModelScore]) -> ModelScore:
    mean = average([Measured(one.accuracy, one.stderr, (one.low, one.high)) for one in figures])
    n, unparsed, seen = (
        sum(getattr(figure, name) for figure in figures) for name in ("n", "unparsed", "trained_on")
    )
    return ModelScore(mean.value, *mean.ci95, mean.stderr, n, unparsed, trained_on=seen)


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
        figures = {model: _graded_figure(rows, model, meaning) for model in own}
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


def _graded_figure(data: Sequence[PairedRows], model: str, meaning: Metric) -> Measured:
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
