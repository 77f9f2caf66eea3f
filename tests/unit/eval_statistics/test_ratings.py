"""Wins, ties and equal verdicts: worked out by hand, and against another library."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.eval.ab.ratings import CRITERIA, OVERALL, Rating, equal_verdicts, mean_marks, outcomes

MODELS = ("base", "tuned")


def rated(rater: str, prompt: int, model: str, *marks: int) -> Rating:
    """Marks in the order of the criteria; 0 is a blank."""
    return Rating(rater, prompt, model, {c: mark for c, mark in zip(CRITERIA, marks, strict=True) if mark})


def of(ratings, criterion=OVERALL, model="tuned", models=("base", "tuned")):
    found = outcomes(ratings, models, {})
    return next(one for one in found if one.criterion == criterion and one.model == model)


def test_wins_ties_and_losses_by_hand() -> None:
    ratings = [
        rated("a", 1, "base", 3, 3, 3, 1, 3), rated("a", 1, "tuned", 4, 3, 3, 3, 3),  # won
        rated("a", 2, "base", 5, 5, 5, 5, 5), rated("a", 2, "tuned", 5, 5, 4, 5, 5),  # lost
        rated("a", 3, "base", 2, 3, 2, 2, 2), rated("a", 3, "tuned", 3, 2, 2, 2, 2),  # tied: +1 - 1
        rated("a", 4, "base", 1, 1, 1, 1, 1), rated("a", 4, "tuned", 2, 1, 1, 1, 1),  # won
    ]  # fmt: skip
    whole = of(ratings)
    assert (whole.wins, whole.ties, whole.losses) == (2, 1, 1)
    assert whole.share[0] == pytest.approx(2 / 3)
    assert whole.p == 1.0  # of three tosses, two or more are alike
    depth = of(ratings, "depth")
    assert (depth.wins, depth.ties, depth.losses) == (1, 3, 0)
    assert mean_marks(ratings, "base")["depth"] == 9 / 4


def test_raters_are_averaged_within_a_prompt() -> None:
    ratings = [
        rated("a", 1, "base", 1, 0, 0, 0, 0), rated("a", 1, "tuned", 3, 0, 0, 0, 0),
        rated("b", 1, "base", 4, 0, 0, 0, 0), rated("b", 1, "tuned", 3, 0, 0, 0, 0),
    ]  # fmt: skip
    one = of(ratings, "correctness")
    assert (one.wins, one.ties, one.losses) == (1, 0, 0)  # +2 - 1, and one prompt though two raters


def test_only_what_a_rater_marked_in_both_answers_counts() -> None:
    ratings = [
        rated("a", 1, "base", 5, 1, 0, 0, 0), rated("a", 1, "tuned", 0, 2, 5, 0, 0),
        rated("b", 2, "base", 1, 1, 1, 1, 1), rated("c", 2, "tuned", 5, 5, 5, 5, 5),
    ]  # fmt: skip
    assert (of(ratings).wins, of(ratings).losses) == (1, 0)
    assert of(ratings, "correctness").share is None
    assert of(ratings, "correctness").p is None  # one criterion decides nothing


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=40))
def test_p_and_interval_are_scipys(signs) -> None:
    from scipy.stats import binomtest

    marks = {-1: (3, 2), 0: (3, 3), 1: (3, 4)}
    ratings = [
        rated("a", n, model, *[mark] * 5)
        for n, sign in enumerate(signs, 1)
        for model, mark in zip(("base", "tuned"), marks[sign], strict=True)
    ]
    one, decided = of(ratings), len(signs) - signs.count(0)
    if not decided:
        assert one.share is None
        return
    peer = binomtest(signs.count(1), decided)
    limits = peer.proportion_ci(method="wilson")
    assert one.p == pytest.approx(peer.pvalue, abs=1e-12)
    found = one.share
    assert found == pytest.approx((signs.count(1) / decided, limits.low, limits.high), abs=1e-12)


def test_every_model_is_compared_with_the_first() -> None:
    ratings = [
        rated("a", n, model, *[mark] * 5)
        for n in range(1, 9)
        for model, mark in (("base", 2), ("one", 3), ("two", 1 + 2 * (n > 4)))
    ]
    models = ("base", "one", "two")
    assert of(ratings, model="one", models=models).p == pytest.approx(2 / 2**8)
    assert of(ratings, model="two", models=models).p == pytest.approx(1.0)


def test_equal_verdicts_of_two_raters_by_hand() -> None:
    def judged(rater: str, steps: list[int]) -> list[Rating]:
        ratings = []
        for n, step in enumerate(steps):
            ratings += [rated(rater, n, "base", *[3] * 5), rated(rater, n, "tuned", *[3 + step] * 5)]
        return ratings

    anna, ben = judged("anna", [1, 0, -1, 1]), judged("ben", [2, 0, 1])
    assert equal_verdicts([*anna, *ben], MODELS) == 2 / 3  # the fourth prompt has one rater
    carl = judged("carl", [1, 1, 1])
    assert equal_verdicts([*anna, *ben, *carl], MODELS) == (2 + 1 + 2) / 9
    assert equal_verdicts(anna, MODELS) is None


@pytest.mark.parametrize(
    ("marks", "clusters", "counts", "p"),
    [
        ([4, 2, 4, 4], "xxyz", (2, 1, 0), 0.5),  # of a win and a loss in a cluster nothing is left
        ([4] * 38 + [2] * 5, "x" * 38 + "abcde", (1, 0, 5), 14 / 64),  # most prompts are won, one cluster is
    ],
)
def test_prompts_of_one_cluster_count_as_one(marks, clusters, counts, p) -> None:
    ratings = [
        rated("a", prompt, model, *[mark] * 5)
        for prompt, tuned in enumerate(marks)
        for model, mark in (("base", 3), ("tuned", tuned))
    ]
    found = outcomes(ratings, ("base", "tuned"), dict(enumerate(clusters)))
    (one,) = [one for one in found if one.criterion == OVERALL]
    assert (one.wins, one.ties, one.losses) == counts
    assert one.p == pytest.approx(p)
