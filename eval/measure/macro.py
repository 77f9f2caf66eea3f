"""Accuracy over several sets, every set counting alike, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from eval.measure.statistics import wilson


@dataclass(frozen=True, slots=True)
class SetScore:
    """How many of a set's questions were answered rightly, and by always giving its commonest answer."""

    right: int
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

    The limits combine the sets' Wilson intervals (Zou, Huang and Zhang 2009, A note on confidence interval
    estimation for a linear function of binomial proportions), so that they are no point where every set
    is all right or all wrong.
    """
    if not scores:
        raise ValueError("no sets")
    count, n = len(scores), sum(score.n for score in scores)
    limits = [wilson(score.right, score.n) for score in scores]
    shares = [score.right / score.n for score in scores]
    below = math.hypot(*(share - low for share, (low, _) in zip(shares, limits, strict=True)))
    above = math.hypot(*(high - share for share, (_, high) in zip(shares, limits, strict=True)))
    mean = math.fsum(shares) / count
    return GroupScore(
        count,
        n,
        mean,
        (mean - below / count, mean + above / count),
        math.fsum(score.majority for score in scores) / count,
        sum(score.right for score in scores) / n,
    )
