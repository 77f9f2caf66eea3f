"""The draw that compile writes and eval repeats."""

from collections import Counter

import pytest

from core.splits import REST, draw_splits


@pytest.mark.parametrize(("count", "share"), [(2000, 0.1), (7, 0.5), (3, 0.01)])
def test_a_share_of_single_rows_is_exact_and_the_same_in_every_draw(count, share) -> None:
    homes = draw_splits([1] * count, None, {"eval": share}, 42)
    assert homes == draw_splits([1] * count, None, {"eval": share}, 42)
    assert Counter(homes)["eval"] == max(1, round(count * share))
    assert set(homes) <= {REST, "eval"}


def test_units_stay_whole_and_classes_keep_their_shares() -> None:
    sizes, classes = [3, 1] * 40, [0, 1] * 40
    homes = draw_splits(sizes, classes, {"eval": 0.1, "test": 0.2}, 3)
    rows = Counter()
    for size, kind, home in zip(sizes, classes, homes, strict=True):
        rows[kind, home] += size
    assert rows[0, "eval"] == 12 and rows[1, "eval"] == 4
    assert rows[0, "test"] == 24 and rows[1, "test"] == 8
