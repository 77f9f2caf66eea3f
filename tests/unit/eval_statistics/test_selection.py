"""One half to choose on, the other to report: the same for everybody, rows of one key together."""

import pytest

from tuneyard.core.errors import ContentError
from tuneyard.eval.statistics.selection import split_halves

KEYS = [f"question {n // 2}" for n in range(400)]


def test_every_row_is_in_one_half_and_rows_of_one_key_in_the_same():
    chosen, reported = split_halves(KEYS, 42, "here")
    assert sorted([*chosen, *reported]) == list(range(400))
    assert not {KEYS[row] for row in chosen} & {KEYS[row] for row in reported}
    assert 140 < len(chosen) < 260


def test_one_row_is_too_little_to_choose_on():
    with pytest.raises(ContentError, match="add rows"):
        split_halves(KEYS[::2][:3], 42, "here")


def test_halves_depend_on_the_key_and_the_seed_alone():
    chosen, _ = split_halves(KEYS, 42, "here")
    turned, _ = split_halves(KEYS[::-1], 42, "here")
    assert {KEYS[row] for row in chosen} == {KEYS[::-1][row] for row in turned}
    assert split_halves(KEYS, 43, "here")[0] != chosen
