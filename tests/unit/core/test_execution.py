"""The ordered map of work items: its order, slots, failures, held and lost items, and how it ends."""

import fcntl
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.recipes.test_launch import alive
from tuneyard.core import execution
from tuneyard.core.errors import ContentError
from tuneyard.core.execution import HeldError, Observer, Slot, WorkItem, WorkResult, run_here, run_processes

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
    if kind == "defect":
        raise ZeroDivisionError("by nothing")
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(mark: Path) -> int:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


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


def test_outcomes_come_in_the_order_of_the_tasks_and_slots_are_never_shared() -> None:
    seconds = [0.6, 0.0, 0.0, 0.0]
    items = [WorkItem(str(number), slot_after, (time,)) for number, time in enumerate(seconds)]
    journal = Journal()
    results = list(run_processes(items, SLOTS, journal))
    assert [result.name for result in results] == ["0", "1", "2", "3"]
    assert {result.record for result in results} == {"a", "b"}
    assert results[0].output == "slept 0.6 s\n"
    assert journal.lines.index("end 1") < journal.lines.index("end 0")
    assert journal.most_running == 2
    assert journal.slot_names == {"first", "second"}


def test_tasks_are_drawn_when_a_slot_is_free() -> None:
    drawn = []

    def items():
        for number in range(4):
            drawn.append(number)
            yield WorkItem(str(number), slot_after, (0,))

    results = run_processes(items(), SLOTS[:1], Observer())
    next(results)
    assert drawn == [0]  # none while the caller works on the first result
    assert [result.name for result in results] == ["1", "2", "3"]


@pytest.mark.parametrize("run", [run_here, lambda *words: run_processes(words[0], SLOTS, words[1])])
def test_a_task_that_fails_does_not_end_the_others(run) -> None:
    items = [WorkItem(kind, fail, (kind,)) for kind in ("content", "disk")] + [
        WorkItem("good", slot_after, (0,))
    ]
    results = list(run(items, Observer()))
    errors = [result.error for result in results]
    assert errors == ["row 3 is empty", "out/x: No space left on device", ""]


def test_a_defect_in_a_process_has_its_reason_and_its_traceback() -> None:
    (result,) = run_processes([WorkItem("x", fail, ("defect",))], SLOTS, Observer())
    assert result.error == "its process ended with exit code 1: ZeroDivisionError: by nothing"
    assert "Traceback" in result.output


def test_the_task_of_a_lost_process_runs_again_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(execution, "HELD_EVERY", 0.05)
    journal = Journal()
    items = [WorkItem("once", die_once, (tmp_path / "mark",)), WorkItem("always", fail, ("kill",))]
    once, always = run_processes(items, SLOTS, journal)
    assert (once.record, once.error) == (7, "")
    assert "SIGKILL" in always.error
    assert sorted(line for line in journal.lines if line.startswith("lost")) == [
        "lost always: was ended by SIGKILL",
        "lost once: was ended by SIGKILL",
    ]
    assert journal.lines.count("start always") == 2


@pytest.mark.parametrize("asks", [True, False], ids=["asked before", "found out"])
@pytest.mark.parametrize("here", [True, False])
def test_a_task_that_another_process_holds_is_taken_when_it_is_free(
    tmp_path, monkeypatch, asks, here
) -> None:
    monkeypatch.setattr(execution, "HELD_EVERY", 0.05)
    lock = tmp_path / "lock"
    lock.touch()
    holder = lock.open()
    fcntl.flock(holder, fcntl.LOCK_EX)

    def is_free() -> bool:
        try:
            return hold_for_others(lock) == "ran"
        except HeldError:
            return False

    class Releasing(Journal):
        def waiting(self, names: list[str]) -> None:
            super().waiting(names)
            holder.close()

        def held(self, name: str) -> None:
            super().held(name)
            holder.close()

    held = WorkItem("held", hold_for_others, (lock,))
    if asks:
        held = WorkItem("held", hold_for_others, (lock,), is_free)
    items = [held, WorkItem("other", slot_after, (0,))]
    journal = Releasing()
    results = list(run_here(items, journal) if here else run_processes(items, SLOTS, journal))
    assert [(result.name, result.error) for result in results] == [("held", ""), ("other", "")]
    assert journal.lines.index("end other") < journal.lines.index("end held")
    assert ("waiting held" if asks else "held held") in journal.lines


def test_an_item_that_is_held_again_and_again_is_tried_with_pauses(monkeypatch) -> None:
    monkeypatch.setattr(execution, "HELD_EVERY", 0.2)
    tries = []

    def held_at_first() -> None:
        tries.append(time.monotonic())
        if len(tries) < 4:
            raise HeldError("held")

    list(run_here([WorkItem("held", held_at_first, ())], Observer()))
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert len(pauses) == 3 and min(pauses) > 0.15


def end_without_a_last_line(code: int) -> None:
    print("the reason\n\n", flush=True)
    os._exit(code)


def test_the_reason_of_a_lost_process_is_its_last_line_with_text() -> None:
    (result,) = run_processes([WorkItem("x", end_without_a_last_line, (3,))], SLOTS, Observer())
    assert result.error == "its process ended with exit code 3: the reason"


def numbers(file: Path, process: "subprocess.Popen[bytes]") -> list[int]:
    """Wait for the numbers that an item notes in a file."""
    deadline = time.monotonic() + 20
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    return [int(word) for word in file.read_text().split()]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_map_ends_its_tasks_and_what_they_have_started(tmp_path, sign) -> None:
    code = f"""
import signal, sys
from pathlib import Path
from tests.unit.core.test_execution import SLOTS, note_pid_and_sleep
from tuneyard.core.execution import Observer, WorkItem, run_processes
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
files = [Path({str(tmp_path)!r}, name) for name in "ab"]
list(run_processes([WorkItem(file.name, note_pid_and_sleep, (file,)) for file in files], SLOTS, Observer()))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    started = [number for name in "ab" for number in numbers(tmp_path / name, process)]
    os.kill(process.pid, sign)
    process.wait(20)
    deadline = time.monotonic() + 10
    while any(alive(number) for number in started):
        assert time.monotonic() < deadline, "an item outlived the map"
        time.sleep(0.05)
