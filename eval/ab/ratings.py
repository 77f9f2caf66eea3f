"""Wins, ties and equal verdicts of raters who marked several models' answers to the same prompts.

A prompt is one independent question, with any number of raters. The marks of several raters for a prompt are
averaged before two models are compared: more raters do not make more prompts.
"""

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from tuneyard.eval.statistics.rates import rate_of

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
    """A model's answers against another's by one criterion, over the prompts or clusters rated for both.

    `share` is the share of wins among those without a tie, with its limits (None if all are ties). `p` is
    the exact two-sided sign test's, None for a single criterion: `overall` decides, the criteria describe.
    """

    model: str
    against: str
    criterion: str
    wins: int
    ties: int
    losses: int
    share: tuple[float, float, float] | None
    p: float | None


def outcomes(ratings: Sequence[Rating], models: Sequence[str], clusters: Mapping[int, str]) -> list[Outcome]:
    """Compare every model with the first of `models`, overall and by criterion.

    Prompts of the same cluster (`clusters` by prompt) are not independent: a cluster counts as one, and is
    won by the better mean of its prompts.
    """
    from tuneyard.eval.statistics.family import sign_test  # needs numpy, which the help of `ab` does not

    base, *others = models
    compared = []
    for model in others:
        for criterion in (OVERALL, *CRITERIA):
            steps: defaultdict[Hashable, Fraction] = defaultdict(Fraction)
            for prompt, step in _steps(ratings, base, model, criterion).items():
                steps[clusters.get(prompt, prompt)] += step
            won = [step > 0 for step in steps.values() if step]
            wins = sum(won)
            losses = len(won) - wins
            share = rate_of(won).with_limits if won else None
            p = None
            if criterion == OVERALL:
                exact, _unused = sign_test(len(won))
                p = float(exact[min(wins, losses)])
            ties = len(steps) - len(won)
            compared.append(Outcome(model, base, criterion, wins, ties, losses, share, p))
    return compared


def equal_verdicts(ratings: Sequence[Rating], models: Sequence[str]) -> float | None:
    """Share of prompts and models that two raters judge alike (won, tied or lost); None without such two."""
    base, *others = models
    verdicts: defaultdict[Hashable, list[int]] = defaultdict(list)
    for rater in {rating.rater for rating in ratings}:
        ratings_of_rater = [rating for rating in ratings if rating.rater == rater]
        for model in others:
            for prompt, step in _steps(ratings_of_rater, base, model, OVERALL).items():
                verdicts[prompt, model].append((step > 0) - (step < 0))
    pairs = [pair for of_raters in verdicts.values() for pair in itertools.combinations(of_raters, 2)]
    if not pairs:
        return None
    return sum(one == other for one, other in pairs) / len(pairs)


def mean_marks(ratings: Iterable[Rating], model: str) -> dict[str, float | None]:
    """Mean mark of a model for each criterion over all its answers and raters (None: no mark)."""
    sheets = [rating.marks for rating in ratings if rating.model == model]
    means: dict[str, float | None] = {}
    for criterion in CRITERIA:
        marks = [sheet[criterion] for sheet in sheets if criterion in sheet]
        means[criterion] = None
        if marks:
            means[criterion] = sum(marks) / len(marks)
    return means


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
