"""Figures by dataset and on average, paired tests, and a decision: pure functions from runs to sections.

The procedure is the same for every metric. The tests of one section (a dataset, or the mean) make two
families: every model against the base, and every pair of the other models. A figure is the mean of the
values, or Σ weight · value / Σ weight if rows count by their tokens; macro-F1 is that of all rows together.
"""

import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, combinations
from statistics import fmean, stdev
from typing import Any

import numpy as np

from tuneyard.core.datasets.labels import MOST_LABELS
from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.training.metrics import ACCURACY, METRICS, SHARE, Metric, metric_of
from tuneyard.eval.figures import metrics
from tuneyard.eval.figures.labels import UNKNOWN
from tuneyard.eval.judge.conclusions import (
    MEAN,
    Baseline,
    Comparison,
    ModelScore,
    PairedTest,
    Section,
    conclude,
)
from tuneyard.eval.judge.findings import RareLabels, SkewedDifference
from tuneyard.eval.runs.findings import RunFinding
from tuneyard.eval.runs.scored_run import RunsByDataset, RunsByModel, ScoredRun, models_of
from tuneyard.eval.statistics.f1 import RARE, MacroF1, macro_f1s, mean_f1
from tuneyard.eval.statistics.family import (
    DifferenceTest,
    Units,
    estimates,
    figure_over_seeds,
    is_skewed,
    over_seeds,
    shrunk,
    units_of,
)
from tuneyard.eval.statistics.rates import Mean, average, calibration, metric_mean
from tuneyard.eval.statistics.spread import Floats

MACRO_F1 = METRICS["macro_f1"]
Pairs = Sequence[tuple[str, str]]  # (old, new) models
MANY = 3  # from so many candidates on, the figure of the best is noticeably too high


def meaning(name: str, runs: RunsByDataset) -> Metric:
    """Unit and direction of the metric `name`.

    As we or a plug-in declare it, otherwise as the results.json of the runs do (`RequestError` if they
    differ), otherwise by its name. Of an unknown metric, higher is better.
    """
    if name in metrics():
        return metrics()[name].meaning
    meanings = set()
    for by_model in runs.values():
        for run in by_model.values():
            if name in run.metrics:
                meanings.add(run.metrics[name])
    if len(meanings) > 1:
        raise RequestError(
            _("--metric {name}: the runs' results.json declare different units or directions", name=name)
        )
    return replace(next(iter(meanings), metric_of(name)), name=name, in_percent=False)


@dataclass(frozen=True, slots=True)
class PairedRows:
    """The rows of one dataset: each candidate's values, the weight of each row, clusters, and rows left out.

    The values of a setting are means over its trainings; `seeds` has the figure of each training, by setting.
    With `f1` the values are accuracies: macro-F1 is the metric, or is tested beside accuracy. `baseline` is 1
    for each row whose answer is the most common one, `majority_label`; `majority` is its accuracy. Of a
    metric but accuracy, and if all expected answers are the same, they are empty and nan.
    """

    values: Mapping[str, Floats]
    weights: Floats
    groups: Sequence[str] | None
    left_out: int
    seeds: Mapping[str, Sequence[float]]
    f1: MacroF1 | None
    majority: float
    majority_label: str
    baseline: Floats


def compare(
    runs: RunsByDataset,
    base: str,
    decide_on: str = "",
    margin: float | None = None,
    metric: Metric = ACCURACY,
    *,
    has_mean: bool = True,
) -> Comparison:
    """Compare all models by a metric. The mean takes the models that have every dataset.

    The verdict is on the mean, or on the dataset `decide_on`; the other sections describe. Without a mean
    every dataset decides, as it does if only some models have every dataset, and the base is alone there or
    absent. `margin` is a share. `RequestError` if there is no such dataset, a margin and
    nothing to compare with, or a dataset in which no row has a value of every model.
    """
    if decide_on not in ("", *runs):
        raise RequestError(
            _(
                "--decide-on {name}: no such dataset; expected one of {names}",
                name=decide_on,
                names=joined(runs),
            )
        )
    models = models_of(runs)
    if margin is not None and len(models) < 2:
        raise RequestError(
            _("--margin: only {names} was given; expected a model to compare it with", names=models[0])
        )
    rows = {dataset: paired_rows(dataset, by_model, metric) for dataset, by_model in runs.items()}
    everywhere = [model for model in models if all(model in data.values for data in rows.values())]
    has_mean = has_mean and len(runs) > 1 and (everywhere == models or {base} < {*everywhere})
    decided_by = decide_on
    if has_mean and not decide_on:
        decided_by = MEAN
    datasets = {}
    terms = Terms(base, metric, margin)
    for dataset, by_model in runs.items():
        datasets[dataset] = _dataset_section(dataset, by_model, rows[dataset], terms, decided_by)
    mean = None
    if has_mean:
        mean = _mean_section(list(datasets.values()), everywhere, list(rows.values()), terms, decide_on)
    if decide_on:
        elsewhere = [section for dataset, section in datasets.items() if dataset != decide_on]
        datasets[decide_on] = replace(datasets[decide_on], decided_by="", elsewhere=elsewhere)
    sections = [*datasets.values(), *filter(None, [mean])]
    deciding = [section for section in sections if not section.decided_by]
    sections.sort(key=lambda section: bool(section.decided_by))
    return Comparison(base, models, list(datasets.values()), mean, deciding, sections, metric)


def paired_rows(dataset: str, runs: RunsByModel, metric: Metric) -> PairedRows:
    """The rows of one dataset for which each model has a value of the metric."""
    first = next(iter(runs.values()))
    by_model = {model: run.column(metric.name) for model, run in runs.items()}
    kept = [row for row, cells in enumerate(zip(*by_model.values(), strict=True)) if None not in cells]
    if not kept:
        sources = joined(relative(run.source) for run in runs.values())
        raise RequestError(
            _(
                "{dataset}: no row has {metric} in all of {sources}",
                dataset=dataset,
                metric=metric.name,
                sources=sources,
            )
        )
    weights = np.ones(len(kept))
    figure = metrics().get(metric.name)
    if figure is not None and figure.weight:
        weight = first.column(figure.weight)  # another tool's row may state a loss without its tokens
        weights = np.array([weight[row] or 1 for row in kept], dtype=float)
    values = {model: np.array(column, dtype=float)[kept] for model, column in by_model.items()}
    seeds = {}
    for name, run in runs.items():
        if run.trainings:
            columns = [np.array(training.column(metric.name), dtype=float) for training in run.trainings]
            seeds[name] = [float(np.average(column[kept], weights=weights)) for column in columns]
    groups = None
    if first.groups is not None:
        groups = [first.groups[row] for row in kept]
    f1 = None
    if metric is MACRO_F1:
        f1 = f1_of(dataset, runs)
        if seeds or f1 is None:
            raise RequestError(
                _(
                    "--metric macro_f1: {dataset}: expected 2 to {most} labels, and no --replicates",
                    dataset=dataset,
                    most=MOST_LABELS,
                )
            )
    majority, label, baseline = math.nan, "", np.zeros(0)
    if metric.counts_correct:
        share, most_common = majority_class(first)
        if share < 1:
            majority, label = share, most_common
            baseline = np.array([gold == label for gold in first.gold], dtype=float)[kept]
    left_out = len(first.rows) - len(kept)
    return PairedRows(values, weights, groups, left_out, seeds, f1, majority, label, baseline)


def f1_of(dataset: str, runs: RunsByModel) -> MacroF1 | None:
    """Macro-F1 of every run. None if the expected answers are no labels."""
    if not all(run.labels for run in runs.values()):
        return None
    first, *_unused = runs.values()
    predicted = {model: run.predicted for model, run in runs.items()}
    return macro_f1s(first.gold, predicted, first.groups, stream=zlib.crc32(dataset.encode()))


def paired_family(pairs: Pairs, data: Sequence[PairedRows], metric: Metric) -> list[PairedTest]:
    """Tests of (old, new) models on the mean of datasets, judged together.

    Tests of accuracies have the differences of macro-F1, too, if the data has it.
    """
    if not pairs:
        return []
    differences, units = differences_of(pairs, data, metric)
    f1s = [rows.f1 for rows in data if rows.f1 is not None]
    of_f1: list[DifferenceTest] = []
    if f1s:
        of_f1 = estimates(units, mean_f1(f1s, sorted({*chain(*pairs)})).spread(pairs))
    means = of_f1
    if metric is not MACRO_F1:
        means = estimates(units)
    for place, pair in enumerate(pairs):
        seeds = [_mean_seeds(name, data) for name in pair if name in data[0].seeds]
        if seeds:
            means[place] = over_seeds(means[place], seeds, len(pairs), units.bound)
    tests = paired_tests(pairs, np.concatenate(differences), means, metric)
    if metric.counts_correct and of_f1:
        tests = [replace(test, macro_f1=f1) for test, f1 in zip(tests, of_f1, strict=True)]
    return tests


def paired_tests(
    pairs: Pairs, differences: Floats, means: Sequence[DifferenceTest], metric: Metric = ACCURACY
) -> list[PairedTest]:
    """Tests of (old, new) models by their differences [rows, pairs] and the mean of each."""
    tests = []
    for (old, new), gains, mean in zip(pairs, differences.T, means, strict=True):
        better, worse = int((gains > 0).sum()), int((gains < 0).sum())
        if not metric.higher:
            better, worse = worse, better
        counts: dict[str, Any] = {"n": len(gains), "better": better, "worse": worse}
        tests.append(PairedTest(**asdict(mean), model=new, against=old, **counts))
    return tests


def differences_of(pairs: Pairs, data: Sequence[PairedRows], metric: Metric) -> tuple[list[Floats], Units]:
    """Differences [rows, pairs] between the values of (old, new) models on each dataset, and their units."""
    differences = []
    for rows in data:
        columns = [rows.values[new] - rows.values[old] for old, new in pairs]
        differences.append(np.stack(columns, axis=1))
    largest = math.inf
    if metric.unit == SHARE:
        largest = 1.0
    groups, weights = [rows.groups for rows in data], [rows.weights for rows in data]
    return differences, units_of(differences, groups, weights, largest)


def _mean_seeds(name: str, data: Sequence[PairedRows]) -> list[float]:
    """The figures of a setting's trainings on the mean of datasets."""
    figures: list[float] = np.mean([rows.seeds[name] for rows in data], axis=0).tolist()
    return figures


def mean_figures(data: PairedRows, metric: Metric) -> dict[str, Mean]:
    """Each model's figure with its interval, of a setting over seeds and examples."""
    if metric is MACRO_F1 and data.f1 is not None:
        return data.f1.figures()
    figures = {}
    for model in data.values:
        values = data.values[model].tolist()
        mean = metric_mean(metric, values, data.groups, data.weights.tolist())
        if model in data.seeds:
            mean = figure_over_seeds(metric, mean, data.seeds[model])
        figures[model] = mean
    return figures


@dataclass(frozen=True, slots=True)
class Terms:
    """How all sections of a comparison are judged. `margin` is a share."""

    base: str
    metric: Metric
    margin: float | None


def _dataset_section(
    dataset: str, runs: RunsByModel, data: PairedRows, terms: Terms, decided_by: str
) -> Section:
    metric = terms.metric
    figures = {}
    for name, mean in mean_figures(data, metric).items():
        figures[name] = _score(mean, runs[name], data.seeds.get(name, ()), metric)
    if metric.counts_correct and not data.seeds:
        data = replace(data, f1=f1_of(dataset, runs))
        if data.f1 is not None:
            for model, f1 in data.f1.figures().items():
                figures[model] = replace(figures[model], macro_f1=f1.with_limits)
    cautions = _cautions(next(iter(runs.values())), data, metric)
    first = next(iter(runs.values()))
    same_answer = None
    always_correct = "log" in first.facts or first.facts.get("majority") == 1
    if metric.counts_correct and always_correct and len(set(first.gold)) == 1:
        same_answer = first.gold[0]
    return _section(dataset, [data], figures, terms, decided_by, same_answer=same_answer, cautions=cautions)


def _score(mean: Mean, run: ScoredRun, seeds: Sequence[float], metric: Metric) -> ModelScore:
    """The score of a model, or of a setting from the runs of its trainings."""
    runs = run.trainings or [run]
    details: dict[str, Any] = {}
    if seeds:
        details = {"trainings": [each.model for each in runs], "seed_deviation": stdev(seeds)}
    elif metric.counts_correct:
        if len(set(run.gold)) > 1 and len(set(run.predicted)) == 1:
            details["always"] = run.predicted[0]
        if run.confidence:
            details["calibration"] = calibration(run.confidence, run.correct, run.groups)
        details["metrics"] = run.facts.get("metrics", {})
    if metric.counts_correct:
        details["unparsed"] = sum(list(each.predicted).count(UNKNOWN) for each in runs)
    trained_on = [each.facts.get("trained_on") or {} for each in runs]
    return ModelScore(
        **asdict(mean),
        trained_on=max(each.get("examples", 0) for each in trained_on),
        trained_on_at_most=any(each.get("at_most") for each in trained_on),
        **details,
    )  # fmt: skip


def _cautions(run: ScoredRun, data: PairedRows, metric: Metric) -> list[RunFinding]:
    """A finding if intervals may be too narrow.

    So is that of macro-F1 if a label has few examples, and that of other means if a few very skewed values
    decide a difference (`python -m tools.bench.coverage`: lognormal with σ = 2, Pareto with α = 1.5).
    """
    if data.f1 is not None:
        rare = sorted(label for label, count in Counter(run.gold).items() if count < RARE)
        if not rare:
            return []
        return [RareLabels(run.dataset, tuple(rare), RARE)]
    pairs = list(combinations(data.values, 2))
    if metric.counts_correct or not pairs:
        return []
    _unused, units = differences_of(pairs, [data], metric)
    if not is_skewed(units):
        return []
    return [SkewedDifference(run.dataset)]


def _mean_section(
    sections: Sequence[Section],
    models: Sequence[str],
    data: Sequence[PairedRows],
    terms: Terms,
    decided_by: str,
) -> Section:
    """The section of the mean of datasets, each counting alike."""
    figures = {}
    for model in models:
        scores = [section.figures[model] for section in sections]
        mean, deviation = average(scores), 0.0
        if model in data[0].seeds:
            seeds = _mean_seeds(model, data)
            of_examples = [mean_figures(replace(rows, seeds={}), terms.metric)[model] for rows in data]
            mean = figure_over_seeds(terms.metric, average(of_examples), seeds)
            deviation = stdev(seeds)
        figures[model] = ModelScore(
            **asdict(mean),
            unparsed=sum(score.unparsed for score in scores),
            trained_on=sum(score.trained_on for score in scores),
            trained_on_at_most=any(score.trained_on_at_most for score in scores),
            trainings=scores[0].trainings, seed_deviation=deviation,
        )  # fmt: skip
    return _section(MEAN, data, figures, terms, decided_by, datasets=sections)


def _section(
    name: str,
    data: Sequence[PairedRows],
    figures: Mapping[str, ModelScore],
    terms: Terms,
    decided_by: str,
    *,
    same_answer: str | None = None,
    cautions: Sequence[RunFinding] = (),
    datasets: Sequence[Section] = (),
) -> Section:
    """A section with its tests, on the mean of the datasets in `data`.

    The tests of every model against the base, and those of the others among each other, are judged together.
    Of three or more candidates against the base each value is shrunk, too.
    """
    base, metric = terms.base, terms.metric
    others = [model for model in figures if model != base]
    against: list[PairedTest] = []
    if base in figures:
        pairs = [(base, model) for model in others]
        against = paired_family(pairs, data, metric)
        if len(pairs) >= MANY and metric is not MACRO_F1 and not data[0].seeds:
            _unused, units = differences_of(pairs, data, metric)
            values = shrunk(units).tolist()
            against = [replace(test, shrunk=value) for test, value in zip(against, values, strict=True)]
    between = paired_family(list(combinations(others, 2)), data, metric)
    over_majority: dict[str, PairedTest] = {}
    if metric.counts_correct and not any(math.isnan(rows.majority) for rows in data):
        always = [replace(rows, values={**rows.values, "majority": rows.baseline}, f1=None) for rows in data]
        for model in figures:  # against always giving the most common answer, on the same rows
            (over_majority[model],) = paired_family([("majority", model)], always, metric)
    groups, majority_label = None, ""
    if len(data) == 1:
        majority_label = data[0].majority_label
        if data[0].groups is not None:
            groups = len(set(data[0].groups))
    baseline = Baseline(fmean(rows.majority for rows in data), majority_label, over_majority)
    conclusion = conclude(
        figures,
        against,
        between,
        [baseline, *(section.baseline for section in datasets)],
        metric,
        base,
        terms.margin,
        has_verdict=same_answer is None,
    )
    return Section(
        name,
        sum(len(rows.weights) for rows in data),
        groups,
        metric,
        base,
        figures,
        against,
        between,
        baseline,
        conclusion,
        same_answer=same_answer,
        left_out=sum(rows.left_out for rows in data),
        margin=terms.margin,
        cautions=cautions,
        decided_by=decided_by,
        datasets=datasets,
    )


def majority_class(run: ScoredRun) -> tuple[float, str]:
    """Accuracy of always giving the most common answer, as the run has it recorded."""
    label, count = Counter(run.gold).most_common(1)[0]
    share = run.facts.get("majority")
    if isinstance(share, int | float):
        return float(share), str(run.facts.get("majority_label", label))
    return count / len(run.gold), label
