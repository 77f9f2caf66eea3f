"""Designs with a known truth, in which `python -m tools.bench.coverage` tries the 95 % intervals of eval."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import norm

from tuneyard.eval.statistics import family
from tuneyard.eval.statistics.f1 import RARE, macro_f1s
from tuneyard.eval.statistics.family import (
    DifferenceTest,
    Units,
    estimates,
    is_skewed,
    over_seeds,
    units_of,
)
from tuneyard.eval.statistics.rates import mean_of, rate_of

LARGEST_CLUSTER = 60
LEAST = 0.93
ALL_PAGES = 2_000
Rows = np.ndarray


@dataclass(frozen=True)
class Page:
    """Whether the figure's and the difference's intervals hold the truth (None: not measured), whether the
    page warns, and whether p and interval disagree."""

    figure: bool | None
    difference: bool
    warned: bool
    contradicts: bool


Draw = Callable[[np.random.Generator], Page]


def contradicts(found: Sequence[DifferenceTest]) -> bool:
    """Whether a p is under 5 % beside an interval that holds 0, or the reverse."""
    return any((one.p < family.ALPHA) != (one.low > 0 or one.high < 0) for one in found)


def clusters_of(generator: np.random.Generator, count: int) -> Rows:
    """Return the cluster of each row, `count` clusters of 1 to 60 rows."""
    return np.repeat(np.arange(count), generator.integers(1, LARGEST_CLUSTER + 1, count))


def shares(generator: np.random.Generator, mean: float, alike: float, clusters: Rows) -> Rows:
    """Return each row's chance, drawn for its cluster around a mean, with an intraclass correlation."""
    if not alike:
        return np.full(len(clusters), mean)
    strength = 1 / alike - 1
    drawn = generator.beta(mean * strength, (1 - mean) * strength, clusters.max() + 1)
    return np.asarray(drawn[clusters])


def accuracy(count: int, alike: float) -> Draw:
    """Accuracy of 70 %, and a difference of 6 points of which clusters have more or less."""

    def draw(generator: np.random.Generator) -> Page:
        clusters = clusters_of(generator, count)
        keys = clusters.tolist()
        right = generator.random(len(keys)) < shares(generator, 0.7, alike, clusters)
        low, high = rate_of(right.tolist(), keys).ci95
        better = shares(generator, 0.6, alike, clusters)
        drawn = generator.random(len(keys))
        steps = (drawn < 0.3 * better).astype(float) - (drawn > 1 - 0.3 * (1 - better))
        found = estimates(units_of([steps[:, None]], [keys]))
        holds = found[0].low <= 0.3 * (2 * 0.6 - 1) <= found[0].high
        return Page(low <= 0.7 <= high, holds, False, contradicts(found))

    return draw


@dataclass(frozen=True)
class Labels:
    """How often each label is expected, and how often it is then answered, by each of two models."""

    expected: Sequence[float]
    correct: Sequence[float]
    better: Sequence[float]


KEPT = 0.6  # of the answers, which both models give alike


def truth(labels: Labels, correct: Sequence[float]) -> float:
    """Return the macro-F1 of endlessly many rows; wrong answers are any other label, equally often."""
    expected, right = np.array(labels.expected), np.array(correct)
    wrong = expected * (1 - right) / (len(expected) - 1)
    given = expected * right + wrong.sum() - wrong
    return float(np.mean(2 * expected * right / (expected + given)))


def labels(design: Labels, rows: int, clusters: int) -> Draw:
    """Macro-F1 of `rows` independent rows, or of clusters whose rows are correct together."""

    def draw(generator: np.random.Generator) -> Page:
        own = clusters_of(generator, clusters) if clusters else np.arange(rows)
        expected = generator.choice(len(design.expected), len(own), p=design.expected)
        alike = 0.3 if clusters else 0.0
        shared = generator.normal(size=own.max() + 1)[own]
        chance = norm.cdf(np.sqrt(alike) * shared + np.sqrt(1 - alike) * generator.normal(size=len(own)))
        right = chance < np.array(design.correct)[expected]
        other = (expected + generator.integers(1, len(design.expected), len(own))) % len(design.expected)
        first = np.where(right, expected, other)
        again = generator.random(len(own)) < np.array(design.better)[expected]
        second = np.where(generator.random(len(own)) < KEPT, first, np.where(again, expected, other))
        models = {"first": first.tolist(), "second": second.tolist()}
        scored = macro_f1s(expected.tolist(), models, own.tolist() if clusters else None)
        mixed = [KEPT * a + (1 - KEPT) * b for a, b in zip(design.correct, design.better, strict=True)]
        value = truth(design, design.correct)
        gain = truth(design, mixed) - value
        low, high = scored.figures()["first"].ci95
        steps = (second == expected).astype(float) - (first == expected)
        units = units_of([steps[:, None]], [own.tolist() if clusters else None])
        found = estimates(units, scored.spread([("first", "second")]))
        rare = bool(np.bincount(expected)[np.unique(expected)].min() < RARE)
        holds = found[0].low <= gain <= found[0].high
        return Page(low <= value <= high, holds, rare, contradicts(found))

    return draw


def values_of(name: str, generator: np.random.Generator, shape: tuple[int, int]) -> tuple[Rows, float]:
    """Return values of a distribution (see `SKEWS`), and its mean."""
    kind, number = SKEWS[name]
    if kind == "lognormal":
        return np.exp(number * generator.normal(size=shape)), float(np.exp(number**2 / 2))
    if kind == "falling":
        return -np.exp(number * generator.normal(size=shape)), -float(np.exp(number**2 / 2))
    if kind == "pareto":
        return generator.pareto(number, shape) + 1, number / (number - 1)
    return generator.standard_t(number, shape), 0.0


def skewed(name: str, rows: int, models: int) -> Draw:
    """Values of any unit: the figure is their mean, the differences are as skewed, around 0 and above."""

    def draw(generator: np.random.Generator) -> Page:
        values, mean = values_of(name, generator, (rows, models))
        low, high = mean_of(values[:, 0].tolist()).ci95
        units: Units = units_of([values], [None], None, float("inf"))
        found = estimates(units)
        best = found[int(units.values.argmax())]
        warned = is_skewed(units)
        return Page(low <= mean <= high, best.low <= mean <= best.high, warned, contradicts(found))

    return draw


@dataclass(frozen=True)
class Trained:
    """Settings with these accuracies, each trained with `seeds` seeds, whose accuracies have a standard
    deviation of `spread`."""

    accuracies: Sequence[float]
    seeds: int
    spread: float


SHARES = (0.5, 0.2)  # of the variance of an answer, that of the row and of the row under a setting


def trainings(generator: np.random.Generator, design: Trained, clusters: Rows) -> Rows:
    """Return whether each training answers each row correctly [settings, seeds, rows].

    An answer is a normal deviate under a threshold. Its parts are the row's cluster, the cluster under a
    setting, the seed and the answer itself.
    """
    settings, rows = len(design.accuracies), len(clusters)
    thresholds = norm.ppf(design.accuracies)
    of_seed = design.spread / norm.pdf(thresholds.mean())
    of_cluster = generator.normal(size=clusters.max() + 1)[clusters]
    of_setting = generator.normal(size=(settings, clusters.max() + 1))[:, clusters]
    shared = np.sqrt(SHARES[0]) * of_cluster + np.sqrt(SHARES[1]) * of_setting
    seed = of_seed * generator.normal(size=(settings, design.seeds, 1))
    own = np.sqrt(1 - sum(SHARES) - of_seed**2) * generator.normal(size=(settings, design.seeds, rows))
    return np.asarray(shared[:, None] + seed + own < thresholds[:, None, None])


def settings_tests(correct: Rows, keys: list[int]) -> list[tuple[int, int, DifferenceTest]]:
    """Return the test of every pair of settings; `correct` as of `trainings`."""
    values = correct.astype(float)
    pairs = list(combinations(range(len(values)), 2))
    steps = np.stack([values[new].mean(0) - values[old].mean(0) for old, new in pairs], axis=1)
    seeds = values.mean(axis=2).tolist()
    tests = []
    for (old, new), test in zip(pairs, estimates(units_of([steps], [keys])), strict=True):
        tests.append((old, new, over_seeds(test, [seeds[old], seeds[new]], len(pairs), 1)))
    return tests


def replicates(design: Trained, rows: int, clusters: int) -> Draw:
    """The difference between settings that were trained several times, on rows or on clusters of rows."""

    def draw(generator: np.random.Generator) -> Page:
        own = clusters_of(generator, clusters) if clusters else np.arange(rows)
        tests = settings_tests(trainings(generator, design, own), own.tolist())
        old, new, best = max(tests, key=lambda one: abs(one[2].value))
        gain = design.accuracies[new] - design.accuracies[old]
        return Page(
            None,
            best.low <= gain <= best.high,
            False,
            contradicts([test for _unused, _unused, test in tests]),
        )

    return draw


LABELS = {
    "2 labels, 50 : 50": Labels([0.5, 0.5], [0.8, 0.8], [0.86, 0.86]),
    "2 labels, 85 : 15": Labels([0.85, 0.15], [0.9, 0.6], [0.93, 0.72]),
    "3 labels, 60 : 30 : 10": Labels([0.6, 0.3, 0.1], [0.85, 0.7, 0.5], [0.89, 0.79, 0.65]),
    "3 labels, 70 : 26 : 4": Labels([0.7, 0.26, 0.04], [0.9, 0.8, 0.5], [0.93, 0.86, 0.65]),
    "3 labels, nearly all correct": Labels([0.4, 0.4, 0.2], [0.97, 0.97, 0.95], [0.98, 0.98, 0.96]),
    "10 labels": Labels([0.1] * 10, [0.7] * 10, [0.79] * 10),
}
SKEWS = {
    "lognormal σ = 0.5": ("lognormal", 0.5),
    "lognormal σ = 1": ("lognormal", 1.0),
    "lognormal σ = 1, falling": ("falling", 1.0),
    "lognormal σ = 2": ("lognormal", 2.0),
    "Pareto α = 4": ("pareto", 4.0),
    "Pareto α = 2.5": ("pareto", 2.5),
    "Pareto α = 1.5": ("pareto", 1.5),
    "t with 3 degrees": ("t", 3.0),
}
CLUSTERS = (3, 5, 8, 12, 15, 20)
SEEDS = (2, 3, 5, 10)
SPREADS = (0.0, 0.02, 0.08)


def designs() -> dict[str, Draw]:
    """Return every design by what it is called in the table."""
    found: dict[str, Draw] = {}
    for number in CLUSTERS:
        for alike in (0.0, 0.1, 0.3, 0.6):
            found[f"accuracy | {number} clusters, ICC {alike:g}"] = accuracy(number, alike)
    for name, design in LABELS.items():
        for rows in (50, 100, 300):
            found[f"macro-F1 | {name}, n = {rows}"] = labels(design, rows, 0)
        for number in (3, 5, 8, 12, 20):
            found[f"macro-F1 | {name}, {number} clusters"] = labels(design, 0, number)
    for name in SKEWS:
        for rows in (50, 100, 300):
            found[f"metric | {name}, n = {rows}"] = skewed(name, rows, 1)
        found[f"metric | {name}, n = 100, best of 3"] = skewed(name, 100, 3)
    for seeds in SEEDS:
        for spread in SPREADS:
            for settings in (2, 3):
                trained = Trained([0.7, 0.75, 0.7][:settings], seeds, spread)
                name = f"replicates | {settings} settings × {seeds} seeds, sd {100 * spread:g} points"
                found[f"{name}, n = 300"] = replicates(trained, 300, 0)
                found[f"{name}, 12 clusters"] = replicates(trained, 0, 12)
    return found


def line(draw: Draw, pages: int, seed: int) -> tuple[str, bool]:
    """Return the cells of a design after its name, and whether it is too narrow without a warning."""
    generator = np.random.default_rng(seed)
    found = [draw(generator) for _unused in range(pages)]
    figures = [page.figure for page in found if page.figure is not None]
    difference = np.mean([page.difference for page in found])
    figure = np.mean(figures) if figures else difference
    warned, contradicting = np.mean([page.warned for page in found]), sum(page.contradicts for page in found)
    least = LEAST
    if pages < ALL_PAGES:
        least -= 3 * math.sqrt(LEAST * (1 - LEAST) / pages)
    narrow = bool(min(figure, difference) < least and warned < 0.5)
    cells = f"{figure:.1%} | {difference:.1%} | {warned:.0%} | {contradicting}"
    return cells.replace("%", " %") + (" | TOO NARROW" if narrow else ""), narrow


def luckiest(
    generator: np.random.Generator, settings: int, seeds: int, n: int, spread: float
) -> tuple[bool, bool]:
    """Return whether one of equal settings is shown to be better than another one, by seeds as replicates and
    with each training as a candidate; `spread` is the standard deviation between seeds."""
    design = Trained([0.7] * settings, seeds, spread)
    correct = trainings(generator, design, np.arange(n))
    won = any(test.p < family.ALPHA for _unused, _unused, test in settings_tests(correct, list(range(n))))
    alone = correct.reshape(settings * seeds, n).astype(float)
    best, worst = alone[alone.mean(axis=1).argmax()], alone[alone.mean(axis=1).argmin()]
    (single,) = family.estimates(family.units_of([(best - worst)[:, None]], [None]))
    return won, single.p < family.ALPHA
