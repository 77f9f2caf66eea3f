"""Rows with equal keys: the same pairs in memory and in shares, in a bounded number of bytes a row."""

import random
import tracemalloc
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.compiler.lint import matching, spool
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.matching import matches, numbered, paired, repeated, shared_keys
from tuneyard.compiler.lint.spool import Spool
from tuneyard.core.row_index import write_row_index

KEYS = st.lists(st.one_of(st.integers(-3, 6), st.integers(-(2**63), 2**63 - 1)), max_size=40)
MOST = 24  # bytes of memory a row


@pytest.fixture(params=["in memory", "in shares"])
def way(request, monkeypatch):
    if request.param == "in shares":
        monkeypatch.setattr(matching, "NUMPY_PAYS", -1)
        monkeypatch.setattr(matching, "SHARE", 3)
        monkeypatch.setattr(spool, "BLOCK", 4)
        monkeypatch.setattr(spool, "IN_MEMORY", 24)


def column(numbers, typecode="q"):
    keys = Spool(typecode)
    keys.fromlist(list(numbers))
    return keys


@pytest.mark.usefixtures("way")
def test_equal_keys_are_found_by_row():
    keys = column([5, -1, 5, 7, -1, 5])
    assert repeated(keys) == [(2, 0), (4, 1), (5, 0)]
    assert repeated(column([1, 2, 3, 4, 9])) == repeated(column([])) == repeated(column([4, 1])) == []
    assert matches(keys, column([7, 5, 5, 0])) == [(0, 2), (2, 2), (3, 0), (5, 2)]
    assert matches(keys, column([])) == matches(column([]), keys) == []
    assert shared_keys(keys, column([5, 5, 7, 8])) == 2
    assert list(numbered(keys)) == [0, 1, 0, 2, 1, 0]
    assert list(map(list, paired(keys, column([5, 9, -1, 5, -1, -1])))) == [[0, 1, 2, 4], [0, 2, 3, 4]]
    assert list(map(list, paired(keys, column([])))) == list(map(list, paired(column([]), keys))) == [[], []]


def pairs_by_hand(keys, others):
    left, pairs = list(enumerate(keys)), []
    for other_row, key in enumerate(others):
        found = next((pair for pair in left if pair[1] == key), None)
        if found:
            left.remove(found)
            pairs.append((found[0], other_row))
    return pairs


@given(KEYS, KEYS)
def test_in_shares_the_same_is_found_as_by_looking_at_every_pair(keys, others):
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    last = {key: row for row, key in enumerate(others)}
    distinct = list(dict.fromkeys(keys))
    with pytest.MonkeyPatch.context() as patch:
        for most in (1000, -1):
            patch.setattr(matching, "NUMPY_PAYS", most)
            patch.setattr(matching, "SHARE", 5)
            patch.setattr(spool, "BLOCK", 3)
            patch.setattr(spool, "IN_MEMORY", 40)
            column_of_keys, column_of_others = column(keys), column(others)
            before = [(row, first[key]) for row, key in enumerate(keys) if first[key] != row]
            assert repeated(column_of_keys) == before
            there = [(row, last[key]) for row, key in enumerate(keys) if key in last]
            assert matches(column_of_keys, column_of_others) == there
            assert shared_keys(column_of_keys, column_of_others) == len({*keys} & {*others})
            assert pairs_by_hand(keys, others) == list(
                zip(*paired(column_of_keys, column_of_others), strict=True)
            )
            assert list(numbered(column_of_keys)) == [distinct.index(key) for key in keys]


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=9), max_size=9), st.integers(1, 50))
def test_a_spool_reads_what_was_appended(parts, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "IN_MEMORY", most)
        patch.setattr(spool, "BLOCK", 4)
        numbers, expected = Spool("I"), [number for part in parts for number in part]
        for part in parts:
            numbers.extend(iter(part))
        assert list(numbers) == list(numbers.whole()) == expected and len(numbers) == len(expected)
        assert [numbers[row] for row in range(len(expected))] == expected
        middle = slice(len(expected) // 3, len(expected) // 2 + 1)
        assert list(numbers[middle]) == expected[middle]
        order = list(range(len(expected)))[::-2]
        assert list(numbers.take(order)) == [expected[row] for row in order]
        with pytest.raises(ValueError, match="expected 1"):
            numbers[::2]
        numbers.clear()
        assert list(numbers) == [] and not numbers
        numbers.fromlist([3])
        assert list(numbers) == [3]


def test_a_file_of_numbers_is_read_as_it_is(tmp_path):
    path = tmp_path / "numbers"
    path.write_bytes(array("Q", [1, 2**64 - 1, 3]).tobytes())
    numbers = Spool.of_file(path, "Q")
    path.unlink()
    assert list(numbers) == [1, 2**64 - 1, 3] and numbers[1] == 2**64 - 1


def test_lines_of_rows_are_found_again_whatever_their_distance():
    seen = Fingerprints()
    batches = [
        ("a:", [1, 2, 3]),
        ("a:", [4, 6, 9]),
        ("b:", [2, 7, 12]),
        ("c:", [5]),
        ("d row ", range(8, 11)),
        ("e:", ["1 record 2", "1 record 3"]),
        ("f:", [10, 20, 21]),
        ("g:", [3, 3]),
    ]
    for prefix, lines in batches:
        seen.begin(prefix, lines)
        seen.prompts.fromlist([0] * len(lines))
    places = [f"{prefix}{line}" for prefix, lines in batches for line in lines]
    assert [seen.place(row) for row in range(seen.rows)] == places
    order = [4, 0, 13, 9]
    assert [seen.take(order).place(row) for row in range(4)] == [places[row] for row in order]


@pytest.mark.parametrize("compared", [True, False])
def test_memory_grows_by_few_bytes_a_row(tmp_path, monkeypatch, compared):
    """What a compile keeps of a row, compares and writes next to the records, with smaller limits."""
    import numpy  # noqa: F401  # so that its import is not counted

    monkeypatch.setattr(matching, "NUMPY_PAYS", 50_000)
    monkeypatch.setattr(matching, "SHARE", 1 << 13)
    monkeypatch.setattr(spool, "BLOCK", 1 << 13)
    monkeypatch.setattr(spool, "IN_MEMORY", 1 << 16)
    peaks = {}
    for rows in (60_000, 180_000):
        draw = random.Random(rows)
        tracemalloc.start()
        try:
            seen = Fingerprints(counted_only=not compared)
            for start in range(0, rows, 2000):
                keys = [draw.getrandbits(63) for _ in range(2000)]
                seen.begin("file:", list(range(start + 1, start + 2001)))
                seen.groups.fromlist([key % rows for key in keys])
                seen.ids.extend(array("q", keys))
                seen.labels.note([key % 3 for key in keys])
                seen.prompts.fromlist(keys)
                seen.answers.fromlist(keys)
                seen.lengths.fromlist([key % 500 for key in keys])
                if seen.counted_only:
                    seen.fold()
            assert seen.repeats() == ([], []) and repeated(seen.ids) == []
            assert seen.summary()["rows"] == rows
            write_row_index(tmp_path / "examples", range(rows), {"premise": seen.clusters()})
            peaks[rows] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (peaks[180_000] - peaks[60_000]) / 120_000 <= MOST
