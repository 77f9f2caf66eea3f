"""Intervals and standard errors against scipy, numbers worked by hand, and a plain formula."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from eval.measure.statistics import clustered_stderr, stderr, wilson


@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts: tuple[int, int]) -> None:
    successes, n = counts
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    low, high = wilson(successes, n)
    assert low == pytest.approx(expected.low, abs=1e-12) and high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= low <= successes / n <= high <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5), (math.nan, 5)])
def test_wilson_refuses_what_is_no_share(successes: float, n: float) -> None:
    with pytest.raises(ValueError, match="expected 0 <= successes"):
        wilson(successes, n)


def test_stderr_by_hand() -> None:
    assert stderr([True, True, True, False]) == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert stderr([True] * 9) == 0.0
    assert stderr([False]) == 0.0
    with pytest.raises(ValueError, match="no rows"):
        stderr([])


def test_clustered_stderr_by_hand() -> None:
    # mean 0.5; group a sums to 0.5 + 0.5 = 1, b to -0.5 - 0.5 = -1: sqrt(2/1 · (1 + 1)) / 4
    assert clustered_stderr([True, True, False, False], list("aabb")) == pytest.approx(math.sqrt(4) / 4)
    # groups that are each half right say the mean exactly
    assert clustered_stderr([True, False, True, False], list("aabb")) == 0.0
    assert clustered_stderr([True, False], ["a", "a"]) == 0.0


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_a_group_for_each_row_is_the_plain_standard_error(correct: list[bool]) -> None:
    assert clustered_stderr(correct, range(len(correct))) == pytest.approx(stderr(correct), abs=1e-12)


@given(st.lists(st.booleans(), min_size=2, max_size=40))
def test_repeating_every_row_in_its_group_adds_no_knowledge(correct: list[bool]) -> None:
    doubled = [x for x in correct for _ in range(2)]
    groups = [i // 2 for i in range(len(doubled))]
    assert clustered_stderr(doubled, groups) == pytest.approx(stderr(correct), abs=1e-12)


def test_clustered_stderr_refuses_lengths_that_differ() -> None:
    with pytest.raises(ValueError, match="3 values and 2 groups"):
        clustered_stderr([1.0, 0.0, 1.0], ["a", "b"])
