"""From scored runs to a judgement: accuracies by set and on average, paired tests, a decision.

Pure functions from `ScoredRun`s to a `Comparison`; reading runs and showing the judgement is not their
business. The family of Holm's correction is what one section (a set, or the mean) is asked: every
model against the base; and apart from it every pair of the other models.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from eval.metrics.calibration import calibration
from eval.metrics.labels import MOST, UNKNOWN
from eval.runs.judgement import MEAN, Comparison, ModelScore, ScoredRun, Section, Test
from eval.statistics.paired import (
    Z_POWER,
    Difference,
    critical,
    difference,
    f1_difference,
    holm,
    mean_sign_flip,
    smallest_difference,
)
from eval.statistics.rates import rate_of
from eval.statistics.shares import label_cells, macro_f1

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Differences = Mapping[tuple[str, str], Difference]


def compare(runs: Sequence[ScoredRun], base: str) -> Comparison:
    """Judge runs that hold each model and set at most once; the mean takes the models that have every set."""
    models = list(dict.fromkeys(run.model for run in runs))
    by_set: dict[str, dict[str, ScoredRun]] = {}
    for run in runs:
        by_set.setdefault(run.dataset, {})[run.model] = run
    from tqdm import tqdm

    found, sets = {}, []
    for name, own in tqdm(by_set.items(), desc="sets compared", delay=2, leave=False):
        found[name] = _differences(own, base)
        sets.append(_set_section(name, own, found[name], base))
    whole = [model for model in models if all(model in own for own in by_set.values())]
    mean = _mean_section(sets, list(found.values()), whole, base) if len(sets) > 1 and whole else None
    return Comparison(base, models, sets, mean)


def _pairs(models: Sequence[str], base: str) -> list[tuple[str, str]]:
    """(old, new) of every comparison: the base with each model first, then the models among each other."""
    others = [model for model in models if model != base]
    return [(base, model) for model in others if base in models] + list(combinations(others, 2))


def _differences(runs: Mapping[str, ScoredRun], base: str) -> Differences:
    groups = _with_rows(runs).groups
    correct = {model: run.correct for model, run in runs.items()}
    pairs = [(a, b) for a, b in _pairs([*runs], base) if runs[a].rows and runs[b].rows]
    return {(old, new): difference(correct[old], correct[new], groups) for old, new in pairs}


def _set_section(name: str, runs: Mapping[str, ScoredRun], found: Differences, base: str) -> Section:
    run = _with_rows(runs)
    majority, label = _majority(run)
    cells = _cells(runs)
    tests = {pair: _set_test(pair, one, _family(pair, [*found], base)) for pair, one in found.items()}
    if cells:
        f1s = {pair: f1_difference(cells[pair[0]], cells[pair[1]]) for pair in tests}
        tests = {pair: replace(test, macro_f1=f1s[pair]) for pair, test in tests.items()}
    groups = None if run.groups is None else len(set(run.groups))
    n = len(run.gold)
    figures = {model: _figure(own, cells.get(model)) for model, own in runs.items()}
    return Section(name, n, groups, majority, label, figures, *_adjusted(tests.values(), base))


def _with_rows(runs: Mapping[str, ScoredRun]) -> ScoredRun:
    """The first run whose rows are known, else the first."""
    return min(runs.values(), key=lambda run: not run.rows)


def _majority(run: ScoredRun) -> tuple[float, str]:
    """What always giving the commonest answer would score: on the whole set, where the run knows it."""
    label, count = Counter(run.gold).most_common(1)[0]
    share, said = run.facts.get("majority"), run.facts.get("majority_label", label)
    return (float(share), str(said)) if isinstance(share, int | float) else (count / len(run.gold), label)


def _cells(runs: Mapping[str, ScoredRun]) -> "dict[str, NDArray[np.int64]]":
    """What each model's macro-F1 is made of; nothing where the answers are free text or all the same."""
    if not all(1 < len(set(run.gold)) <= MOST for run in runs.values()):
        return {}
    return {model: label_cells(run.gold, run.predicted, run.groups) for model, run in runs.items()}


def _mean_section(
    sets: Sequence[Section], found: Sequence[Differences], models: Sequence[str], base: str
) -> Section:
    pairs = [pair for pair in _pairs(models, base) if all(pair in own for own in found)]
    tests = {p: _mean_test(p, [own[p] for own in found], _family(p, pairs, base)) for p in pairs}
    figures = {model: _mean_figure([section.figures[model] for section in sets]) for model in models}
    majority = math.fsum(section.majority for section in sets) / len(sets)
    n = sum(section.n for section in sets)
    return Section(MEAN, n, None, majority, "", figures, *_adjusted(tests.values(), base))


def _family(pair: tuple[str, str], pairs: Sequence[tuple[str, str]], base: str) -> int:
    """How many comparisons are judged together with this one."""
    return sum((base in other) == (base in pair) for other in pairs)


def _adjusted(tests: Iterable[Test], base: str) -> tuple[list[Test], list[Test]]:
    """The tests against the base and those between the others, each with Holm's p in its own family."""
    families: tuple[list[Test], list[Test]] = ([], [])
    for test in tests:
        families[test.against != base].append(test)
    first, second = (_holm(family) for family in families)
    return first, second


def _holm(family: Sequence[Test]) -> list[Test]:
    """The tests of one family with Holm's p, of accuracy and, where it is there, of macro-F1."""
    found = [replace(test, p=p) for test, p in zip(family, holm([t.p_alone for t in family]), strict=True)]
    f1s = [test.macro_f1 for test in found if test.macro_f1]
    adjusted = iter(holm([f1.p for f1 in f1s]))
    return [
        replace(test, macro_f1=test.macro_f1 and replace(test.macro_f1, p=next(adjusted))) for test in found
    ]


def _set_test(pair: tuple[str, str], found: Difference, tests: int) -> Test:
    return Test(
        model=pair[1],
        against=pair[0],
        value=found.value,
        low=found.low,
        high=found.high,
        p_alone=found.p,
        p=found.p,
        n=found.n,
        better=found.better,
        worse=found.worse,
        smallest=smallest_difference(found.n / found.design_effect, found.discordance, tests),
    )


def _mean_test(pair: tuple[str, str], found: Sequence[Difference], tests: int) -> Test:
    """The mean of independent sets' differences; limits by squares of the distances to each set's limits.

    That is MOVER (Zou and Donner 2008, doi:10.1002/sim.3095); the standard error under no
    difference is √Σ(discordance·design effect/n) / sets.
    """
    count, n = len(found), sum(one.n for one in found)
    value = math.fsum(one.value for one in found) / count
    below = math.hypot(*(one.value - one.low for one in found)) / count
    above = math.hypot(*(one.high - one.value for one in found)) / count
    error = (
        math.sqrt(math.fsum(max(one.discordance, 1 / one.n) * one.design_effect / one.n for one in found))
        / count
    )
    smallest = min(1.0, (critical(tests) + Z_POWER) * error)
    p = mean_sign_flip([one.nets for one in found], [one.n for one in found])
    return Test(
        model=pair[1],
        against=pair[0],
        value=value,
        low=value - below,
        high=value + above,
        p_alone=p,
        p=p,
        n=n,
        better=sum(one.better for one in found),
        worse=sum(one.worse for one in found),
        smallest=smallest,
    )


def _figure(run: ScoredRun, cells: "NDArray[np.int64] | None") -> ModelScore:
    found = rate_of(run.correct, run.groups)
    unparsed = sum(given == UNKNOWN for given in run.predicted)
    f1 = None if cells is None else macro_f1(cells)
    reliable = calibration(run.confidence, run.correct, run.groups) if run.confidence else None
    trained = run.facts.get("trained_on")
    seen = trained.get("examples", 0) if isinstance(trained, Mapping) else 0
    metrics = run.facts.get("metrics")
    own = metrics if isinstance(metrics, Mapping) else {}
    return ModelScore(found.value, *found.ci95, found.stderr, found.n, unparsed, f1, reliable, seen, own)


def _mean_figure(figures: Sequence[ModelScore]) -> ModelScore:
    count = len(figures)
    share = math.fsum(one.accuracy for one in figures) / count
    low = share - math.hypot(*(one.accuracy - one.low for one in figures)) / count
    high = share + math.hypot(*(one.high - one.accuracy for one in figures)) / count
    error = math.hypot(*(one.stderr for one in figures)) / count
    n, unparsed, seen = (
        sum(getattr(figure, name) for figure in figures) for name in ("n", "unparsed", "trained_on")
    )
    return ModelScore(share, low, high, error, n, unparsed, trained_on=seen)
