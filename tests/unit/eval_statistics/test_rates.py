"""A share with its interval, alone and in groups, and the mean of other values."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.eval.statistics.rates import groups_of, mean_of, rate, rate_of, wilson


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_flags_have_the_interval_of_their_share(flags: list[bool]) -> None:
    found = rate(flags)
    assert found["value"] == sum(flags) / len(flags) and found["n"] == len(flags)
    assert found["stderr"] == pytest.approx(mean_of(flags).stderr, abs=1e-12)
    assert found["ci95"] == pytest.approx(list(wilson(sum(flags), len(flags))))


def test_means_by_hand() -> None:
    values = [0.2, 0.4, 0.9]
    found = rate(values)
    assert found["value"] == pytest.approx(0.5)
    assert found["stderr"] == pytest.approx(mean_of(values).stderr)
    assert found["ci95"] == pytest.approx(list(wilson(1.5, 3)))


def test_rows_have_groups_only_where_all_have() -> None:
    assert groups_of([{"group": 1}, {"group": "b"}]) == ["1", "b"]
    assert groups_of([{"group": 1}, {}]) is None


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="one at least"):
        rate([])


def test_five_clusters_hold_the_share_as_often_as_they_say() -> None:
    """Five clusters of 20 rows, each of a share of its own around 0.7; with z for t they hold it in 88 %."""
    held = 0
    for seed in range(600):
        draw = random.Random(seed)
        shares = [draw.betavariate(1.4, 0.6) for _ in range(5)]
        flags = [float(draw.random() < share) for share in shares for _ in range(20)]
        low, high = rate_of(flags, [number for number in range(5) for _ in range(20)]).ci95
        held += low <= 0.7 <= high
    assert 0.93 <= held / 600 <= 0.97
