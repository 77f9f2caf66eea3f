"""Wins, ties and agreement of raters who marked several models' answers to the same prompts.

A prompt is one independent question, with any number of raters. The marks of several raters for a prompt are
averaged before two models are compared: more raters do not make more prompts.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from tuneyard.eval.statistics.estimate import Estimate
from tuneyard.eval.statistics.family import null_sums
from tuneyard.eval.statistics.rates import by_cluster, rate_of

CRITERIA = ("correctness", "relevance", "completeness", "depth", "usefulness")
OVERALL = "overall"  # the mean of the criteria that a rater marked in both answers


@dataclass(frozen=True, slots=True)
class Rating:
    """One rater's marks (1-5) for one model's answer, by criterion. Blank marks are missing."""

    rater: str
    prompt: int
    model: str
    marks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A model's answers against another's by one criterion, over the prompts rated for both.

    `share` is the share of wins among prompts without a tie (None if all are ties). `p` is the exact
    two-sided sign test's, `p_holm` the same with Holm's correction.
    """

    model: str
    against: str
    criterion: str
    wins: int
    ties: int
    losses: int
    share: Estimate | None
    p: float
    p_holm: float


def outcomes(ratings: Sequence[Rating], models: Sequence[str], clusters: Mapping[int, str]) -> list[Outcome]:
    """Compare every model with the first of `models`, overall and by criterion.

    `overall` decides: its Holm adjustment is over the models. The criteria describe: their adjustment is over
    models and criteria. Prompts of the same cluster (`clusters` by prompt) are not independent.
    """
    base, *others = models
    compared = []
    for criteria in ((OVERALL,), CRITERIA):
        family = []
        for model in others:
            for criterion in criteria:
                steps = _steps(ratings, base, model, criterion)
                family.append(_outcome(steps, (model, base, criterion), clusters))
        adjusted = holm([outcome.p for outcome in family])
        for outcome, p in zip(family, adjusted, strict=True):
            compared.append(replace(outcome, p_holm=p))
    return compared


def mean_marks(ratings: Iterable[Rating], model: str) -> dict[str, float | None]:
    """Mean mark of a model for each criterion over all its answers and raters (None: no mark)."""
    by_criterion: dict[str, list[int]] = {criterion: [] for criterion in CRITERIA}
    for rating in ratings:
        if rating.model == model:
            for criterion, mark in rating.marks.items():
                by_criterion[criterion].append(mark)
    means: dict[str, float | None] = {}
    for criterion, marks in by_criterion.items():
        means[criterion] = None
        if marks:
            means[criterion] = sum(marks) / len(marks)
    return means


def agreement(ratings: Iterable[Rating], criterion: str) -> float | None:
    """Krippendorff's alpha of the raters' marks for one criterion; None if it is undefined."""
    units: defaultdict[Hashable, list[int]] = defaultdict(list)
    for rating in ratings:
        if criterion in rating.marks:
            units[rating.prompt, rating.model].append(rating.marks[criterion])
    return krippendorff_alpha(list(units.values()))


def krippendorff_alpha(units: Iterable[Sequence[int]]) -> float | None:
    """Krippendorff's alpha (2011, Computing Krippendorff's Alpha-Reliability), interval metric.

    `units` holds the values of each answer, from any number of raters. Answers with fewer than two values do
    not count. 1 is full agreement, 0 is chance. None if all values are the same.
    """
    paired = [values for values in units if len(values) > 1]
    everything = [value for values in paired for value in values]
    expected = _spread(everything)
    if not expected:
        return None
    observed = sum((len(values) * _spread(values) for values in paired), Fraction()) / len(everything)
    return float(1 - observed / expected)


def _spread(values: Sequence[int]) -> Fraction:
    """The mean squared difference of two different values: twice the sample's variance."""
    n, total, squares = len(values), sum(values), sum(value * value for value in values)
    if n < 2:
        return Fraction()
    return Fraction(2 * (n * squares - total * total), n * (n - 1))


def _outcome(
    steps: Mapping[int, Fraction], names: tuple[str, str, str], clusters: Mapping[int, str]
) -> Outcome:
    """Outcome of the prompts' differences, before Holm's correction. The sign test flips whole clusters."""
    won = {prompt: step > 0 for prompt, step in steps.items() if step}
    groups: list[Hashable] = [clusters.get(prompt, prompt) for prompt in won]
    wins, losses = sum(won.values()), len(won) - sum(won.values())
    share, p = None, 1.0
    if won:
        share = rate_of(list(won.values()), groups)
        p = sign_flip(by_cluster(np.where(list(won.values()), 1, -1), groups).tolist())
    return Outcome(*names, wins, len(steps) - len(won), losses, share, p, p)


def _steps(ratings: Iterable[Rating], base: str, model: str, criterion: str) -> dict[int, Fraction]:
    """Exact difference between `model` and `base` on each prompt that a rater rated for both."""
    marks = {(rating.prompt, rating.rater, rating.model): rating.marks for rating in ratings}
    gains: defaultdict[int, list[Fraction]] = defaultdict(list)
    criteria: tuple[str, ...] = (criterion,)
    if criterion == OVERALL:
        criteria = CRITERIA
    for (prompt, rater, rated), model_marks in marks.items():
        base_marks = marks.get((prompt, rater, base), {})
        steps = [
            model_marks[name] - base_marks[name]
            for name in criteria
            if name in model_marks and name in base_marks
        ]
        if rated == model and steps:
            gains[prompt].append(Fraction(sum(steps), len(steps)))
    return {prompt: sum(gain, Fraction()) / len(gain) for prompt, gain in gains.items()}


def sign_flip(nets: Sequence[int]) -> float:
    """Two-sided exact p that the sum of `nets` is at least this far from 0 when signs are random.

    Each net is a group's: if two systems are equal, chance may swap them in the whole group. With nets of ±1
    this is the sign test, and McNemar's.
    """
    chances = null_sums(nets)
    centre = len(chances) // 2
    far = np.abs(np.arange(len(chances)) - centre) >= abs(sum(nets))
    return min(1.0, float(chances[far].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values (Holm 1979), in the order of `p_values`."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
