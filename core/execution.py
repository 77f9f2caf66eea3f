"""An ordered map of tasks: in this process, or in local processes that each have a slot of the machine.

A task is a module-level function with arguments that can be pickled. It reads and writes files and returns a
small record. It leaves the same files if it runs twice, so that the task of a lost process runs again, and a
map that was cut off resumes. Tasks are drawn when a slot is free, and no slot is filled while the caller
works on an outcome. Outcomes come in the order of the tasks.
"""

import contextlib
import ctypes
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any

from tuneyard.core.checkout import python_path
from tuneyard.core.errors import RequestError, TuneyardError, describe_os_error

GRACE = 20.0  # seconds that a process gets to end by itself after SIGTERM
ATTEMPTS = 2  # of a task whose process is lost: the second loss is not by chance
HELD_EVERY = 1.0  # seconds between two looks at the tasks that another process works on
POLL_EVERY = 0.1  # seconds
_PDEATHSIG = 1  # PR_SET_PDEATHSIG of prctl(2)


class HeldError(RequestError):
    """Another process works on the same files. The task can run when it has ended."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Task:
    """A call. `is_free` is asked in this process before it starts, and must be quick."""

    name: str
    function: Callable[..., object]
    arguments: tuple[object, ...]
    is_free: Callable[[], bool] = _always


@dataclass(frozen=True, slots=True)
class Slot:
    """A part of this machine that one task has at a time: its name, and the variables that assign it."""

    name: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task returned, or why it failed. `output` is what its process printed."""

    name: str
    record: Any = None
    error: str = ""
    output: str = ""


class Observer:
    """Follows a map. This one shows nothing."""

    def started(self, name: str, slot: Slot | None) -> None:
        """A task starts: in a slot, or in this process."""

    def ended(self, outcome: Outcome) -> None:
        """A task has ended. Outcomes come here at once, in any order."""

    def held(self, name: str) -> None:
        """A task that has started found that another process works on its files. It runs later."""

    def lost(self, name: str, reason: str) -> None:
        """The process of a task was lost. The task runs again."""

    def waiting(self, names: list[str]) -> None:
        """Nothing runs here, since other processes work on the tasks that are left."""


@dataclass(slots=True)
class _Attempt:
    """A task that waits for its turn: its place in the order, and how often its process was lost."""

    place: int
    task: Task
    losses: int = 0


class _Queue:
    """Tasks that have not ended. Those that another process works on are held back until they are free."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = enumerate(tasks)
        self._held: list[_Attempt] = []
        self._looked = 0.0  # when the held tasks were last asked

    def next_free(self) -> _Attempt | None:
        """Take the first task that can run now; None if there is none."""
        if time.monotonic() - self._looked >= HELD_EVERY:
            self._looked = time.monotonic()
            for attempt in self._held:
                if attempt.task.is_free():
                    self._held.remove(attempt)
                    self._looked = 0.0  # the next may be free too
                    return attempt
        for place, task in self._tasks:
            attempt = _Attempt(place, task)
            if task.is_free():
                return attempt
            self._held.append(attempt)
        return None

    def put_back(self, attempt: _Attempt) -> None:
        """Hold a task back that could not run after all."""
        self._held.append(attempt)
        self._held.sort(key=lambda held: held.place)

    def held_names(self) -> list[str]:
        """Names of the tasks that are held back."""
        return [attempt.task.name for attempt in self._held]


class _InOrder:
    """Yields outcomes in the order of the tasks."""

    def __init__(self) -> None:
        self._outcomes: dict[int, Outcome] = {}
        self._next = 0

    def add(self, place: int, outcome: Outcome) -> Iterator[Outcome]:
        """Add an outcome; yield those whose predecessors have all been yielded."""
        self._outcomes[place] = outcome
        while self._next in self._outcomes:
            yield self._outcomes.pop(self._next)
            self._next += 1


def run_here(tasks: Iterable[Task], observer: Observer) -> Generator[Outcome]:
    """Run tasks in this process, one after the other."""
    queue, in_order = _Queue(tasks), _InOrder()
    while True:
        attempt = queue.next_free()
        if attempt is None:
            held = queue.held_names()
            if not held:
                return
            observer.waiting(held)
            time.sleep(HELD_EVERY)
            continue
        task = attempt.task
        observer.started(task.name, None)
        answer = call(task.function, task.arguments)
        if answer.is_held:
            observer.held(task.name)
            queue.put_back(attempt)
            continue
        outcome = Outcome(task.name, answer.record, answer.error)
        observer.ended(outcome)
        yield from in_order.add(attempt.place, outcome)


def run_processes(tasks: Iterable[Task], slots: Sequence[Slot], observer: Observer) -> Generator[Outcome]:
    """Run each task in a new process, as many at a time as there are slots.

    Whatever ends this process ends the tasks' processes: an exception, a signal, kill -9.
    """
    queue, in_order = _Queue(tasks), _InOrder()
    free = list(slots)
    running: list[_TaskProcess] = []
    try:
        while True:
            while free:
                attempt = queue.next_free()
                if attempt is None:
                    break
                slot = free.pop(0)
                observer.started(attempt.task.name, slot)
                running.append(_TaskProcess(attempt, slot))
            if not running:
                held = queue.held_names()
                if not held:
                    return
                observer.waiting(held)
            time.sleep(POLL_EVERY)
            for process in list(running):
                if process.poll() is None:
                    continue
                running.remove(process)
                free.append(process.slot)
                free.sort(key=slots.index)
                outcome = _outcome_of(process, queue, observer)
                if outcome is not None:
                    observer.ended(outcome)
                    yield from in_order.add(process.attempt.place, outcome)
    finally:
        end_processes([process.popen for process in running])


def _outcome_of(process: "_TaskProcess", queue: _Queue, observer: Observer) -> Outcome | None:
    """Outcome of a process that has ended; None if its task was put back to run again."""
    attempt = process.attempt
    name = attempt.task.name
    answer, output = process.answer(), process.output()
    if answer is None:
        reason = process.end_reason()
        attempt.losses += 1
        if process.popen.returncode < 0 and attempt.losses < ATTEMPTS:
            observer.lost(name, reason)
            queue.put_back(attempt)
            return None
        lines = output.splitlines() or ["it printed nothing"]
        return Outcome(name, error=f"its process {reason}: {lines[-1]}", output=output)
    if answer.is_held:
        observer.held(name)
        queue.put_back(attempt)
        return None
    return Outcome(name, answer.record, answer.error, output)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call: a record, an error that a user can act on, or that it is for later."""

    record: Any = None
    error: str = ""
    is_held: bool = False


def call(function: Callable[..., object], arguments: tuple[object, ...]) -> Answer:
    """Call a task's function. Errors that a user can act on become its answer; others are raised."""
    try:
        return Answer(function(*arguments))
    except HeldError:
        return Answer(is_held=True)
    except TuneyardError as error:
        return Answer(error=str(error))
    except OSError as error:
        return Answer(error=describe_os_error(error))


@dataclass(slots=True)
class _TaskProcess:
    """A process of core/task_process.py that runs one task in a slot, in a session of its own."""

    attempt: _Attempt
    slot: Slot
    popen: "subprocess.Popen[bytes]" = field(init=False)
    _answer: IO[bytes] = field(init=False)
    _output: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115  # closed when it is read
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        task = self.attempt.task
        variables = {**self.slot.environment, "PYTHONPATH": python_path(), "TQDM_DISABLE": "1"}
        with tempfile.TemporaryFile() as question:
            pickle.dump((task.function, task.arguments), question)
            question.seek(0)
            module = ["-P", "-m", "tuneyard.core.task_process"]
            self.popen = subprocess.Popen(
                [sys.executable, *module, str(os.getpid()), str(self._answer.fileno())],
                stdin=question,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                pass_fds=(self._answer.fileno(),),
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Exit code, None while it runs."""
        return self.popen.poll()

    def answer(self) -> Answer | None:
        """Answer of a process that has ended; None if it left none."""
        with self._answer:
            self._answer.seek(0)
            content = self._answer.read()
        if not content or self.popen.returncode:
            return None
        answer: Answer = pickle.loads(content)
        return answer

    def output(self) -> str:
        """What a process that has ended printed."""
        with self._output:
            self._output.seek(0)
            return self._output.read().decode("utf-8", errors="replace")

    def end_reason(self) -> str:
        """How a process ended that left no answer."""
        code = self.popen.returncode
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def end_processes(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End the process groups of processes that still run: SIGTERM to all, SIGKILL after a grace period."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
        deadline = time.monotonic() + GRACE + 10  # a process that ends others gives them GRACE
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))


def end_with(parent: int) -> None:
    """End this process by SIGTERM when the process `parent` ends, even by kill -9.

    `SystemExit` unwinds it, so that it ends the processes that it has started.
    """
    signal.signal(signal.SIGTERM, _leave)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the kernel knew that we want to be told
        raise SystemExit(128 + signal.SIGTERM)


def _leave(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the kernel tells of each of the parent's threads
    raise SystemExit(128 + signal.SIGTERM)
