"""Rows with equal keys: the same pairs as by looking at every pair, also of files that are put together."""

import random
from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tuneyard.compiler.lint import matching
from tuneyard.compiler.lint.fingerprints import NO_ID, Fingerprints
from tuneyard.compiler.lint.matching import first_rows, matches, numbered, paired, repeated
from tuneyard.compiler.rows import Prefix

KEYS = st.lists(st.one_of(st.integers(-3, 6), st.integers(-(2**63), 2**63 - 1)), max_size=40)


def column(numbers):
    return array("q", numbers)


def pairs_by_hand(keys, others):
    left, pairs = list(enumerate(keys)), []
    for other_row, key in enumerate(others):
        found = next((pair for pair in left if pair[1] == key), None)
        if found:
            left.remove(found)
            pairs.append((found[0], other_row))
    return pairs


@given(KEYS, KEYS)
@example([5, -1, 5, 7, -1, 5], [5, 9, -1, 5, -1, -1])
@example([], [])
@example([1, 2], [])
@example([], [1, 1])
def test_the_same_is_found_as_by_looking_at_every_pair(keys, others):
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    first_there = {key: row for row, key in reversed(list(enumerate(others)))}
    distinct = list(dict.fromkeys(keys))
    column_of_keys, column_of_others = column(keys), column(others)
    before = [(row, first[key]) for row, key in enumerate(keys) if first[key] != row]
    assert list(repeated(column_of_keys)) == before
    there = [(row, first_there[key]) for row, key in enumerate(keys) if key in first_there]
    assert list(matches(column_of_keys, column_of_others)) == there
    pairs = list(zip(*paired(column_of_keys, column_of_others), strict=True))
    assert pairs == pairs_by_hand(keys, others)
    assert list(numbered(column_of_keys)) == [distinct.index(key) for key in keys]


@pytest.mark.parametrize("typecode", "qQI")
def test_many_keys_have_the_same_first_rows_as_few(monkeypatch, typecode):
    numbers = random.Random(7)
    keys = array(typecode, [numbers.choice((1, 7, 2**31, numbers.getrandbits(32))) for _ in range(5000)])
    with_a_dict = first_rows(keys)
    monkeypatch.setattr(matching, "FEW", 1)
    assert first_rows(keys) == with_a_dict
    assert first_rows(keys[:1]) == array("I", [0])


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=6))
def test_files_put_together_are_as_one_file(files):
    whole, joined = Fingerprints(), Fingerprints()
    for number, keys in enumerate(files):
        of_file = Fingerprints()
        for seen in (whole, of_file):
            seen.add(Prefix(f"{number}"), keys, {"prompts": keys, "answers": keys[::-1]})
            seen.add_values("labels", keys)
        joined.append(of_file)
    rows = range(whole.rows)
    for ask in (Fingerprints.summary, Fingerprints.repeats, lambda seen: list(map(seen.location, rows))):
        assert ask(joined) == ask(whole)


def test_rows_without_ids_are_no_repeats():
    seen = Fingerprints()
    seen.add(Prefix("file"), range(1, 5), {"ids": [NO_ID, 7, NO_ID, 7]})
    assert seen.repeated_ids() == [(3, 1)]
