"""From scored runs to a judgement: accuracies by set and on average, paired tests, a decision.

Pure functions from `Run`s to a `Comparison`; reading runs and showing the judgement is not their
business. The family of Holm's correction is what one section (a set, or the mean) is asked: every
model against the base; and apart from it every pair of the other models.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from eval.measure.labels import MOST, UNKNOWN
from eval.measure.paired import (
    ALPHA,
    Z_POWER,
    Difference,
    critical,
    difference,
    holm,
    mean_sign_flip,
    rows_needed,
    smallest_difference,
)
from eval.measure.statistics import clustered_stderr, macro_f1, stderr, wilson

MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Run:
    """One model's answers to one set, row by row, in the same order for all models of the set.

    `kinds` may part the rows, by `type` or `subtype`; `facts` say how it was scored (results.json).
    """

    model: str
    dataset: str
    source: str
    rows: Sequence[str]
    gold: Sequence[str]
    predicted: Sequence[str]
    correct: Sequence[bool]
    groups: Sequence[str] | None = None
    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figure:
    """A model's accuracy (a share) on a set, or its unweighted mean over sets, with 95 % limits.

    `macro_f1` is (value, low, high), None on average and where the answers are free text.
    """

    accuracy: float
    low: float
    high: float
    stderr: float
    n: int
    unparsed: int
    macro_f1: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Test:
    """`model` minus `against` on the same rows; `p` is Holm's, `p_alone` the comparison's own.

    `smallest` is the least difference that these rows show with 80 % power, `more_rows` what is
    missing until the difference seen would be shown (None where it is shown, or is 0).
    """

    model: str
    against: str
    value: float
    low: float
    high: float
    p_alone: float
    n: int
    better: int
    worse: int
    smallest: float
    more_rows: int | None
    p: float = math.nan

    @property
    def shown(self) -> bool:
        """Whether the difference is told from chance at 5 % after Holm."""
        return self.p < ALPHA

    def seen_from(self, model: str) -> "Test":
        """The same test with `model` as the one that is compared."""
        if model == self.model:
            return self
        return replace(
            self, model=model, against=self.model, value=-self.value, low=-self.high, high=-self.low,
            better=self.worse, worse=self.better,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """What is known of one set, or of the mean over sets, and what follows from it."""

    name: str
    n: int
    groups: int | None
    majority: float
    majority_label: str
    figures: Mapping[str, Figure]
    against_base: Sequence[Test]
    between: Sequence[Test]

    @property
    def best(self) -> str | None:
        """The model of highest accuracy among those shown to be better than the base."""
        better = [test.model for test in self.against_base if test.shown and test.value > 0]
        return max(better, key=lambda model: self.figures[model].accuracy, default=None)

    @property
    def rivals(self) -> list[Test]:
        """The tests of the best model against those that it cannot be told from."""
        best = self.best
        if best is None:
            return []
        return [t.seen_from(best) for t in self.between if best in (t.model, t.against) and not t.shown]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All sections of a comparison with `base`; `mean` is there from two sets on."""

    base: str
    models: Sequence[str]
    sets: Sequence[Section]
    mean: Section | None

    @property
    def sections(self) -> list[Section]:
        """The sets, then the mean where there is one."""
        return [*self.sets, *([self.mean] if self.mean else [])]


def compare(runs: Sequence[Run], base: str) -> Comparison:
    """Judge runs that hold each model and set at most once; the mean takes the models that have every set."""
    models = list(dict.fromkeys(run.model for run in runs))
    by_set: dict[str, dict[str, Run]] = {}
    for run in runs:
        by_set.setdefault(run.dataset, {})[run.model] = run
    found = {name: _differences(own, base) for name, own in by_set.items()}
    sets = [_set_section(name, own, found[name], base) for name, own in by_set.items()]
    whole = [model for model in models if all(model in own for own in by_set.values())]
    mean = _mean_section(sets, list(found.values()), whole, base) if len(sets) > 1 and whole else None
    return Comparison(base, models, sets, mean)


Differences = Mapping[tuple[str, str], Difference]


def _pairs(models: Sequence[str], base: str) -> list[tuple[str, str]]:
    """(old, new) of every comparison: the base with each model first, then the models among each other."""
    others = [model for model in models if model != base]
    return [(base, model) for model in others if base in models] + list(combinations(others, 2))


def _differences(runs: Mapping[str, Run], base: str) -> Differences:
    groups = next(iter(runs.values())).groups
    correct = {model: run.correct for model, run in runs.items()}
    return {(old, new): difference(correct[old], correct[new], groups) for old, new in _pairs([*runs], base)}


def _set_section(name: str, runs: Mapping[str, Run], found: Differences, base: str) -> Section:
    run = next(iter(runs.values()))
    label, count = Counter(run.gold).most_common(1)[0]
    tests = {pair: _set_test(pair, one, _family(pair, [*found], base)) for pair, one in found.items()}
    groups = None if run.groups is None else len(set(run.groups))
    n = len(run.gold)
    figures = {model: _figure(own) for model, own in runs.items()}
    return Section(name, n, groups, count / n, label, figures, *_adjusted(tests.values(), base))


def _mean_section(
    sets: Sequence[Section], found: Sequence[Differences], models: Sequence[str], base: str
) -> Section:
    pairs = _pairs(models, base)
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
    first, second = (
        [_with_p(test, p) for test, p in zip(family, holm([t.p_alone for t in family]), strict=True)]
        for family in families
    )
    return first, second


def _with_p(test: Test, p: float) -> Test:
    return replace(test, p=p, more_rows=None if p < ALPHA else test.more_rows)


def _set_test(pair: tuple[str, str], found: Difference, tests: int) -> Test:
    effective = found.n / found.design_effect
    needed = rows_needed(found.value, found.discordance, tests) * found.design_effect
    return Test(
        pair[1], pair[0], found.value, found.low, found.high, found.p, found.n, found.better, found.worse,
        smallest_difference(effective, found.discordance, tests), _missing(needed, found.n),
    )  # fmt: skip


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
    needed = n * (smallest / value) ** 2 if value else math.inf
    return Test(
        pair[1], pair[0], value, value - below, value + above, p, n,
        sum(one.better for one in found), sum(one.worse for one in found), smallest, _missing(needed, n),
    )  # fmt: skip


def _missing(needed: float, n: int) -> int | None:
    return max(1, math.ceil(needed - n)) if math.isfinite(needed) else None


def _figure(run: Run) -> Figure:
    correct, n = run.correct, len(run.gold)
    share = sum(correct) / n
    error = plain = stderr(correct)
    if run.groups is not None:
        error = clustered_stderr(correct, run.groups)
    effect = (error / plain) ** 2 if plain and error else 1.0
    low, high = wilson(share * n / effect, n / effect)
    unparsed = sum(given == UNKNOWN for given in run.predicted)
    labels = len(set(run.gold))
    f1 = macro_f1(run.gold, run.predicted, run.groups) if 1 < labels <= MOST else None
    return Figure(share, low, high, error, n, unparsed, f1)


def _mean_figure(figures: Sequence[Figure]) -> Figure:
    count = len(figures)
    share = math.fsum(one.accuracy for one in figures) / count
    low = share - math.hypot(*(one.accuracy - one.low for one in figures)) / count
    high = share + math.hypot(*(one.high - one.accuracy for one in figures)) / count
    error = math.hypot(*(one.stderr for one in figures)) / count
    return Figure(share, low, high, error, sum(f.n for f in figures), sum(f.unparsed for f in figures))
