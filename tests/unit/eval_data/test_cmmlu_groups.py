"""Averages over sets against another library's interval."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.eval.cmmlu.__main__ import group_score
from tuneyard.eval.statistics.rates import wilson

counts = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def of(*pairs: tuple[int, int]):
    shares = [{"accuracy": right / n, "ci95": wilson(right, n), "n": n} for right, n in pairs]
    return group_score([{**one, "stderr": 0.1, "majority": 0.3} for one in shares])


def test_a_single_set_has_its_wilson_interval() -> None:
    one = of((7, 20))
    assert one["accuracy"] == one["over_questions"] == 0.35
    assert one["ci95"] == pytest.approx(wilson(7, 20))


def test_every_set_counts_alike() -> None:
    two = of((1, 1), (0, 99))
    assert [two[name] for name in ("datasets", "n", "accuracy", "over_questions")] == [2, 100, 0.5, 0.01]
    assert two["majority"] == pytest.approx(0.3)


@given(counts, counts)
def test_two_sets_are_newcombes_interval_of_a_difference(one, other) -> None:
    from statsmodels.stats.proportion import confint_proportions_2indep

    (right, n), (wrong, m) = one, other
    low, high = confint_proportions_2indep(right, n, wrong, m, method="newcomb", compare="diff")
    mean = of((right, n), (m - wrong, m))  # p + (1 - q), of which the mean is (1 + p - q) / 2
    assert mean["ci95"] == pytest.approx(((1 + low) / 2, (1 + high) / 2), abs=1e-9)
