"""From scored runs to a judgement: accuracies by set and on average, paired tests, a decision.

Pure functions from `ScoredRun`s to a `Comparison`; reading runs and showing the judgement is not their
business. A family of comparisons is what one section (a set, or the mean) is asked: every model
against the base; and apart from it every pair of the other models.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from core.errors import RequestError
from eval.metrics.calibration import calibration
from eval.metrics.labels import MOST, UNKNOWN
from eval.runs.judgement import MEAN, Comparison, ModelScore, PairedTest, ScoredRun, Section
from eval.statistics.family import Units, estimates, shrunk, units_of
from eval.statistics.rates import Measured, average, rate_of
from eval.statistics.shares import f1_parts, label_cells, macro_f1

MANY = 3  # from so many candidates on, the figure of the best is noticeably too high


def compare(
    runs: Sequence[ScoredRun], base: str, decide_on: str = "", margin: float | None = None
) -> Comparison:
    """Judge runs that hold each model and set at most once; the mean takes the models that have every set.

    The verdict is on the mean, or on the set `decide_on`; the other sections describe. `margin` is a share.
    `RequestError` where there is no such set, or a margin and nothing to compare with.
    """
    models = list(dict.fromkeys(run.model for run in runs))
    by_set: dict[str, dict[str, ScoredRun]] = {}
    for run in runs:
        by_set.setdefault(run.dataset, {})[run.model] = run
    if decide_on not in ("", *by_set):
        raise RequestError(f"--decide-on {decide_on}: no such dataset; expected one of {', '.join(by_set)}")
    if margin is not None and len(models) < 2:
        raise RequestError(f"--margin: only {models[0]} was given; expected a model to compare it with")
    from tqdm import tqdm

    shown = tqdm(by_set.items(), desc="sets compared", delay=2, leave=False)
    sets = [_set_section(name, own, base) for name, own in shown]
    whole = [model for model in models if all(model in own for own in by_set.values())]
    mean = _mean_section(sets, list(by_set.values()), whole, base) if len(sets) > 1 and whole else None
    asked = decide_on or (MEAN if mean else "")
    if mean and asked != MEAN:
        mean = replace(mean, decided_by=asked)
    if asked:
        sets = [replace(one, decided_by="" if one.name == asked else asked) for one in sets]
    sets = [replace(one, margin=margin) for one in sets]
    return Comparison(base, models, sets, mean and replace(mean, margin=margin))


def pairs_with(models: Sequence[str], base: str) -> list[tuple[str, str]]:
    """Return (old, new) of every comparison: the base with each model, then the models among each other."""
    others = [model for model in models if model != base]
    return [(base, model) for model in others if base in models] + list(combinations(others, 2))


def _set_section(name: str, runs: Mapping[str, ScoredRun], base: str) -> Section:
    run = _with_rows(runs)
    majority, label = _majority(run)
    cells = _cells(runs)
    families = _families([runs], [*runs], base)
    if cells:
        families = [_with_f1(family, cells) for family in families]
    groups = None if run.groups is None else len(set(run.groups))
    figures = {model: _figure(own, cells.get(model)) for model, own in runs.items()}
    over = {model: _over_majority([own]) for model, own in runs.items() if own.rows}
    return Section(name, len(run.gold), groups, majority, label, figures, families[0], families[1], over)


def _families(
    by_set: Sequence[Mapping[str, ScoredRun]], models: Sequence[str], base: str
) -> list[list[PairedTest]]:
    """The tests against the base and those between the others, each family judged together."""
    known = [model for model in models if all(own[model].rows for own in by_set)]
    pairs = pairs_with(known, base)
    return [
        _family([pair for pair in pairs if (pair[0] == base) == first], by_set, first)
        for first in (True, False)
    ]


def _family(
    pairs: Sequence[tuple[str, str]], by_set: Sequence[Mapping[str, ScoredRun]], against_base: bool
) -> list[PairedTest]:
    if not pairs:
        return []
    correct = [{model: np.array(run.correct, dtype=float) for model, run in own.items()} for own in by_set]
    steps = [np.stack([own[new] - own[old] for old, new in pairs], axis=1) for own in correct]
    units = units_of(steps, [_with_rows(own).groups for own in by_set])
    tests = _tests(pairs, steps, units)
    if not against_base or len(pairs) < MANY:
        return tests
    return [replace(test, shrunk=float(value)) for test, value in zip(tests, shrunk(units), strict=True)]


def _tests(
    pairs: Sequence[tuple[str, str]], steps: Sequence[NDArray[np.float64]], units: Units
) -> list[PairedTest]:
    n = sum(map(len, steps))
    better, worse = (sum((sign * own > 0).sum(0) for own in steps) for sign in (1, -1))
    return [
        PairedTest(new, old, one.value, one.low, one.high, n, int(gains), int(losses), one.smallest, one.p)
        for (old, new), one, gains, losses in zip(pairs, estimates(units), better, worse, strict=True)
    ]


def _over_majority(runs: Sequence[ScoredRun]) -> PairedTest:
    """The test of a model against always giving each set's commonest answer, on the same rows."""
    steps = []
    for run in runs:
        label = _majority(run)[1]
        constant = np.array([gold == label for gold in run.gold], dtype=float)
        steps.append((np.array(run.correct, dtype=float) - constant)[:, None])
    (test,) = _tests([("majority", runs[0].model)], steps, units_of(steps, [run.groups for run in runs]))
    return test


def _with_rows(runs: Mapping[str, ScoredRun]) -> ScoredRun:
    """The first run whose rows are known, else the first."""
    return min(runs.values(), key=lambda run: not run.rows)


def _majority(run: ScoredRun) -> tuple[float, str]:
    """What always giving the commonest answer would score: on the whole set, where the run knows it."""
    label, count = Counter(run.gold).most_common(1)[0]
    share, said = run.facts.get("majority"), run.facts.get("majority_label", label)
    return (float(share), str(said)) if isinstance(share, int | float) else (count / len(run.gold), label)


def _cells(runs: Mapping[str, ScoredRun]) -> dict[str, NDArray[np.int64]]:
    """What each model's macro-F1 is made of; nothing where the answers are free text or all the same."""
    if not all(1 < len(set(run.gold)) <= MOST for run in runs.values()):
        return {}
    return {model: label_cells(run.gold, run.predicted, run.groups) for model, run in runs.items()}


def _mean_section(
    sets: Sequence[Section], by_set: Sequence[Mapping[str, ScoredRun]], models: Sequence[str], base: str
) -> Section:
    families = _families(by_set, models, base)
    figures = {model: _mean_figure([section.figures[model] for section in sets]) for model in models}
    majority = math.fsum(section.majority for section in sets) / len(sets)
    n = sum(section.n for section in sets)
    known = [model for model in models if all(own[model].rows for own in by_set)]
    over = {model: _over_majority([own[model] for own in by_set]) for model in known}
    return Section(MEAN, n, None, majority, "", figures, families[0], families[1], over)


def _with_f1(family: Sequence[PairedTest], cells: Mapping[str, NDArray[np.int64]]) -> list[PairedTest]:
    """The tests of one family with the differences of macro-F1, by the same procedure on each row's part."""
    if not family:
        return []
    parts = {model: f1_parts(own) for model, own in cells.items()}
    steps = np.stack([parts[test.model] - parts[test.against] for test in family], axis=1)
    found = estimates(units_of([steps], [None]))
    return [replace(test, macro_f1=one) for test, one in zip(family, found, strict=True)]


def _figure(run: ScoredRun, cells: NDArray[np.int64] | None) -> ModelScore:
    found = rate_of(run.correct, run.groups)
    unparsed = sum(given == UNKNOWN for given in run.predicted)
    f1 = None if cells is None else macro_f1(cells)
    reliable = calibration(run.confidence, run.correct, run.groups) if run.confidence else None
    trained = run.facts.get("trained_on")
    seen = trained.get("examples", 0) if isinstance(trained, Mapping) else 0
    metrics = run.facts.get("metrics")
    own = metrics if isinstance(metrics, Mapping) else {}
    said = set(run.predicted) if len(set(run.gold)) > 1 and run.rows else set()
    always = said.pop() if len(said) == 1 else ""
    return ModelScore(
        found.value, *found.ci95, found.stderr, found.n, unparsed, f1, reliable, seen, own, always
    )  # fmt: skip


def _mean_figure(figures: Sequence[ModelScore]) -> ModelScore:
    mean = average([Measured(one.accuracy, one.stderr, (one.low, one.high)) for one in figures])
    n, unparsed, seen = (
        sum(getattr(figure, name) for figure in figures) for name in ("n", "unparsed", "trained_on")
    )
    return ModelScore(mean.value, *mean.ci95, mean.stderr, n, unparsed, trained_on=seen)
