"""Places of rows in few bytes: also of rows on one line, and at keys of an object."""

import pickle

import pytest

from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.rows import AtKey, InList, Prefix
from tuneyard.compiler.rows.locations import Locations

ROWS = 1000
LINE, ITEM, TEXT = 4, 4, 12
"""Bytes of a row: its line, its number in a list, and the place of its text among the texts."""
TOO_HIGH = 1 << 32
LINES = {
    "every third line": (lambda n: 3 * n, lambda n: f"{3 * n}", LINE),
    "no order": (lambda n: n * 7919 % 100_003, lambda n: f"{n * 7919 % 100_003}", LINE),
    "highest lines": (lambda n: TOO_HIGH - 1 - n, lambda n: f"{4294967295 - n}", LINE),
    "one line": (
        lambda n: InList(1, n + 1, "record ", "") if n else 1,
        lambda n: f"1 record {n + 1}" if n else "1",
        LINE + ITEM,
    ),
    "two a line": (
        lambda n: InList(n // 2, n + 1, "record ", "") if n % 2 else n // 2,
        lambda n: f"{n // 2} record {n + 1}" if n % 2 else f"{n // 2}",
        LINE + ITEM,
    ),
    "list": (lambda n: InList(n // 7, n, "a.rows[", "]"), lambda n: f"{n // 7} a.rows[{n}]", LINE + ITEM),
    "keys": (
        lambda n: AtKey(n, n, f'key "\ud800 {n}"'),
        lambda n: f'{n} key "\ud800 {n}"',
        LINE + ITEM + TEXT + len('key "??? 2999"'),
    ),
    "plug-in": (lambda n: f"p. {n}\n2", lambda n: f"p. {n}\n2", LINE + ITEM + TEXT + len("p. 2999\n2")),
    "empty": (lambda _: "", lambda _: "", LINE + ITEM + TEXT),
}
BEYOND = {
    "over 4 bytes": (lambda n: TOO_HIGH + n, lambda n: f"{4294967296 + n}"),
    "below 0": (lambda n: -n, lambda n: f"{-n}"),
    "list": (lambda n: InList(TOO_HIGH, n, "[", "]"), lambda n: f"4294967296 [{n}]"),
    "item": (lambda n: InList(1, TOO_HIGH + n, "[", "]"), lambda n: f"1 [{4294967296 + n}]"),
    "key": (lambda n: AtKey(TOO_HIGH, n, f"key {n}"), lambda n: f"4294967296 key {n}"),
}
"""Lines with numbers of more than 4 bytes: their places are kept as texts."""


def seen_of(*batches):
    seen = Fingerprints()
    for lines in batches:
        seen.add(Prefix("a.json"), lines, {})
    return seen


def lines_of(line_of):
    return [[line_of(batch * ROWS + number) for number in range(ROWS)] for batch in range(3)]


@pytest.mark.parametrize("kind", LINES)
def test_places_take_few_bytes_and_come_back(kind):
    line_of, text_of, most = LINES[kind]
    batches = lines_of(line_of)
    seen = seen_of(*batches)
    places = [seen.location(row) for row in range(3 * ROWS)]
    assert places == [f"a.json:{text_of(row)}" for row in range(3 * ROWS)]
    assert [place.line for place in places] == [line for lines in batches for line in lines]
    assert len(pickle.dumps(seen._locations)) <= most * 3 * ROWS + 500
    order = [2 * ROWS, 0, ROWS + 7]
    assert [seen.take(order).location(row) for row in range(3)] == [places[row] for row in order]


@pytest.mark.parametrize("kind", BEYOND)
def test_lines_of_more_than_4_bytes_keep_their_places(kind):
    line_of, text_of = BEYOND[kind]
    seen = seen_of(*lines_of(line_of))
    places = [seen.location(row) for row in range(3 * ROWS)]
    assert places == [f"a.json:{text_of(row)}" for row in range(3 * ROWS)]


def test_files_of_all_kinds_follow_each_other():
    """Each file of its own, and all put together as those of several processes are."""
    kinds = {**LINES, **BEYOND}
    one, together, expected = Locations(), Locations(), []
    for number, kind in enumerate([*kinds, *reversed(kinds)]):
        prefix = Prefix(f"{number}.json", " row " if number % 2 else ":")
        other = Locations()
        for lines in ([], [kinds[kind][0](5), kinds[kind][0](6)], [kinds[kind][0](7)]):
            one.add(prefix, lines)
            other.add(prefix, lines)
        together.append(pickle.loads(pickle.dumps(other)))
        expected += [f"{prefix.file}{prefix.between}{kinds[kind][1](row)}" for row in (5, 6, 7)]
    assert one.rows == together.rows == len(expected) == 2 * 3 * len(kinds)
    assert [one[row] for row in range(one.rows)] == expected
    assert [together[row] for row in range(one.rows)] == expected
