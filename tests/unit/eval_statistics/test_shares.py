"""Intervals and standard errors against scipy, numbers worked by hand, and a plain formula."""

import math
import random
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tests.unit.eval_statistics.test_f1 import macro_f1
from tuneyard.eval.metrics.calibration import calibration
from tuneyard.eval.statistics.rates import Z95, mean_of, rate_of, wilson
from tuneyard.eval.statistics.spread import student_deviate


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts: tuple[int, int]) -> None:
    successes, n = counts
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    low, high = wilson(successes, n)
    assert low == pytest.approx(expected.low, abs=1e-12) and high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= low <= successes / n <= high <= 1


def test_the_lower_limit_of_a_tiny_share_is_above_0() -> None:
    """The limit is about p² n / z², from Wilson's equation with p near 0."""
    low, _ = wilson(19e-9, 19, 2.0)
    assert low == pytest.approx(1e-18 * 19 / 4, rel=1e-6, abs=0)
    assert wilson(0, 19, 2.0)[0] == 0 and wilson(19, 19, 2.0)[1] == 1


def stderr(correct: list[bool]) -> float:
    """The textbook's standard error of a share over independent rows."""
    share = sum(correct) / len(correct)
    return math.sqrt(share * (1 - share) / max(1, len(correct) - 1))


def test_rows_of_a_share_by_hand() -> None:
    rows = [True, True, False, False]
    alone = rate_of(rows)
    assert rate_of(rows, range(4)) == alone
    # by group sqrt(4)/4, alone sqrt(0.25/3): (1/4) / (1/12) = 3
    reach = float(student_deviate(Z95, np.array(1.0)))
    grouped = rate_of(rows, list("aabb"))
    assert grouped.ci95 == pytest.approx(wilson(2 / 3, 4 / 3, reach))
    assert grouped.stderr == pytest.approx(alone.stderr * math.sqrt(3))
    assert rate_of(rows, list("abab")).stderr == alone.stderr  # groups more even than chance narrow nothing
    same = rate_of([True] * 4, list("aabb"))
    assert same.low < rate_of([True] * 2).low  # each group counts as one row


@given(st.lists(st.booleans(), min_size=2, max_size=40))
def test_repeating_every_row_in_its_group_adds_no_knowledge(correct: list[bool]) -> None:
    doubled = [x for x in correct for _ in range(2)]
    groups = [i // 2 for i in range(len(doubled))]
    assert mean_of(doubled, groups).stderr == pytest.approx(stderr(correct), abs=1e-12)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcx")), min_size=1, max_size=50))
def test_macro_f1_equals_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    from sklearn.metrics import f1_score

    gold, predicted = map(list, zip(*pairs, strict=True))
    expected = f1_score(gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0)
    f1 = macro_f1(gold, predicted)
    value, low, high = f1.value, f1.low, f1.high
    assert value == pytest.approx(expected)
    assert 0 <= low <= high <= 1


def test_a_label_that_a_draw_lacks_is_left_out_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert macro_f1(["yes"] * 9 + ["no"], ["yes"] * 10).value == pytest.approx(9 / 19)


def test_macro_f1_interval_is_that_of_a_plain_bootstrap() -> None:
    from sklearn.metrics import f1_score

    draw = random.Random(0)
    gold = ["yes"] * 90 + ["no"] * 30
    predicted = [g if draw.random() < 0.8 else "no" for g in gold]
    scores = []
    for _ in range(300):
        rows = draw.choices(range(120), k=120)
        scores.append(f1_score([gold[i] for i in rows], [predicted[i] for i in rows], average="macro"))
    low, high = np.quantile(scores, (0.025, 0.975))
    ours_low, ours_high = macro_f1(gold, predicted).ci95
    assert (ours_low, ours_high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_calibration_by_hand() -> None:
    """Two bins: 4 rows at 0.95 of which 3 are right, 6 at 0.55 of which 3 are: (4·0.2 + 6·0.05)/10."""
    found = calibration([0.95] * 4 + [0.55] * 6, [True] * 3 + [False] + [True, False] * 3)
    assert found.error == pytest.approx(0.11) and found.n == 10
    assert [(b.n, b.accuracy) for b in found.bins] == [(6, 0.5), (4, 0.75)]
    assert [b.confidence for b in found.bins] == pytest.approx([0.55, 0.95])
    assert [(b.low, b.high) for b in found.bins] == [wilson(3, 6), wilson(3, 4)]


def test_bins_are_tenths() -> None:
    sure = [0.05, 0.15, 0.85, 0.899, 0.9, 1.0]
    found = calibration(sure, [True] * 6)
    assert [(b.n, b.confidence) for b in found.bins] == [
        (1, 0.05), (1, 0.15), (2, pytest.approx(0.8745)), (2, pytest.approx(0.95)),
    ]  # fmt: skip


def test_calibration_by_chance_is_what_a_perfect_model_gets() -> None:
    draw = random.Random(0)
    errors = []
    for _ in range(150):
        sure = [draw.choice([0.52, 0.71, 0.93]) for _ in range(150)]
        errors.append(calibration(sure, [draw.random() < p for p in sure]))
    inside = sum(found.error <= found.chance for found in errors) / 150
    assert 0.91 < inside < 0.99
    assert calibration([1.0] * 5, [True] * 5).error == calibration([1.0] * 5, [True] * 5).chance == 0
