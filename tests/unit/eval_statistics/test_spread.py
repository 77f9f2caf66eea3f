"""Standard errors, degrees of freedom and skew of means over clusters: against scipy and brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, ttest_1samp
from scipy.stats import t as student

from tuneyard.eval.statistics.rates import Z95, ratio
from tuneyard.eval.statistics.spread import (
    normal_deviate,
    satterthwaite,
    skewed,
    spread_of,
    student_deviate,
    unskewed,
)


def freedom_of(sizes: list[int]) -> float:
    return float(satterthwaite(np.array(sizes, dtype=float)[:, None] / sum(sizes))[0])


@settings(max_examples=50)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=20))
def test_degrees_of_freedom_are_those_of_the_matrix_itself(sizes: list[int]) -> None:
    """Bell and McCaffrey's (2002): residuals r = (I - h 1') s, Satterthwaite on the eigenvalues of their
    scaled covariance."""
    shares = np.array(sizes) / sum(sizes)
    maker = np.eye(len(sizes)) - np.outer(shares, np.ones(len(sizes)))
    scale = np.diag(1 / np.sqrt(1 - shares))
    covariance = scale @ maker @ np.diag(shares**2) @ maker.T @ scale
    values = np.linalg.eigvalsh(covariance)
    wanted = max(1.0, values.sum() ** 2 / (values**2).sum())
    assert freedom_of(sizes) == pytest.approx(wanted, rel=1e-6)
    assert freedom_of(sizes) <= len(sizes) - 1 + 1e-6


def test_independent_rows_have_the_textbooks_error_and_students_limits() -> None:
    values = np.random.default_rng(0).normal(size=40)
    found = ratio(values.tolist(), [1] * 40)
    assert found.stderr == pytest.approx(values.std(ddof=1) / math.sqrt(40))
    limits = ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.ci95[0] <= limits.low + 1e-4 and found.ci95[1] >= limits.high - 1e-4
    even = np.concatenate([values, -values])  # no skew at all
    limits = ttest_1samp(even, 0).confidence_interval(0.95)
    assert ratio(even.tolist(), [1] * 80).ci95 == pytest.approx((limits.low, limits.high), abs=1e-4)


def test_a_single_cluster_has_no_error() -> None:
    spread = spread_of(np.array([[3.0]]), np.array([[7.0]]))
    assert math.isinf(spread.error[0]) and spread.freedom.tolist() == [1.0]
    assert ratio([1.0, 2.0], [1, 1], ["a", "a"]).with_limits == (1.5, -math.inf, math.inf)


@pytest.mark.parametrize(("freedom", "within"), [(2, 0.045), (3, 0.012), (5, 0.003), (10, 5e-4), (99, 1e-5)])
def test_students_critical_value_is_scipys_or_more(freedom: float, within: float) -> None:
    found = float(student_deviate(Z95, np.array(freedom)))
    wanted = student.ppf(0.975, freedom)
    assert wanted <= found * (1 + 1e-6) and found == pytest.approx(wanted, rel=within)


@given(st.floats(0, 8), st.floats(1, 1e6))
def test_deviates_are_each_others_inverse_and_nearly_as_unlikely_as_t(deviate: float, freedom: float) -> None:
    own = np.array(freedom)
    t = student_deviate(deviate, own)
    assert normal_deviate(t, own) == pytest.approx(deviate, abs=1e-6)
    if freedom >= 3 and deviate < 3:
        assert student.sf(t, freedom) == pytest.approx(norm.sf(deviate), rel=0.25)
    if deviate >= 2:
        assert student.sf(t, freedom) <= norm.sf(deviate) * (1 + 1e-6)


@given(st.floats(-10, 10), st.floats(-1, 1))
def test_the_scale_without_skew_rises_and_turns_back(statistic: float, skew: float) -> None:
    t, a = np.array([statistic, statistic + 0.1]), np.array(skew)
    moved = unskewed(t, a)
    assert moved[0] <= moved[1] + 1e-9
    assert skewed(moved, a) == pytest.approx(t, abs=1e-3)
