"""A share with its interval, alone and in groups, and the mean of other values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.eval.statistics.rates import groups_of, mean_of, rate_of, wilson


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_flags_have_the_interval_of_their_share(flags: list[bool]) -> None:
    found = rate_of(flags).as_json()
    assert found["value"] == sum(flags) / len(flags) and found["n"] == len(flags)
    assert found["stderr"] == pytest.approx(mean_of(flags).stderr, abs=1e-12)
    assert found["ci95"] == pytest.approx(list(wilson(sum(flags), len(flags))))


def test_rows_have_groups_only_where_all_have() -> None:
    assert groups_of([{"group": 1}, {"group": "b"}]) == ["1", "b"]
    assert groups_of([{"group": 1}, {}]) is None
