"""The ordered map of work items: its order, slots, failures and lost items, and how it ends."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.processes import alive, wait_for_end, written
from tests.work_items import (
    EXECUTORS,
    LOADED,
    SLOTS,
    Heavy,
    describe,
    die_once,
    die_once_in_the_result,
    fail,
    large,
    note_pid_and_sleep,
    print_much,
    slot_after,
    start_and_die_once,
    use_model,
)
from tuneyard.core import execution
from tuneyard.core.errors import ContentError, Problem, ProblemsError, RequestError
from tuneyard.core.execution import (
    Executor,
    InThisProcess,
    Observer,
    WorkItem,
    WorkResult,
)
from tuneyard.core.execution.local_processes import LocalProcesses
from tuneyard.core.execution.options import MOST, default_workers, executor_of
from tuneyard.core.execution.processes import GRACE

INTERPRETERS = pytest.param("interpreters", marks=pytest.mark.slow)
"""Each of these starts an interpreter; the fast tests run the same with forks."""


class Journal(Observer):
    """Writes down what it is told, and makes a file when a certain item has ended."""

    def __init__(self, last: str = "", mark: Path = Path()) -> None:
        self.last, self.mark = last, mark
        self.lines: list[str] = []
        self.most_running = 0
        self.running = 0

    def started(self, name: str, slot: str) -> None:  # noqa: ARG002  # the observer's signature
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.lines.append(f"start {name}")

    def ended(self, result: WorkResult) -> None:
        self.running -= 1
        self.lines.append(f"end {result.name}")
        if result.name == self.last:
            self.mark.touch()

    def lost(self, name: str, reason: str) -> None:
        self.running -= 1
        self.lines.append(f"lost {name}: {reason}")


@pytest.fixture(params=[INTERPRETERS, "forks"])
def processes(request) -> Iterator[Executor]:
    with EXECUTORS[request.param]() as made:
        yield made


def test_outcomes_come_in_the_order_of_the_tasks_and_slots_are_never_shared(tmp_path) -> None:
    marks = [tmp_path / "1 has ended", None, None, None]
    items = [WorkItem(str(number), slot_after, (mark,)) for number, mark in enumerate(marks)]
    journal = Journal("1", tmp_path / "1 has ended")
    with LocalProcesses(SLOTS) as executor:
        results = list(executor.map(items, observer=journal))
    assert [result.name for result in results] == ["0", "1", "2", "3"]
    assert {result.record for result in results} == {"a", "b"}
    assert [result.output for result in results] == [f"after {mark}\n" for mark in marks]
    assert journal.lines.index("end 1") < journal.lines.index("end 0")
    assert journal.most_running == 2


def test_no_more_items_are_drawn_than_may_be_ahead_of_the_first_result(processes, tmp_path) -> None:
    drawn = []

    def items():
        for number in range(12):
            drawn.append(number)
            yield WorkItem(str(number), slot_after, (tmp_path / "go" if number == 0 else None,))

    results = processes.map(items(), ahead=5, observer=Journal("4", tmp_path / "go"))
    assert next(results).name == "0"
    assert len(drawn) == 5  # though the second worker had nothing to do
    assert [int(result.name) for result in results] == list(range(1, 12))


def test_a_result_that_is_there_does_not_wait_for_a_running_item(processes, tmp_path) -> None:
    ended, taken = tmp_path / "1 has ended", tmp_path / "1 is taken"
    items = [WorkItem(str(n), slot_after, (mark,)) for n, mark in enumerate((ended, None, taken))]
    results = processes.map(items, observer=Journal("1", ended))
    assert [next(results).name, next(results).name] == ["0", "1"]
    taken.touch()
    assert next(results).error is None


@pytest.mark.parametrize("processes", ["here", INTERPRETERS, "forks"], indirect=True)
def test_an_item_that_fails_does_not_end_the_others_and_has_its_exit_code(processes) -> None:
    items = [WorkItem(kind, fail, (kind,)) for kind in ("content", "disk", "request", "memory")]
    items.append(WorkItem("good", slot_after))
    results = list(processes.map(items))
    errors = [result.error for result in results[:4]]
    assert [str(error) for error in errors[:3]] == [
        "row 3 is empty",
        "out/x: No space left on device: free some space, or write to another disk (temporary files: TMPDIR)",
        "no such file",
    ]
    assert str(errors[3]).startswith("out of memory")
    assert [(type(error), error.exit_code) for error in errors] == [
        (ContentError, 1), (RequestError, 2), (RequestError, 2), (ContentError, 1),
    ]  # fmt: skip
    with pytest.raises(ContentError, match="row 3 is empty"):
        results[0].record_or_raise()
    assert results[4].record_or_raise() == results[4].record


def test_an_error_with_arguments_of_its_own_comes_back_as_it_is() -> None:
    error = ProblemsError([Problem("E101", "a.json:3", "wrong")], "a.json")
    sent = pickle.loads(pickle.dumps(error))
    assert (type(sent), str(sent), sent.problems) == (ProblemsError, str(error), error.problems)


def test_a_defect_ends_the_map_with_its_traceback(tmp_path, processes) -> None:
    items = [WorkItem("x", fail, ("defect",)), WorkItem("slow", note_pid_and_sleep, (tmp_path / "b",))]
    with pytest.raises(ZeroDivisionError, match="by nothing") as defect:
        list(processes.map(items))
    assert "in fail" in str(defect.value.__cause__)
    if (tmp_path / "b").exists():
        wait_for_end(numbers(tmp_path / "b"))
    assert [result.error for result in processes.map([WorkItem("x", slot_after)])] == [None]


@pytest.mark.parametrize("die", [die_once, die_once_in_the_result])
def test_the_task_of_a_lost_process_runs_again_once(tmp_path, processes, die) -> None:
    journal = Journal()
    items = [WorkItem("once", die, (tmp_path / "mark",)), WorkItem("always", fail, ("kill",))]
    once, always = processes.map(items, observer=journal)
    assert (once.record, once.error) == (7, None)
    with pytest.raises(ContentError, match="^always: its process was ended by SIGKILL"):
        always.record_or_raise()
    assert sorted(line for line in journal.lines if line.startswith("lost")) == [
        "lost always: was ended by SIGKILL; was there too little memory?",
        "lost once: was ended by SIGKILL; was there too little memory?",
    ]
    assert journal.lines.count("start always") == 2
    assert journal.running == 0


def test_what_the_item_of_a_lost_process_has_started_is_ended_before_it_runs_again(
    tmp_path, processes
) -> None:
    (result,) = processes.map([WorkItem("x", start_and_die_once, (tmp_path / "pid",))])
    assert result.record == 7
    wait_for_end([int((tmp_path / "pid").read_text())])  # long before its time: a signal takes a moment


def test_a_common_value_is_sent_to_each_worker_once(processes) -> None:
    Heavy.pickled = 0
    items = [WorkItem(str(number), describe, (number,)) for number in range(20)]
    records = [result.record_or_raise() for result in processes.map(items, common=Heavy())]
    assert [number for _, _, number in records] == list(range(20))
    assert {kind for _, kind, _ in records} == {"str"} and Heavy.pickled <= 2
    workers = {process for process, _, _ in records}
    records = [result.record_or_raise() for result in processes.map(items, common=7)]
    assert {kind for _, kind, _ in records} == {"int"}
    assert {process for process, _, _ in records} <= workers  # they stay for the next map
    assert os.getpid() not in workers


@pytest.mark.parametrize("forks", [True, False])
def test_a_model_is_loaded_once_per_worker_and_one_is_kept(forks) -> None:
    LOADED[:] = ["here"]  # a fork inherits what this process has loaded, an interpreter does not
    execution._kept.clear()
    names = ["a", "a", "a", "b", "b", "a"]
    items = [WorkItem(name, use_model, (name,)) for name in names]
    with LocalProcesses(SLOTS[:1], forks=forks) as executor:
        records = [result.record_or_raise() for result in executor.map(items)]
    loaded = [(model, count - forks) for model, count in records]
    assert loaded == [("A", 1), ("A", 1), ("A", 1), ("B", 2), ("B", 2), ("A", 3)]


def test_large_arguments_and_records_never_block_each_other(processes) -> None:
    """A socket takes some 200 kB: both ends must read while they write."""
    items = [WorkItem(str(n), large, (5_000_000, bytes([n]) * 5_000_000)) for n in range(6)]
    for number, result in enumerate(processes.map(items)):
        assert result.record == bytes([number]) * 5_000_000


def test_what_an_item_printed_is_in_its_result(processes) -> None:
    results = list(processes.map([WorkItem(str(n), print_much, (3_000_000 + n,)) for n in range(6)]))
    assert [len(result.output) for result in results] == [3_000_001 + n for n in range(6)]
    for worker in {result.record for result in results}:
        assert Path(f"/proc/{worker}/fd/1").stat().st_size == 0  # a worker may live for days


def test_a_worker_that_is_killed_between_maps_is_replaced(processes) -> None:
    items = [WorkItem(str(n), describe, (None, n)) for n in range(2)]
    for process in {result.record[0] for result in processes.map(items)}:
        os.kill(process, signal.SIGKILL)
    assert [result.error for result in processes.map(items)] == [None, None]


def test_leaving_ends_idle_workers(processes) -> None:
    assert list(processes.map([])) == []
    (result,) = processes.map([WorkItem("x", describe, (None, 0))])
    assert alive(result.record[0])
    processes.close()
    assert not alive(result.record[0])


def numbers(file: Path, process: "subprocess.Popen[bytes] | None" = None) -> list[int]:
    """The numbers that an item notes in a file."""
    return [int(word) for word in written(file, process).split()]


@pytest.mark.parametrize("kind", [INTERPRETERS, "forks"])
@pytest.mark.parametrize(
    "signs", [(signal.SIGINT,), (signal.SIGINT,) * 2, (signal.SIGTERM,), (signal.SIGKILL,)]
)
def test_whatever_ends_the_map_ends_its_tasks_and_what_they_have_started(tmp_path, signs, kind) -> None:
    code = f"""
import signal, sys
from pathlib import Path
from tests.work_items import EXECUTORS, note_pid_and_sleep
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
    assert (
        process.wait() == {signal.SIGINT: -signal.SIGINT, signal.SIGTERM: 143, signal.SIGKILL: -9}[signs[0]]
    )
    wait_for_end(started)


def test_a_worker_that_goes_on_is_asked_to_end_again(tmp_path) -> None:
    code = f"""
from pathlib import Path
from tests.work_items import EXECUTORS, lose_the_end
from tuneyard.core.execution import WorkItem
with EXECUTORS["forks"]() as executor:
    list(executor.map([WorkItem("a", lose_the_end, (Path({str(tmp_path / "a")!r}),))]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    started = numbers(tmp_path / "a", process)
    process.send_signal(signal.SIGINT)
    process.wait(GRACE)
    wait_for_end(started)


def test_one_worker_is_this_process() -> None:
    assert isinstance(executor_of(None, None), InThisProcess)
    assert isinstance(executor_of(1, None, default=4), InThisProcess)
    with executor_of(None, None, default=3) as executor:
        assert isinstance(executor, LocalProcesses) and executor.workers == 3


def test_several_processes_are_the_default_where_they_pay_and_forks_are_safe(monkeypatch) -> None:
    for cores, platform, size, expected in (
        (6, "linux", 99, 1),
        (6, "linux", 100, 6),
        (64, "linux", 100, MOST),
        (6, "darwin", 100, 1),
    ):
        monkeypatch.setattr("tuneyard.core.execution.options.available_cores", lambda cores=cores: cores)
        monkeypatch.setattr(sys, "platform", platform)
        assert default_workers(size, several_pay=100) == expected


def test_a_process_whose_parent_is_gone_ends_with_the_code_of_sigterm() -> None:
    code = "import os; from tuneyard.core.execution.processes import end_with; end_with(os.getpid())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert ended.returncode == 128 + signal.SIGTERM
