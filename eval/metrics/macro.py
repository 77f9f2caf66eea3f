"""Accuracy over several sets, every set counting alike, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SetScore:
    """A set's accuracy with its 95 % limits, its questions, and the share of its commonest answer."""

    accuracy: float
    ci95: tuple[float, float]
    n: int
    majority: float


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The mean over sets with its 95 % limits, and beside it the share of all questions taken as one."""

    sets: int
    n: int
    accuracy: float
    ci95: tuple[float, float]
    majority: float
    over_questions: float


def group_score(scores: Sequence[SetScore]) -> GroupScore:
    """Return the mean of the sets' accuracies; `ValueError` where there is no set.

    The limits combine the sets' own (Zou, Huang and Zhang 2009, A note on confidence interval
    estimation for a linear function of binomial proportions), so that they are no point where every set
    is all right or all wrong.
    """
    if not scores:
        raise ValueError("no sets")
    count, n = len(scores), sum(score.n for score in scores)
    below = math.hypot(*(score.accuracy - score.ci95[0] for score in scores))
    above = math.hypot(*(score.ci95[1] - score.accuracy for score in scores))
    mean = math.fsum(score.accuracy for score in scores) / count
    return GroupScore(
        count,
        n,
        mean,
        (mean - below / count, mean + above / count),
        math.fsum(score.majority for score in scores) / count,
        sum(round(score.accuracy * score.n) for score in scores) / n,
    )
