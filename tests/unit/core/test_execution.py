"""The ordered map of work items: its order, slots, failures, held and lost items, and how it ends."""

import fcntl
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.recipes.test_launch import alive
from tuneyard.core import execution
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.execution import (
    Common,
    Executor,
    HeldError,
    InThisProcess,
    Observer,
    Slot,
    WorkItem,
    WorkQueue,
    WorkResult,
    once_per_worker,
)
from tuneyard.core.execution_options import MOST, default_workers, executor_of
from tuneyard.core.local_processes import ForkedProcesses, LocalProcesses

EXECUTORS = {
    "here": InThisProcess,
    "interpreters": lambda: LocalProcesses(SLOTS),
    "forks": lambda: ForkedProcesses(2),
}
SLOTS = [Slot("first", {"PART": "a"}), Slot("second", {"PART": "b"})]


class Journal(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.most_running = 0
        self.running = 0
        self.slot_names: set[str] = set()

    def started(self, name: str, slot: Slot | None) -> None:
        self.running += 1
        if slot is not None:
            self.slot_names.add(slot.name)
        self.most_running = max(self.most_running, self.running)
        self.lines.append(f"start {name}")

    def ended(self, result: WorkResult) -> None:
        self.running -= 1
        self.lines.append(f"end {result.name}")

    def held(self, name: str) -> None:
        self.running -= 1
        self.lines.append(f"held {name}")

    def lost(self, name: str, reason: str) -> None:
        self.running -= 1
        self.lines.append(f"lost {name}: {reason}")

    def waiting(self, names: list[str]) -> None:
        self.lines.append(f"waiting {' '.join(names)}")


def slot_after(seconds: float) -> str:
    time.sleep(seconds)
    print(f"slept {seconds} s")
    return os.environ.get("PART", "")


def fail(kind: str) -> None:
    if kind == "content":
        raise ContentError("row 3 is empty")
    if kind == "disk":
        raise OSError(28, "No space left on device", "out/x")
    if kind == "request":
        raise RequestError("no such file")
    if kind == "memory":
        raise MemoryError
    if kind == "defect":
        raise ZeroDivisionError("by nothing")
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(mark: Path) -> int:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


def start_and_die_once(note: Path) -> int:
    """Start a process that does not end with this one."""
    if note.exists():
        return 7
    child = subprocess.Popen(["sleep", "60"])
    note.write_text(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def hold_for_others(file: Path) -> str:
    with file.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HeldError("held") from error
    return "ran"


def note_pid_and_sleep(file: Path) -> None:
    """Start a process that lives as long as this one, and note both."""
    child = subprocess.Popen(["sleep", "60"])
    file.write_text(f"{os.getpid()} {child.pid}")
    try:
        time.sleep(60)
    finally:
        child.terminate()
        child.wait()


@pytest.fixture(params=EXECUTORS)
def executor(request) -> Iterator[Executor]:
    with EXECUTORS[request.param]() as made:
        yield made


@pytest.fixture(params=["interpreters", "forks"])
def processes(request) -> Iterator[Executor]:
    with EXECUTORS[request.param]() as made:
        yield made


def test_outcomes_come_in_the_order_of_the_tasks_and_slots_are_never_shared() -> None:
    seconds = [0.6, 0.0, 0.0, 0.0]
    items = [WorkItem(str(number), slot_after, (time,)) for number, time in enumerate(seconds)]
    journal = Journal()
    with LocalProcesses(SLOTS) as executor:
        results = list(executor.map(items, journal))
    assert [result.name for result in results] == ["0", "1", "2", "3"]
    assert {result.record for result in results} == {"a", "b"}
    assert [result.output for result in results] == [f"slept {time} s\n" for time in seconds]
    assert journal.lines.index("end 1") < journal.lines.index("end 0")
    assert journal.most_running == 2
    assert journal.slot_names == {"first", "second"}


def test_tasks_are_drawn_when_a_slot_is_free() -> None:
    drawn = []

    def items():
        for number in range(4):
            drawn.append(number)
            yield WorkItem(str(number), slot_after, (0,))

    with LocalProcesses(SLOTS[:1]) as executor:
        results = executor.map(items())
        next(results)
        assert drawn == [0]  # none while the caller works on the first result
        assert [result.name for result in results] == ["1", "2", "3"]


def test_no_more_items_are_drawn_than_may_be_ahead_of_the_first_result(processes) -> None:
    drawn = []

    def items():
        for number in range(12):
            drawn.append(number)
            yield WorkItem(str(number), slot_after, (0.7 if number == 0 else 0.0,))

    results = processes.map(items(), ahead=5)
    assert next(results).name == "0"  # the second worker had the time for all others
    assert len(drawn) == 5
    assert [int(result.name) for result in results] == list(range(1, 12))


def test_a_task_that_fails_does_not_end_the_others(executor) -> None:
    items = [WorkItem(kind, fail, (kind,)) for kind in ("content", "disk", "request", "memory")]
    items.append(WorkItem("good", slot_after, (0,)))
    results = list(executor.map(items))
    errors = [result.error for result in results]
    assert errors[:3] == ["row 3 is empty", "out/x: No space left on device", "no such file"]
    assert errors[3].startswith("out of memory") and errors[4] == ""
    assert [result.exit_code for result in results] == [1, 2, 2, 1, 0]
    with pytest.raises(ContentError, match="row 3 is empty"):
        results[0].record_or_raise()
    with pytest.raises(RequestError, match="no such file"):
        results[2].record_or_raise()
    assert results[4].record_or_raise() == results[4].record


def test_a_defect_in_a_process_has_its_reason_and_its_traceback(processes) -> None:
    items = [WorkItem("x", fail, ("defect",)), *(WorkItem("y", slot_after, (0,)) for _ in range(4))]
    result, *others = processes.map(items)
    assert result.error == "its process ended with exit code 1: ZeroDivisionError: by nothing"
    assert "Traceback" in result.output
    assert [other.error for other in others] == [""] * 4


def test_the_item_of_a_lost_process_is_the_next_to_run() -> None:
    """Nothing holds it back: results come in order, so the others would soon wait for it."""
    queue = WorkQueue([WorkItem("first", fail, ()), WorkItem("second", fail, ())], ahead=2)
    attempt = queue.next_free()
    assert queue.settle_lost(attempt, "was ended by SIGKILL", "", Journal()) is None
    assert queue.next_free() is attempt


def test_the_task_of_a_lost_process_runs_again_once(tmp_path, processes) -> None:
    journal = Journal()
    items = [WorkItem("once", die_once, (tmp_path / "mark",)), WorkItem("always", fail, ("kill",))]
    once, always = processes.map(items, journal)
    assert (once.record, once.error) == (7, "")
    assert "SIGKILL" in always.error
    with pytest.raises(ContentError, match="^always: its process was ended by SIGKILL"):
        always.record_or_raise()
    assert sorted(line for line in journal.lines if line.startswith("lost")) == [
        "lost always: was ended by SIGKILL",
        "lost once: was ended by SIGKILL",
    ]
    assert journal.lines.count("start always") == 2
    assert journal.running == 0


def test_what_the_item_of_a_lost_process_has_started_is_ended_before_it_runs_again(
    tmp_path, processes
) -> None:
    (result,) = processes.map([WorkItem("x", start_and_die_once, (tmp_path / "pid",))])
    assert result.record == 7
    assert not alive(int((tmp_path / "pid").read_text()))


def test_items_that_wait_in_a_lost_worker_are_not_blamed() -> None:
    """Both workers die twice, each with an item waiting: that one runs to its end all the same."""
    names = ["kill", "kill", "good", "good", "kill", "kill", "good", "good"]
    with ForkedProcesses(2) as executor:
        items = [
            WorkItem(name, slot_after if name == "good" else fail, (0 if name == "good" else name,))
            for name in names
        ]
        results = list(executor.map(items))
    assert [result.name for result in results] == names
    assert [result.error == "" for result in results] == [name == "good" for name in names]


class Large:
    """A value of which a worker is to have one at a time."""


def count_large(value: Large) -> int:
    return sum(isinstance(each, Large) for each in gc.get_objects() if each is not value)


def test_a_worker_lets_go_of_a_common_value_that_is_gone_here(processes) -> None:
    others = []
    for _ in range(4):
        (result,) = processes.map([WorkItem("x", count_large, (Common(Large()),))])
        others.append(result.record)
    assert others == [0] * 4


class Heavy:
    """Counts how often it is pickled."""

    pickled = 0

    def __reduce__(self):
        Heavy.pickled += 1
        return (str, ("heavy",))


def describe(common: object, number: int) -> tuple[int, str, int]:
    return os.getpid(), type(common).__name__, number


def test_a_common_value_is_pickled_once_and_a_fork_inherits_it(processes) -> None:
    Heavy.pickled = 0
    common = Common(Heavy())
    items = [WorkItem(str(number), describe, (common, number)) for number in range(20)]
    records = [result.record_or_raise() for result in processes.map(items)]
    assert [number for _, _, number in records] == list(range(20))
    is_forked = isinstance(processes, ForkedProcesses)
    assert {kind for _, kind, _ in records} == {"Heavy" if is_forked else "str"}
    assert Heavy.pickled == (0 if is_forked else 1)
    first_workers = {process for process, _, _ in records}
    assert os.getpid() not in first_workers
    later = Common(Heavy())  # made after the fork: it is sent, to each worker once
    items = [WorkItem(str(number), describe, (later, number)) for number in range(20)]
    records = [result.record_or_raise() for result in processes.map(items)]
    assert {kind for _, kind, _ in records} == {"str"}
    assert {process for process, _, _ in records} <= first_workers  # workers stay for the next map
    assert Heavy.pickled == (1 if is_forked else 2)


LOADED = []


def load(name: str) -> str:
    LOADED.append(name)
    return name.upper()


def use_model(name: str) -> tuple[str, int]:
    return once_per_worker(load, name), len(LOADED)


def test_a_model_is_loaded_once_per_worker_and_one_is_kept(executor) -> None:
    LOADED.clear()
    execution._kept.clear()  # a fork inherits what this process has loaded
    executor = EXECUTORS["here"]() if isinstance(executor, InThisProcess) else type(executor)(_one(executor))
    with executor:
        names = ["a", "a", "a", "b", "b", "a"]
        records = [r.record_or_raise() for r in executor.map([WorkItem(n, use_model, (n,)) for n in names])]
    assert records == [("A", 1), ("A", 1), ("A", 1), ("B", 2), ("B", 2), ("A", 3)]


def _one(executor: Executor) -> object:
    return 1 if isinstance(executor, ForkedProcesses) else SLOTS[:1]


def large(size: int, content: bytes) -> bytes:
    return content[:1] * size


def test_large_arguments_and_records_never_block_each_other(processes) -> None:
    """A socket takes some 200 kB: both ends must read while they write."""
    items = [WorkItem(str(n), large, (5_000_000, bytes([n]) * 5_000_000)) for n in range(6)]
    for number, result in enumerate(processes.map(items)):
        assert result.record == bytes([number]) * 5_000_000


def test_two_maps_at_once_are_refused(processes) -> None:
    first = processes.map([WorkItem(str(n), slot_after, (0.2 * n,)) for n in range(2)])
    next(first)
    with pytest.raises(RuntimeError):
        next(processes.map([WorkItem("x", slot_after, (0,))]))
    first.close()
    assert [result.name for result in processes.map([WorkItem("x", slot_after, (0,))])] == ["x"]


@pytest.mark.parametrize("asks", [True, False], ids=["asked before", "found out"])
def test_a_task_that_another_process_holds_is_taken_when_it_is_free(
    tmp_path, monkeypatch, asks, executor
) -> None:
    monkeypatch.setattr(execution, "HELD_EVERY", 0.05)
    lock = tmp_path / "lock"
    lock.touch()
    holder = subprocess.Popen(["flock", "--no-fork", lock, "sleep", "60"])
    deadline = time.monotonic() + 20
    while is_free(lock):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    class Releasing(Journal):
        def waiting(self, names: list[str]) -> None:
            super().waiting(names)
            holder.kill()
            holder.wait()

        def held(self, name: str) -> None:
            super().held(name)
            self.release_if_asked_and_alone()

        def ended(self, result: WorkResult) -> None:
            super().ended(result)
            self.release_if_asked_and_alone()

        def release_if_asked_and_alone(self) -> None:
            if {"held held", "end other"} <= set(self.lines):
                holder.kill()
                holder.wait()

    held = WorkItem("held", hold_for_others, (lock,))
    if asks:
        held = WorkItem("held", hold_for_others, (lock,), partial(is_free, lock))
    items = [held, WorkItem("other", slot_after, (0,))]
    journal = Releasing()
    results = list(executor.map(items, journal))
    assert [(result.name, result.error) for result in results] == [("held", ""), ("other", "")]
    if asks:  # else it is tried at once when its lock is gone, maybe while the other's worker still starts
        assert journal.lines.index("end other") < journal.lines.index("end held")
    assert ("waiting held" if asks else "held held") in journal.lines


def is_free(lock: Path) -> bool:
    try:
        return hold_for_others(lock) == "ran"
    except HeldError:
        return False


def test_an_item_that_is_held_again_and_again_is_tried_with_pauses(monkeypatch) -> None:
    monkeypatch.setattr(execution, "HELD_EVERY", 0.2)
    tries = []

    def held_at_first() -> None:
        tries.append(time.monotonic())
        if len(tries) < 4:
            raise HeldError("held")

    list(InThisProcess().map([WorkItem("held", held_at_first, ())]))
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert len(pauses) == 3 and min(pauses) > 0.15


def end_without_a_last_line(code: int) -> None:
    print("the reason\n\n", flush=True)
    os._exit(code)


class UnpicklableError(Exception):
    """An error that no process can send."""

    def __init__(self) -> None:
        super().__init__("with a lock")
        self.lock = threading.Lock()


def raise_unpicklable() -> None:
    raise UnpicklableError


def return_unpicklable() -> object:
    print("before the reply")
    return threading.Lock()


def leave(code: int) -> None:
    os._exit(code)


@pytest.mark.parametrize(
    ("function", "arguments", "error"),
    [
        (
            raise_unpicklable,
            (),
            "ended with exit code 1: tests.unit.core.test_execution.UnpicklableError: with",
        ),
        (return_unpicklable, (), "ended with exit code 1: TypeError: cannot pickle '_thread.lock' object"),
        (leave, (0,), "ended with exit code 0: it printed nothing"),
        (sys.exit, (0,), "ended with exit code 0: it printed nothing"),
    ],
)
def test_an_item_without_a_reply_that_can_be_sent_fails_alone(processes, function, arguments, error) -> None:
    items = [WorkItem("bad", function, arguments), *(WorkItem(str(n), slot_after, (0,)) for n in range(4))]
    journal = Journal()
    bad, *others = processes.map(items, journal)
    assert error in bad.error and bad.is_lost
    if function is return_unpicklable:
        assert "before the reply" in bad.output
    assert [other.error for other in others] == [""] * 4 and journal.running == 0


def print_much(size: int) -> int:
    print("x" * size)
    return os.getpid()


def test_what_a_worker_has_printed_is_not_kept_for_its_life(processes) -> None:
    results = list(processes.map([WorkItem(str(n), print_much, (3_000_000 + n,)) for n in range(6)]))
    assert [len(result.output) for result in results] == [3_000_001 + n for n in range(6)]
    for worker in {result.record for result in results}:
        assert Path(f"/proc/{worker}/fd/1").stat().st_size == 0


def test_no_items_and_fewer_items_than_workers(executor) -> None:
    assert list(executor.map([])) == []
    (result,) = executor.map([WorkItem("x", slot_after, (0,))])
    assert result.error == ""


class BrokenError(Exception):
    """An error in code that follows a map."""


class Broken(Observer):
    """Fails at the first result."""

    def ended(self, result: WorkResult) -> None:
        raise BrokenError(result.name)


def test_an_observer_that_fails_ends_the_items(tmp_path, processes) -> None:
    items = [WorkItem("first", wait_for_file, (tmp_path / "b",))]
    items.append(WorkItem("second", note_pid_and_sleep, (tmp_path / "b",)))
    with pytest.raises(BrokenError, match="first"):
        list(processes.map(items, Broken()))
    assert not any(alive(int(word)) for word in (tmp_path / "b").read_text().split())
    assert [result.error for result in processes.map([WorkItem("x", slot_after, (0,))])] == [""]


def wait_for_file(path: Path) -> None:
    while not path.exists() or not path.read_text():
        time.sleep(0.01)


def test_the_reason_of_a_lost_process_is_its_last_line_with_text(processes) -> None:
    (result,) = processes.map([WorkItem("x", end_without_a_last_line, (3,))])
    assert result.error == "its process ended with exit code 3: the reason"
    with pytest.raises(ContentError, match="^x: its process ended"):
        result.record_or_raise()


def test_a_worker_that_is_killed_between_maps_is_replaced(processes) -> None:
    items = [WorkItem(str(n), describe, (None, n)) for n in range(2)]
    for process in {result.record[0] for result in processes.map(items)}:
        os.kill(process, signal.SIGKILL)
    assert [result.error for result in processes.map(items)] == ["", ""]


def test_leaving_ends_idle_workers(processes) -> None:
    (result,) = processes.map([WorkItem("x", describe, (None, 0))])
    assert alive(result.record[0])
    processes.close()
    assert not alive(result.record[0])


def numbers(file: Path, process: "subprocess.Popen[bytes]") -> list[int]:
    """Wait for the numbers that an item notes in a file."""
    deadline = time.monotonic() + 20
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    return [int(word) for word in file.read_text().split()]


@pytest.mark.parametrize("kind", ["interpreters", "forks"])
@pytest.mark.parametrize(
    "signs", [(signal.SIGINT,), (signal.SIGINT,) * 2, (signal.SIGTERM,), (signal.SIGKILL,)]
)
def test_whatever_ends_the_map_ends_its_tasks_and_what_they_have_started(tmp_path, signs, kind) -> None:
    code = f"""
import signal, sys
from pathlib import Path
from tests.unit.core.test_execution import EXECUTORS, note_pid_and_sleep
from tuneyard.core.execution import WorkItem
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
files = [Path({str(tmp_path)!r}, name) for name in "ab"]
with EXECUTORS[{kind!r}]() as executor:
    list(executor.map([WorkItem(file.name, note_pid_and_sleep, (file,)) for file in files]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    started = [number for name in "ab" for number in numbers(tmp_path / name, process)]
    for sign in signs:
        os.kill(process.pid, sign)
        time.sleep(0.01)
    process.wait(20)
    deadline = time.monotonic() + 10
    while any(alive(number) for number in started):
        assert time.monotonic() < deadline, "an item outlived the map"
        time.sleep(0.05)


def test_an_interrupt_that_another_thread_receives_at_a_fork_ends_the_map() -> None:
    """Python ignores what is raised in functions that libraries, such as logging, register for forks."""
    code = """
import os, signal, threading, time
from tests.unit.core.test_execution import describe
from tuneyard.core.execution import WorkItem
from tuneyard.core.local_processes import ForkedProcesses
other = threading.Thread(target=time.sleep, args=(60,), daemon=True)
other.start()
def interrupt():
    signal.pthread_kill(other.ident, signal.SIGINT)
    time.sleep(0.1)
os.register_at_fork(before=interrupt)
with ForkedProcesses(1) as executor:
    list(executor.map([WorkItem("x", describe, (None, 0))]))
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.returncode == -signal.SIGINT and "ignored" not in process.stderr


def test_one_worker_is_this_process() -> None:
    assert isinstance(executor_of(None, None), InThisProcess)
    assert isinstance(executor_of(1, None, default=4), InThisProcess)
    with executor_of(None, None, default=3) as executor:
        assert isinstance(executor, ForkedProcesses) and executor.workers == 3


def test_several_processes_are_the_default_where_they_pay_and_forks_are_safe(monkeypatch) -> None:
    for cores, platform, size, expected in (
        (6, "linux", 99, 1),
        (6, "linux", 100, 6),
        (64, "linux", 100, MOST),
        (6, "darwin", 100, 1),
    ):
        monkeypatch.setattr("tuneyard.core.execution_options.available_cores", lambda cores=cores: cores)
        monkeypatch.setattr(sys, "platform", platform)
        assert default_workers(size, several_pay=100) == expected
