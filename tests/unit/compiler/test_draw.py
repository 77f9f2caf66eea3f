"""The draw of samples and splits."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.compiler.rows.draw import draw_sample, draw_splits


@pytest.mark.parametrize(
    ("sizes", "classes", "homes"),
    [
        ([1] * 40, None, "0001200001120000000002002200202020001000"),
        ([1] * 40, [unit % 3 for unit in range(40)], "0001200001110000000000022200202020002000"),
        ([1, 3, 2, 5] * 10, [unit % 3 for unit in range(40)], "0002200001110200000000022100200020202000"),
    ],
)
def test_the_draw_of_a_seed_never_changes(sizes, classes, homes) -> None:
    """A file of all rows is scored on the rows that a compile of an earlier version held out."""
    drawn = draw_splits(sizes, classes, {"eval": 0.1, "test": 0.2}, 42)
    assert "".join(map(str, drawn)) == homes


@given(st.integers(0, 500), st.floats(0, 1), st.integers(0, 99))
def test_a_sample_is_the_rows_that_the_standard_library_draws(rows, share, seed) -> None:
    size = round(rows * share)
    marks = draw_sample(rows, size, seed)
    expected = random.Random(seed).sample(range(rows), size)
    assert [row for row, mark in enumerate(marks) if mark] == sorted(expected)
