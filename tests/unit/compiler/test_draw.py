"""The draw of samples and splits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.compiler.rows.draw import draw_sample, draw_splits


@pytest.mark.parametrize(
    ("sizes", "classes", "split_numbers"),
    [
        ([1] * 40, None, "0001200001120000000002002200202020001000"),
        ([1] * 40, [unit % 3 for unit in range(40)], "0001200001110000000000022200202020002000"),
        ([1, 3, 2, 5] * 10, [unit % 3 for unit in range(40)], "0002200001110200000000022100200020202000"),
    ],
)
def test_the_draw_of_a_seed_never_changes(sizes, classes, split_numbers) -> None:
    """A file of all rows is scored on the rows that a compile of an earlier version held out."""
    drawn = draw_splits(sizes, classes, {"eval": 0.1, "test": 0.2}, 42)
    assert "".join(map(str, drawn)) == split_numbers


def test_the_sample_of_a_seed_never_changes() -> None:
    assert draw_sample(20, 6, 42) == bytes([0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1])


@given(st.integers(0, 500), st.floats(0, 1), st.integers(0, 99))
def test_a_sample_has_as_many_rows_as_it_is_to_have(rows, share, seed) -> None:
    size = round(rows * share)
    marks = draw_sample(rows, size, seed)
    assert (len(marks), sum(marks), set(marks) <= {0, 1}) == (rows, size, True)


def test_every_row_is_as_likely() -> None:
    """10 of 40 rows by 2,000 seeds: each about 500 times (σ 19)."""
    counts = [0] * 40
    for seed in range(2000):
        for row, mark in enumerate(draw_sample(40, 10, seed)):
            counts[row] += mark
    assert min(counts) > 400 and max(counts) < 600
