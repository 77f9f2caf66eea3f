"""Figures by dataset and on average, paired tests, and a decision: pure functions from runs to sections.

The procedure is the same for correct answers and for the values of any metric. The tests of one section (a
dataset, or the mean) make two families: every model against the base, and every pair of the other models. A
graded figure is the mean of the values, or Σ weight · value / Σ weight if rows count by their tokens.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from types import MappingProxyType

import numpy as np

from tuneyard.core.errors import RequestError
from tuneyard.core.language.translation import joined, tr
from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.judge.conclusions import MEAN, Comparison, ModelScore, PairedTest, Section
from tuneyard.eval.metrics.calibration import calibration
from tuneyard.eval.metrics.labels import MOST, UNKNOWN, short
from tuneyard.eval.read.scored_run import RunsByDataset, RunsByModel, ScoredRun, models_of
from tuneyard.eval.statistics.estimate import DifferenceTest, Mean
from tuneyard.eval.statistics.f1 import LabelCounts, count_labels, f1_differences, macro_f1
from tuneyard.eval.statistics.family import (
    Trainings,
    Units,
    estimates,
    mean_over_seeds,
    shrunk,
    skewness,
    units_of,
)
from tuneyard.eval.statistics.rates import average, metric_mean
from tuneyard.eval.statistics.spread import Floats

Families = tuple[list[PairedTest], list[PairedTest]]
Pairs = Sequence[tuple[str, str]]  # (old, new) models
RARE = 5  # with fewer examples of a label, its F1 is very uncertain
SKEWED = 0.25  # from this skewness of a mean on, its interval may be too narrow
MANY = 3  # from so many candidates on, the figure of the best is noticeably too high


Recipes = Mapping[str, Sequence[str]]
"""The models of each recipe that was trained with several seeds (`--replicates`)."""


@dataclass(frozen=True, slots=True)
class PairedRows:
    """The rows of one dataset: each candidate's values, the weight of each row, clusters, and rows left out.

    The values of a recipe are means over its trainings. `trainings` has those of each training, by recipe.
    """

    values: Mapping[str, Sequence[float]]
    weights: Sequence[float]
    groups: Sequence[str] | None
    left_out: int = 0
    trainings: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)


def compare(
    runs: RunsByDataset,
    base: str,
    decide_on: str = "",
    margin: float | None = None,
    metric: Metric = ACCURACY,
    recipes: Recipes = MappingProxyType({}),
) -> Comparison:
    """Compare all models by accuracy or another metric. The mean takes the models that have every dataset.

    A recipe of `recipes` is one candidate instead of its models; those without runs are left out.

    The verdict is on the mean, or on the dataset `decide_on`; the other sections describe. `margin` is a
    share. `RequestError` if there is no such dataset, a margin and nothing to compare with, or a dataset in
    which no row has a value of every model.
    """
    if decide_on not in ("", *runs):
        raise RequestError(f"--decide-on {decide_on}: no such dataset; expected one of {', '.join(runs)}")
    recipes = {name: trained for name, trained in recipes.items() if set(trained) <= set(models_of(runs))}
    models = candidates(models_of(runs), recipes)
    if margin is not None and len(models) < 2:
        raise RequestError(f"--margin: only {models[0]} was given; expected a model to compare it with")
    rows = {dataset: paired_rows(dataset, by_model, metric, recipes) for dataset, by_model in runs.items()}
    sections = []
    for dataset, by_model in runs.items():
        if metric is ACCURACY:
            sections.append(_accuracy_section(dataset, by_model, rows[dataset], base, recipes))
        else:
            sections.append(_graded_section(dataset, by_model, rows[dataset], base, metric, recipes))
    everywhere = [model for model in models if all(model in data.values for data in rows.values())]
    if len(sections) > 1 and everywhere:
        over = {}
        if metric is ACCURACY:
            over = _over_majority(list(runs.values()), list(rows.values()), everywhere)
        tests = families(list(rows.values()), everywhere, base, metric)
        of_datasets = _mean_section(sections, everywhere, over, tests)
        sections.append(_with_trainings(of_datasets, list(rows.values()), metric))
        decide_on = decide_on or MEAN
    judged = []
    datasets = sections[: len(runs)]
    for section in sections:
        decided_by = decide_on
        elsewhere: list[Section] = []
        if section.name == decide_on:
            decided_by = ""
            if section in datasets:
                elsewhere = [dataset for dataset in datasets if dataset is not section]
        judged.append(
            replace(section, margin=margin, metric=metric, decided_by=decided_by, elsewhere=elsewhere)
        )
    mean = None
    if len(judged) > len(runs):
        mean = judged.pop()
    return Comparison(base, models, judged, mean)


def candidates(models: Sequence[str], recipes: Recipes) -> list[str]:
    """The models in their order; a recipe stands for its trainings, at the place of the first."""
    recipe_of = {model: name for name, trained in recipes.items() for model in trained}
    return list(dict.fromkeys(recipe_of.get(model, model) for model in models))


def families(data: Sequence[PairedRows], models: Sequence[str], base: str, metric: Metric) -> Families:
    """Tests of every model against the base, and of the others among each other, on the mean of datasets.

    Each family is judged together. Of three or more candidates against the base each value is shrunk, too.
    """
    others = [model for model in models if model != base]
    against: list[PairedTest] = []
    if base in models and others:
        pairs = [(base, model) for model in others]
        against = paired_family(pairs, data, metric)
        if len(pairs) >= MANY:
            values = shrunk(_units(pairs, data, metric), _trainings(pairs, data)).tolist()
            against = [replace(test, shrunk=value) for test, value in zip(against, values, strict=True)]
    return against, paired_family(list(combinations(others, 2)), data, metric)


def paired_family(pairs: Pairs, data: Sequence[PairedRows], metric: Metric) -> list[PairedTest]:
    """Tests of (old, new) models on the mean of datasets, judged together."""
    if not pairs:
        return []
    steps = np.concatenate([_steps(pairs, rows) for rows in data])
    differences = estimates(_units(pairs, data, metric), _trainings(pairs, data))
    return paired_tests(pairs, steps, differences, metric)


def _units(pairs: Pairs, data: Sequence[PairedRows], metric: Metric) -> Units:
    """Units of a family of differences between pairs of models."""
    steps = [_steps(pairs, rows) for rows in data]
    weights = [np.array(rows.weights) for rows in data]
    return units_of(steps, [rows.groups for rows in data], weights, metric.largest_difference)


def _trainings(pairs: Pairs, data: Sequence[PairedRows]) -> Trainings:
    """The recipes among the pairs, with the summed values of each training."""
    sums = {}
    for name in data[0].trainings:
        if any(name in pair for pair in pairs):
            values = [np.array(rows.trainings[name], dtype=float).T for rows in data]
            weights = [np.array(rows.weights) for rows in data]
            sums[name] = units_of(values, [rows.groups for rows in data], weights).sums
    return Trainings(pairs, sums)


def _steps(pairs: Pairs, data: PairedRows) -> Floats:
    """Differences [rows, pairs] between the values of (old, new) models."""
    values = {model: np.array(numbers, dtype=float) for model, numbers in data.values.items()}
    return np.stack([values[new] - values[old] for old, new in pairs], axis=1)


def mean_figures(data: PairedRows, metric: Metric) -> dict[str, Mean]:
    """Each model's mean over the rows, with its interval by cluster."""
    figures = {}
    for model, values in data.values.items():
        figures[model] = metric_mean(metric, values, data.groups, data.weights)
    for name in data.trainings:
        figures[name] = _over_seeds(name, figures[name], [data], metric)
    return figures


def _over_seeds(name: str, mean: Mean, data: Sequence[PairedRows], metric: Metric) -> Mean:
    """A recipe's mean with limits over seeds and examples, on the mean of datasets."""
    values = [np.array(rows.values[name], dtype=float)[:, None] for rows in data]
    weights = [np.array(rows.weights) for rows in data]
    units = units_of(values, [rows.groups for rows in data], weights, metric.largest_difference)
    interval, stderr = mean_over_seeds(units, _trainings([("", name)], data))
    low, high = min(mean.low, interval.low), max(mean.high, interval.high)
    if metric.is_share:
        low, high = max(0.0, low), min(1.0, high)
    return Mean(mean.value, low, high, mean.n, max(mean.stderr, stderr))


def _deviation(name: str, data: Sequence[PairedRows]) -> float:
    """Standard deviation of the figures of a recipe's trainings, on the mean of datasets."""
    figures = []
    for rows in data:
        values = np.array(rows.trainings[name], dtype=float)
        figures.append(np.average(values, axis=1, weights=rows.weights))
    return float(np.mean(figures, axis=0).std(ddof=1))


def _with_trainings(section: Section, data: Sequence[PairedRows], metric: Metric) -> Section:
    """The section of a mean, with limits over seeds and deviations of the recipes."""
    figures = dict(section.figures)
    for name in data[0].trainings:
        if name in figures:
            mean = _over_seeds(name, figures[name], data, metric)
            figures[name] = replace(
                figures[name],
                low=mean.low, high=mean.high, stderr=mean.stderr, seed_deviation=_deviation(name, data),
            )  # fmt: skip
    return replace(section, figures=figures)


def paired_tests(
    pairs: Pairs, steps: Floats, differences: Sequence[DifferenceTest], metric: Metric = ACCURACY
) -> list[PairedTest]:
    """Tests of (old, new) models by their differences [rows, pairs] and the mean of each."""
    gains = steps
    if not metric.higher:
        gains = -steps
    better = (gains > 0).sum(0).tolist()
    worse = (gains < 0).sum(0).tolist()
    tests = []
    for place, (old, new) in enumerate(pairs):
        mean = differences[place]
        tests.append(
            PairedTest(
                mean.value, mean.low, mean.high, mean.p, mean.smallest,
                new, old, len(gains), better[place], worse[place],
            )
        )  # fmt: skip
    return tests


def _accuracy_section(
    dataset: str, runs: RunsByModel, data: PairedRows, base: str, recipes: Recipes
) -> Section:
    first = next(iter(runs.values()))
    majority, label = majority_class(first)
    counts = {}
    if not data.trainings and all(
        1 < len(set(run.gold)) <= MOST for run in runs.values()
    ):  # no free text, and not all the same
        counts = {model: count_labels(run.gold, run.predicted, run.groups) for model, run in runs.items()}
    against, between = families([data], list(data.values), base, ACCURACY)
    cautions = []
    if counts:
        against, between = _with_f1(against, counts), _with_f1(between, counts)
        examples = Counter(first.gold)
        rare = sorted(label for label, count in examples.items() if count < RARE)
        if rare:
            warning = (
                "{dataset}: fewer than {count} examples of {labels}: the interval of macro-F1 may be too "
                "narrow"
            )
            labels = joined([short(label) for label in rare])
            cautions.append(tr(warning, dataset=dataset, count=RARE, labels=labels))
    shares = mean_figures(data, ACCURACY)
    figures = {}
    for name in data.values:
        if name in data.trainings:
            figures[name] = _trained(shares[name], [runs[model] for model in recipes[name]], name, data)
        else:
            figures[name] = _accuracy(runs[name], shares[name], counts.get(name))
    return Section(
        dataset, len(first.gold), _cluster_count(first.groups), majority, label, figures, against, between,
        _over_majority([runs], [data], list(data.values)), cautions=cautions,
    )  # fmt: skip


def _trained(mean: Mean, runs: Sequence[ScoredRun], name: str, data: PairedRows) -> ModelScore:
    """Score of a recipe from the runs of its trainings."""
    return ModelScore(
        mean.value, mean.low, mean.high, mean.n, mean.stderr,
        unparsed=sum(list(run.predicted).count(UNKNOWN) for run in runs),
        trained_on=max(run.trained_on.get("examples", 0) for run in runs),
        trained_on_at_most=any(run.trained_on.get("at_most") for run in runs),
        trainings=[run.model for run in runs],
        seed_deviation=_deviation(name, [data]),
    )  # fmt: skip


def _cluster_count(groups: Sequence[str] | None) -> int | None:
    if groups is None:
        return None
    return len(set(groups))


def _graded_section(
    dataset: str, runs: RunsByModel, data: PairedRows, base: str, metric: Metric, recipes: Recipes
) -> Section:
    figures = {}
    means = mean_figures(data, metric)
    for model, mean in means.items():
        if model in data.trainings:
            score = _trained(mean, [runs[training] for training in recipes[model]], model, data)
            figures[model] = replace(score, unparsed=0)
            continue
        run = runs[model]
        figures[model] = ModelScore(
            mean.value, mean.low, mean.high, mean.n, mean.stderr,
            trained_on=run.trained_on.get("examples", 0),
            trained_on_at_most=bool(run.trained_on.get("at_most")),
        )  # fmt: skip
    tests = families([data], list(figures), base, metric)
    return Section(
        dataset, len(data.weights), _cluster_count(data.groups), math.nan, "", figures, *tests,
        left_out=data.left_out, cautions=_skewed(dataset, data, base, metric),
    )  # fmt: skip


def _skewed(dataset: str, data: PairedRows, base: str, metric: Metric) -> list[str]:
    """A warning if a few examples decide a difference.

    The interval of the mean of very skewed values is too narrow
    (`python -m tools.bench.coverage`: lognormal with σ = 2, Pareto with α = 1.5).
    """
    others = [model for model in data.values if model != base]
    pairs = list(combinations(others, 2))
    if base in data.values:
        pairs = [*((base, model) for model in others), *pairs]
    if not pairs or float(np.abs(skewness(_units(pairs, [data], metric))).max()) <= SKEWED:
        return []
    warning = "{dataset}: a few examples decide the difference (very skewed): its interval may be too narrow"
    return [tr(warning, dataset=dataset)]


def _mean_section(
    sections: Sequence[Section], models: Sequence[str], over: Mapping[str, PairedTest], tests: Families
) -> Section:
    figures = {}
    for model in models:
        scores = [section.figures[model] for section in sections]
        mean = average(scores)
        figures[model] = ModelScore(
            mean.value, mean.low, mean.high, mean.n, mean.stderr,
            unparsed=sum(score.unparsed for score in scores),
            trained_on=sum(score.trained_on for score in scores),
            trained_on_at_most=any(score.trained_on_at_most for score in scores),
            trainings=scores[0].trainings,
        )  # fmt: skip
    majority = math.fsum(section.majority for section in sections) / len(sections)
    n = sum(section.n for section in sections)
    left_out = sum(section.left_out for section in sections)
    return Section(
        MEAN, n, None, majority, "", figures, *tests, over, left_out=left_out, datasets=list(sections)
    )


def _over_majority(
    datasets: Sequence[RunsByModel], data: Sequence[PairedRows], models: Sequence[str]
) -> dict[str, PairedTest]:
    """Each candidate against always giving the most common answer, on the same rows."""
    tests = {}
    for model in models:
        with_majority = []
        for by_model, rows in zip(datasets, data, strict=True):
            run = by_model.get(model, next(iter(by_model.values())))
            label = majority_class(run)[1]
            majority = [float(gold == label) for gold in run.gold]
            trainings = {name: values for name, values in rows.trainings.items() if name == model}
            values = {model: rows.values[model], "majority": majority}
            with_majority.append(replace(rows, values=values, trainings=trainings))
        tests[model] = paired_family([("majority", model)], with_majority, ACCURACY)[0]
    return tests


def majority_class(run: ScoredRun) -> tuple[float, str]:
    """Accuracy of always giving the most common answer: on the whole dataset, if the run has it."""
    label, count = Counter(run.gold).most_common(1)[0]
    share = run.facts.get("majority")
    if isinstance(share, int | float):
        return float(share), str(run.facts.get("majority_label", label))
    return count / len(run.gold), label


def _with_f1(tests: Sequence[PairedTest], counts: Mapping[str, LabelCounts]) -> list[PairedTest]:
    """The tests of one family with the differences of macro-F1, by the same procedure."""
    if not tests:
        return []
    places = {model: place for place, model in enumerate(counts)}
    pairs = [(places[test.against], places[test.model]) for test in tests]
    differences = estimates(f1_differences(list(counts.values()), pairs))
    return [replace(test, macro_f1=f1) for test, f1 in zip(tests, differences, strict=True)]


def _accuracy(run: ScoredRun, share: Mean, counts: LabelCounts | None) -> ModelScore:
    metrics = run.facts.get("metrics")
    if not isinstance(metrics, Mapping):
        metrics = {}
    always = ""
    if len(set(run.gold)) > 1 and len(set(run.predicted)) == 1:
        always = run.predicted[0]
    f1 = None
    if counts is not None:
        f1 = macro_f1(counts)
    reliability = None
    if run.confidence:
        reliability = calibration(run.confidence, run.correct, run.groups)
    return ModelScore(
        share.value, share.low, share.high, share.n, share.stderr,
        unparsed=list(run.predicted).count(UNKNOWN),
        macro_f1=f1,
        calibration=reliability,
        trained_on=run.trained_on.get("examples", 0),
        trained_on_at_most=bool(run.trained_on.get("at_most")),
        metrics=metrics,
        always=always,
    )  # fmt: skip


def paired_rows(
    dataset: str, runs: RunsByModel, metric: Metric, recipes: Recipes = MappingProxyType({})
) -> PairedRows:
    """The rows of one dataset for which each model has a value of the metric."""
    first = next(iter(runs.values()))
    names = candidates(list(runs), {name: trained for name, trained in recipes.items() if trained[0] in runs})
    by_model: Mapping[str, Sequence[float | None]]
    if metric is ACCURACY:
        by_model = {model: run.correct for model, run in runs.items()}
    else:
        by_model = {model: run.values[metric.name] for model, run in runs.items()}
    columns = list(by_model.values())
    rows = [row for row, cells in enumerate(zip(*columns, strict=True)) if None not in cells]
    if not rows:
        sources = ", ".join(run.source for run in runs.values())
        raise RequestError(f"{dataset}: no row has {metric.name} in all of {sources}")
    values: dict[str, Sequence[float]] = {}
    trainings: dict[str, Sequence[Sequence[float]]] = {}
    for name in names:
        columns = [by_model[model] for model in recipes.get(name, [name])]
        numbers = [[float(column[row] or 0) for row in rows] for column in columns]
        values[name] = numbers[0]
        if name in recipes:
            values[name] = np.mean(numbers, axis=0).tolist()
            trainings[name] = numbers
    groups = None
    if first.groups is not None:
        groups = [first.groups[row] for row in rows]
    weights = [1.0] * len(rows)
    if metric is not ACCURACY:
        weights = [first.weight(metric.name, row) for row in rows]
    return PairedRows(values, weights, groups, len(first.rows) - len(rows), trainings)
