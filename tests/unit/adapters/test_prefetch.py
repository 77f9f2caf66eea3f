"""Working prefetch: results in order, few at a time, and a failure where it belongs."""

import pytest

from tuneyard.adapters.prefetch import PREFETCHED, prefetch


def test_results_come_in_order_and_few_are_worked_out_before_they_are_asked_for():
    begun = []

    def work(item):
        begun.append(item)
        return item * item

    results = prefetch(work, range(100))
    assert next(results) == 0
    assert len(begun) <= PREFETCHED + 1
    assert list(results) == [i * i for i in range(1, 100)]


def test_a_failure_comes_at_its_place_and_ends_the_work():
    begun = []

    def work(item):
        begun.append(item)
        return 1 // (item - 3)

    results = prefetch(work, range(100))
    assert [next(results) for _ in range(3)] == [-1, -1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert max(begun) <= 3 + PREFETCHED
