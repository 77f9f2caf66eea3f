"""Work that threads do ahead."""

from tuneyard.adapters.threads import PREFETCHED, prefetch


def test_results_come_in_order_and_few_are_worked_out_before_they_are_asked_for():
    begun = []

    def work(item):
        begun.append(item)
        return item * item

    results = prefetch(work, range(100))
    assert next(results) == 0
    assert len(begun) <= PREFETCHED + 1
    assert list(results) == [i * i for i in range(1, 100)]
