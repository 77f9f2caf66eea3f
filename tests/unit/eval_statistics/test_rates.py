"""Shares and means: intervals against scipy, standard errors by hand and by a plain formula."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tuneyard.eval.statistics.rates import Z95, groups_of, mean_of, rate_of, wilson
from tuneyard.eval.statistics.spread import student_deviate


@given(st.lists(st.booleans(), min_size=2, max_size=50))
def test_flags_have_the_interval_of_their_share(flags: list[bool]) -> None:
    found = rate_of(flags).as_json()
    assert found["value"] == sum(flags) / len(flags) and found["n"] == len(flags)
    assert found["stderr"] == pytest.approx(mean_of(flags).stderr, abs=1e-12)
    assert found["ci95"] == pytest.approx(list(wilson(sum(flags), len(flags))))


def test_rows_have_groups_only_where_all_have() -> None:
    assert groups_of([{"group": 1}, {"group": "b"}]) == ["1", "b"]
    assert groups_of([{"group": 1}, {}]) is None


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
