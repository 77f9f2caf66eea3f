"""Places of rows in few bytes: also of rows that stand on one line."""

import pickle

import pytest

from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.rows import Prefix

ROWS = 1000


def seen_of(batches):
    seen = Fingerprints()
    for lines in batches:
        seen.add(Prefix("a.json"), lines, {})
    return seen


@pytest.mark.parametrize(
    "line_of",
    [
        lambda number: f"1 record {number + 1}" if number else 1,
        lambda number: f"{number // 7} data[{number}]",
        lambda number: f'1 key "half \ud800 of {number}"',
        lambda number: 3 * number,
        lambda number: number * number,
        lambda number: f"page {number}\nline 2",
    ],
)
def test_places_take_few_bytes_and_come_back(line_of):
    batches = [[line_of(batch * ROWS + number) for number in range(ROWS)] for batch in range(3)]
    seen = seen_of(batches)
    places = [f"a.json:{line}" for lines in batches for line in lines]
    assert list(map(seen.place, range(3 * ROWS))) == places
    assert len(pickle.dumps(seen._places)) <= 16 * 3 * ROWS
    order = [2 * ROWS, 0, ROWS + 7]
    assert [seen.take(order).place(row) for row in range(3)] == [places[row] for row in order]
