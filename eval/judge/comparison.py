"""From scored runs to a judgement: figures by set and on average, paired tests, a decision.

Pure functions from `ScoredRun`s to a `Comparison` of accuracies, or of figures in any metric that each
example has a value in, by the same procedure. A family of comparisons is what one section (a set, or the
mean) is asked: every model against the base; and apart from it every pair of the other models. A graded
figure is the mean of the values, or Σ weight · value / Σ weight where rows count by their tokens.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np

from tuneyard.core.errors import RequestError
from tuneyard.core.language import joined, tr
from tuneyard.core.metrics import Metric
from tuneyard.eval.judge.conclusions import ACCURACY, MEAN, Comparison, ModelScore, PairedTest, Section
from tuneyard.eval.metrics.calibration import calibration
from tuneyard.eval.metrics.labels import MOST, UNKNOWN, short
from tuneyard.eval.read.run import ScoredRun, by_dataset
from tuneyard.eval.statistics.f1 import LabelCounts, count_labels, f1_differences, macro_f1
from tuneyard.eval.statistics.family import Estimate, Units, estimates, shrunk, skewness, units_of
from tuneyard.eval.statistics.rates import Measured, average, rate_of, ratio
from tuneyard.eval.statistics.spread import Floats

Families = tuple[list[PairedTest], list[PairedTest]]
RARE = 5  # examples of a label; of fewer, F1 is hardly known
SKEWED = 0.25  # from this skewness of a mean on, its interval may be too narrow
MANY = 3  # from so many candidates on, the figure of the best is noticeably too high


@dataclass(frozen=True, slots=True)
class PairedRows:
    """The rows of one dataset: each model's values, what each row counts, clusters, and rows left out."""

    values: Mapping[str, Sequence[float]]
    weights: Sequence[float]
    groups: Sequence[str] | None
    left_out: int = 0


def compare(
    runs: Sequence[ScoredRun],
    base: str,
    decide_on: str = "",
    margin: float | None = None,
    metric: str = "",
    meaning: Metric = ACCURACY,
) -> Comparison:
    """Judge runs that hold each model and set at most once by what is correct, or by their `values` in a
    metric; the mean takes the models that have every set.

    The verdict is on the mean, or on the set `decide_on`; the other sections describe. `margin` is a share.
    `RequestError` where there is no such set, a margin and nothing to compare with, or a set in which no row
    has a value of every model.
    """
    models = list(dict.fromkeys(run.model for run in runs))
    by_set = by_dataset(runs, decide_on)
    if margin is not None and len(models) < 2:
        raise RequestError(f"--margin: only {models[0]} was given; expected a model to compare it with")
    from tqdm import tqdm

    data = {name: _paired(name, own, metric) for name, own in by_set.items()}
    shown = tqdm(by_set.items(), desc="sets compared", delay=2, leave=False)
    section = partial(_graded_section, meaning=meaning) if metric else _section
    sets = [section(name, own, data[name], base) for name, own in shown]
    whole = [model for model in models if all(model in own for own in by_set.values())]
    means = []
    if len(sets) > 1 and whole:
        over = {} if metric else _over_majority(list(by_set.values()), whole)
        means = [_mean_section(sets, whole, over, families(list(data.values()), whole, base, meaning))]
    asked = decide_on or (MEAN if means else "")
    told = [
        replace(
            one, margin=margin, metric=metric, meaning=meaning, decided_by="" if one.name == asked else asked
        )
        for one in (*sets, *means)
    ]
    return Comparison(base, models, told[: len(sets)], told[-1] if means else None)


def families(data: Sequence[PairedRows], models: Sequence[str], base: str, meaning: Metric) -> Families:
    """Tests of every model against the base, and of the others among each other, on the mean of datasets.
    Each family is judged together; of three or more against the base each value is shrunk, too."""
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
    units = _units(pairs, data, meaning)
    steps = np.concatenate([_steps(pairs, one) for one in data])
    return paired_tests(pairs, steps, estimates(units), meaning), units


def _units(pairs: Sequence[tuple[str, str]], data: Sequence[PairedRows], meaning: Metric) -> Units:
    """Return the units of a family of differences between pairs of models."""
    bound = 1.0 if meaning.unit == "share" else math.inf
    weights = [np.array(one.weights) for one in data]
    return units_of([_steps(pairs, one) for one in data], [one.groups for one in data], weights, bound)


def _steps(pairs: Sequence[tuple[str, str]], data: PairedRows) -> Floats:
    """Return the differences [rows, pairs] between the values of (old, new) models."""
    values = {name: np.array(own, dtype=float) for name, own in data.values.items()}
    return np.stack([values[new] - values[old] for old, new in pairs], axis=1)


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


def _section(name: str, runs: Mapping[str, ScoredRun], data: PairedRows, base: str) -> Section:
    run = next(iter(runs.values()))
    majority, label = _majority(run)
    counts = {}
    if all(1 < len(set(own.gold)) <= MOST for own in runs.values()):  # no free text, and not all the same
        counts = {model: count_labels(own.gold, own.predicted, own.groups) for model, own in runs.items()}
    against, between = (_with_f1(family, counts) for family in families([data], list(runs), base, ACCURACY))
    over = _over_majority([runs], [*runs])
    groups = None if run.groups is None else len(set(run.groups))
    figures = {model: _figure(own, counts.get(model)) for model, own in runs.items()}
    cautions = _rare_labels(name, run) if counts else []
    return Section(
        name, len(run.gold), groups, majority, label, figures, against, between, over, cautions=cautions
    )


def _rare_labels(name: str, run: ScoredRun) -> list[str]:
    """Return a warning that names the labels of so few examples that macro-F1 is hardly known."""
    examples = Counter(run.gold)
    rare = sorted(label for label, count in examples.items() if count < RARE)
    if not rare:
        return []
    told = "{dataset}: fewer than {count} examples of {labels}: the interval of macro-F1 may be too narrow"
    return [tr(told, dataset=name, count=RARE, labels=joined([short(label) for label in rare]))]


def _graded_section(
    name: str, runs: Mapping[str, ScoredRun], data: PairedRows, base: str, meaning: Metric
) -> Section:
    figures = {model: _graded_figure(runs[model], data, meaning) for model in data.values}
    tests = families([data], [*figures], base, meaning)
    groups = None if data.groups is None else len(set(data.groups))
    return Section(
        name, len(data.weights), groups, math.nan, "", figures, *tests,
        left_out=data.left_out, cautions=_skewed(name, data, base, meaning),
    )  # fmt: skip


def _skewed(name: str, data: PairedRows, base: str, meaning: Metric) -> list[str]:
    """Return a warning if a few examples decide a difference: a mean of very skewed values is known less well
    than its interval says (`python -m tests.bench.coverage`: lognormal with σ = 2, Pareto with α = 1.5)."""
    against = [(base, model) for model in data.values if model != base and base in data.values]
    between = combinations([model for model in data.values if model != base], 2)
    pairs = [*against, *between]
    if not pairs or float(np.abs(skewness(_units(pairs, [data], meaning))).max()) <= SKEWED:
        return []
    told = "{dataset}: a few examples decide the difference (very skewed): its interval may be too narrow"
    return [tr(told, dataset=name)]


def _mean_section(
    sets: Sequence[Section], models: Sequence[str], over: Mapping[str, PairedTest], tests: Families
) -> Section:
    figures = {model: _mean_figure([section.figures[model] for section in sets]) for model in models}
    majority = math.fsum(section.majority for section in sets) / len(sets)
    n, left_out = (sum(getattr(section, name) for section in sets) for name in ("n", "left_out"))
    return Section(MEAN, n, None, majority, "", figures, *tests, over, left_out=left_out, datasets=sets)


def _over_majority(by_set: Sequence[Mapping[str, ScoredRun]], models: Sequence[str]) -> dict[str, PairedTest]:
    """Each model against always giving the commonest answer, on the same rows."""
    found = {}
    for model in models:
        data = []
        for run in (own[model] for own in by_set):
            label = _majority(run)[1]
            values = {model: run.correct, "majority": [gold == label for gold in run.gold]}
            data.append(PairedRows(values, [1.0] * len(run.rows), run.groups))
        found[model] = _family([("majority", model)], data, ACCURACY)[0][0]
    return found


def _majority(run: ScoredRun) -> tuple[float, str]:
    """What always giving the commonest answer would score: on the whole set, where the run knows it."""
    label, count = Counter(run.gold).most_common(1)[0]
    share, said = run.facts.get("majority"), run.facts.get("majority_label", label)
    return (float(share), str(said)) if isinstance(share, int | float) else (count / len(run.gold), label)


def _with_f1(family: Sequence[PairedTest], counts: Mapping[str, LabelCounts]) -> list[PairedTest]:
    """The tests of one family with the differences of macro-F1, by the same procedure."""
    if not (family and counts):
        return list(family)
    places = {model: place for place, model in enumerate(counts)}
    pairs = [(places[test.against], places[test.model]) for test in family]
    found = estimates(f1_differences(list(counts.values()), pairs))
    return [replace(test, macro_f1=one) for test, one in zip(family, found, strict=True)]


def _figure(run: ScoredRun, counts: LabelCounts | None) -> ModelScore:
    found = rate_of(run.correct, run.groups)
    metrics = run.facts.get("metrics")
    said = set(run.predicted) if len(set(run.gold)) > 1 else set()
    return ModelScore(
        found.value,
        *found.ci95,
        found.stderr,
        found.n,
        unparsed=sum(given == UNKNOWN for given in run.predicted),
        macro_f1=None if counts is None else macro_f1(counts),
        calibration=calibration(run.confidence, run.correct, run.groups) if run.confidence else None,
        trained_on=run.trained_on.get("examples", 0),
        trained_on_at_most=bool(run.trained_on.get("at_most")),
        metrics=metrics if isinstance(metrics, Mapping) else {},
        always=said.pop() if len(said) == 1 else "",
    )


def _mean_figure(figures: Sequence[ModelScore]) -> ModelScore:
    mean = average([Measured(one.value, one.n, one.stderr, (one.low, one.high)) for one in figures])
    unparsed, seen = (sum(getattr(figure, name) for figure in figures) for name in ("unparsed", "trained_on"))
    at_most = any(figure.trained_on_at_most for figure in figures)
    return ModelScore(
        mean.value,
        *mean.ci95,
        mean.stderr,
        mean.n,
        unparsed,
        trained_on=seen,
        trained_on_at_most=at_most,
    )


def _paired(name: str, runs: Mapping[str, ScoredRun], metric: str) -> PairedRows:
    """The rows of one dataset for which each model has a value of the metric."""
    known = list(runs.values())
    first = known[0]
    if not metric:
        return PairedRows({run.model: run.correct for run in known}, [1.0] * len(first.rows), first.groups)
    held = [i for i in range(len(first.rows)) if all(run.values[i] is not None for run in known)]
    if not held:
        listed = ", ".join(run.source for run in known)
        raise RequestError(f"{name}: no row has {metric} in all of {listed}")
    values = {run.model: [float(run.values[i] or 0) for i in held] for run in known}
    groups = None if first.groups is None else [first.groups[i] for i in held]
    return PairedRows(values, [first.weights[i] for i in held], groups, len(first.rows) - len(held))


def _graded_figure(run: ScoredRun, data: PairedRows, meaning: Metric) -> ModelScore:
    """A model's figure on a dataset; the limits of a share are Wilson's."""
    values = data.values[run.model]
    if meaning.unit == "share":
        found = rate_of(values, data.groups)
    else:
        tops = [value * weight for value, weight in zip(values, data.weights, strict=True)]
        found = ratio(tops, data.weights, data.groups)
    seen = run.trained_on.get("examples", 0)
    at_most = bool(run.trained_on.get("at_most"))
    return ModelScore(
        found.value, *found.ci95, found.stderr, found.n, trained_on=seen, trained_on_at_most=at_most
    )
