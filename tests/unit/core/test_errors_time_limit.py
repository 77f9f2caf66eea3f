"""A bound on what users' expressions may take: it ends the hopeless, and lets all else be."""

import re
import signal
import threading
import time

import pytest

from tests.messages import raises
from tuneyard.core import errors
from tuneyard.core.errors import ContentError, bounded


def catastrophic() -> None:
    re.fullmatch("(a+)+b", "a" * 60)


@pytest.fixture(autouse=True)
def limit(monkeypatch) -> None:
    monkeypatch.setattr(errors, "TIME_LIMIT", 0.1)


def test_a_hopeless_expression_ends_with_its_place_and_leaves_no_timer() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    started = time.process_time()
    with raises(ContentError, "a.json: target_modules", "0.1 s"), bounded("a.json: target_modules"):
        catastrophic()
    assert time.process_time() - started < 2
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGVTALRM) == before


def test_waiting_is_not_computing() -> None:
    """Twice the limit passes while a block waits, which computing for as long does not."""
    started = time.monotonic()
    with bounded("x"):
        time.sleep(0.2)
        waited = time.monotonic() - started
    assert waited >= 2 * errors.TIME_LIMIT
    with raises(ContentError, "x", "0.1 s"), bounded("x"):
        catastrophic()


def test_other_threads_run_on(monkeypatch) -> None:
    monkeypatch.setattr(errors, "TIME_LIMIT", 0.001)
    done: list[bool] = []

    def work() -> None:
        with bounded("x"):
            done.append(re.search("b", "a" * 10_000_000) is None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
