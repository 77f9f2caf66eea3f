"""A bound on what users' expressions may take: it ends the hopeless, and lets all else be."""

import re
import signal
import threading
import time

import pytest

from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.core.execution.time_limit import bounded


def catastrophic() -> None:
    re.fullmatch("(a+)+b", "a" * 60)


def test_a_hopeless_expression_ends_with_its_place() -> None:
    started = time.process_time()
    with raises(ContentError, "a.json: target_modules", "0.1 s"), bounded("a.json: target_modules", 0.1):
        catastrophic()
    assert time.process_time() - started < 2


def test_nothing_is_left_behind() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with bounded("x", 60):
        pass
    with pytest.raises(ContentError), bounded("x", 0.05):
        catastrophic()
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGVTALRM) == before


def test_a_block_inside_another_keeps_the_shorter_limit_and_hands_the_rest_back() -> None:
    with pytest.raises(ContentError), bounded("outer", 0.1), bounded("inner", 60):
        catastrophic()
    with raises(ContentError, "outer", "0.2 s"), bounded("outer", 0.2):
        with bounded("inner", 60):
            pass
        catastrophic()


def test_waiting_is_not_computing() -> None:
    with bounded("x", 0.05):
        time.sleep(0.2)


def test_other_threads_run_on() -> None:
    done: list[bool] = []

    def work() -> None:
        with bounded("x", 0.001):
            done.append(re.search("b", "a" * 10_000_000) is None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_the_shorter_limit_is_kept_in_time() -> None:
    started = time.process_time()
    with pytest.raises(ContentError), bounded("outer", 0.2), bounded("inner", 60):
        while time.process_time() - started < 10:
            pass
    assert time.process_time() - started < 2
    with pytest.raises(ContentError), bounded("outer", 60), bounded("inner", 0.2):
        while time.process_time() - started < 10:
            pass
    assert time.process_time() - started < 4
