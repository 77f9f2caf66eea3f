"""What raters' marks of several models' answers to the same prompts say: wins, ties, and agreement.

A prompt is one independent question, whoever rates it: the marks of several raters for it are
averaged before two models are compared on it, so that more raters are no more prompts.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from tuneyard.eval.statistics.family import null_sums
from tuneyard.eval.statistics.rates import by_cluster, rate_of

CRITERIA = ("correctness", "relevance", "completeness", "depth", "usefulness")
OVERALL = "overall"  # the mean of the criteria that a rater marked in both answers


@dataclass(frozen=True, slots=True)
class Rating:
    """One rater's marks (1-5, by criterion; those left blank are missing) for one model's answer."""

    rater: str
    prompt: int
    model: str
    marks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a model's answers fare against another's by one criterion, over the prompts rated for both. `share`
    is that of wins among prompts that are no tie, with Wilson's limits (None without any); `p` the exact
    two-sided sign test's, `p_holm` the same with Holm's correction."""

    model: str
    against: str
    criterion: str
    wins: int
    ties: int
    losses: int
    share: tuple[float, float, float] | None
    p: float
    p_holm: float


def outcomes(ratings: Sequence[Rating], models: Sequence[str], clusters: Mapping[int, str]) -> list[Outcome]:
    """Compare every model with the first of `models`, overall and by criterion. Holm's adjustment is over the
    models for `overall`, which decides, and over models and criteria for the rest, which describe. Prompts of
    one of `clusters` (by prompt) are not independent."""
    base, *others = models
    found = []
    for criteria in ((OVERALL,), CRITERIA):
        family = [
            _outcome(_steps(ratings, base, model, criterion), (model, base, criterion), clusters)
            for model in others
            for criterion in criteria
        ]
        adjusted = holm([outcome.p for outcome in family])
        found += [replace(outcome, p_holm=p) for outcome, p in zip(family, adjusted, strict=True)]
    return found


def mean_marks(ratings: Iterable[Rating], model: str) -> dict[str, float | None]:
    """Return a model's mean mark for each criterion over all its answers and raters (None: no mark)."""
    own = [rating.marks for rating in ratings if rating.model == model]
    given = {criterion: [marks[criterion] for marks in own if criterion in marks] for criterion in CRITERIA}
    return {criterion: sum(marks) / len(marks) if marks else None for criterion, marks in given.items()}


def agreement(ratings: Iterable[Rating], criterion: str) -> float | None:
    """Return Krippendorff's alpha of the raters' marks for one criterion; None where it is undefined."""
    units: defaultdict[Hashable, list[int]] = defaultdict(list)
    for rating in ratings:
        if criterion in rating.marks:
            units[rating.prompt, rating.model].append(rating.marks[criterion])
    return krippendorff_alpha(list(units.values()))


def krippendorff_alpha(units: Iterable[Sequence[int]]) -> float | None:
    """Return Krippendorff's alpha (2011, Computing Krippendorff's Alpha-Reliability), interval metric.
    `units` holds the values that each thing got, from however many raters; those with fewer than two count
    for nothing. 1 is full agreement, 0 what chance gives; None where all values are the same."""
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
    return Fraction(2 * (n * squares - total * total), n * (n - 1)) if n > 1 else Fraction()


def _outcome(
    steps: Mapping[int, Fraction], names: tuple[str, str, str], clusters: Mapping[int, str]
) -> Outcome:
    """What the prompts' steps say, before Holm; with clusters the sign test flips whole ones."""
    won = {prompt: step > 0 for prompt, step in steps.items() if step}
    groups: list[Hashable] = [clusters.get(prompt, prompt) for prompt in won]
    wins, losses = sum(won.values()), len(won) - sum(won.values())
    limits, p = None, 1.0
    if won:
        share = rate_of(list(won.values()), groups)
        limits = (share.value, *share.ci95)
        p = sign_flip(by_cluster(np.where(list(won.values()), 1, -1), groups).tolist())
    return Outcome(*names, wins, len(steps) - len(won), losses, limits, p, p)


def _steps(ratings: Iterable[Rating], base: str, model: str, criterion: str) -> dict[int, Fraction]:
    """How much better `model` is than `base` on each prompt that somebody rated for both, exactly."""
    marks = {(rating.prompt, rating.rater, rating.model): rating.marks for rating in ratings}
    gains: defaultdict[int, list[Fraction]] = defaultdict(list)
    for (prompt, rater, rated), own in marks.items():
        other = marks.get((prompt, rater, base), {})
        names = CRITERIA if criterion == OVERALL else (criterion,)
        both = [name for name in names if name in own and name in other]
        if rated == model and both:
            gains[prompt].append(Fraction(sum(own[name] - other[name] for name in both), len(both)))
    return {prompt: sum(gain, Fraction()) / len(gain) for prompt, gain in gains.items()}


def sign_flip(nets: Sequence[int]) -> float:
    """Return the two-sided exact p that the sum of `nets` is this far from 0 when signs are random: what
    chance could do is swap two systems in a whole group. With nets of ±1 this is the sign test, and
    McNemar's."""
    chances = null_sums(nets)
    centre = len(chances) // 2
    far = np.abs(np.arange(len(chances)) - centre) >= abs(sum(nets))
    return min(1.0, float(chances[far].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values (Holm 1979), in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
