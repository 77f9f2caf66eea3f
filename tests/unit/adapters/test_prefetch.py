"""Working prefetch: results in order, few at a time, and a failure where it belongs."""

import threading

import pytest

from tests.unit.adapters.make import factors, make
from tuneyard.adapters import merge
from tuneyard.adapters.merge import MergeRequest, plan_merging
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


def test_a_merge_that_fails_leaves_no_thread_while_its_error_is_known(tmp_path, monkeypatch):
    """The garbage collector once joined such a thread from another that was starting, and hung."""
    adapter = make(tmp_path / "a", factors(layers=8))
    plan = plan_merging(MergeRequest([(str(adapter), 1.0)], tmp_path / "out"))

    def full(_path, _specs, values):
        next(iter(values))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merge, "write_weights", full)
    threads = threading.active_count()
    with pytest.raises(OSError, match="No space left") as error:
        plan.write(lambda _: None)
    assert error.traceback and threading.active_count() == threads
