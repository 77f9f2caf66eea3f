"""An ordered map of work items: in this process, or in local processes that each have a slot of the machine.

An item is a module-level function with arguments that can be pickled. It reads and writes files and returns a
small record. It leaves the same files if it runs twice, so that the item of a lost process runs again, and a
map that was cut off resumes. Items are drawn when a slot is free, and no slot is filled while the caller
works on a result. Results come in the order of the items.
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
ATTEMPTS = 2  # of an item whose process is lost: the second loss is not by chance
HELD_EVERY = 1.0  # seconds between two looks at the items that another process works on
POLL_EVERY = 0.1  # seconds
_PDEATHSIG = 1  # PR_SET_PDEATHSIG of prctl(2)


class HeldError(RequestError):
    """Another process works on the same files. The item can run when it has ended."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A call. `is_free` is asked in this process before it starts, and must be quick."""

    name: str
    function: Callable[..., object]
    arguments: tuple[object, ...]
    is_free: Callable[[], bool] = _always


@dataclass(frozen=True, slots=True)
class Slot:
    """A part of this machine that one item has at a time: its name, and the variables that assign it."""

    name: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WorkResult:
    """What an item returned, or why it failed. `output` is what its process printed."""

    name: str
    record: Any = None
    error: str = ""
    output: str = ""


class Observer:
    """Follows a map. This one shows nothing."""

    def started(self, name: str, slot: Slot | None) -> None:
        """An item starts: in a slot, or in this process."""

    def ended(self, result: WorkResult) -> None:
        """An item has ended. Results come here at once, in any order."""

    def held(self, name: str) -> None:
        """An item that has started found that another process works on its files. It runs later."""

    def lost(self, name: str, reason: str) -> None:
        """The process of an item was lost. The item runs again."""

    def waiting(self, names: list[str]) -> None:
        """Nothing runs here, since other processes work on the items that are left."""


@dataclass(slots=True)
class _Attempt:
    """An item that waits for its turn: its place in the order, and how often its process was lost."""

    place: int
    item: WorkItem
    losses: int = 0


class _Queue:
    """Items that have not ended. Those that another process works on are held back until they are free."""

    def __init__(self, items: Iterable[WorkItem]) -> None:
        self._items = enumerate(items)
        self._held: list[_Attempt] = []
        self._looked = 0.0  # when the held items were last asked

    def next_free(self) -> _Attempt | None:
        """Take the first item that can run now; None if there is none."""
        if time.monotonic() - self._looked >= HELD_EVERY:
            self._looked = time.monotonic()
            for attempt in self._held:
                if attempt.item.is_free():
                    self._held.remove(attempt)
                    self._looked = 0.0  # the next may be free too
                    return attempt
        for place, item in self._items:
            attempt = _Attempt(place, item)
            if item.is_free():
                return attempt
            self._held.append(attempt)
        return None

    def put_back(self, attempt: _Attempt) -> None:
        """Hold an item back that could not run after all, for `HELD_EVERY` seconds or more."""
        self._looked = time.monotonic()
        self._held.append(attempt)
        self._held.sort(key=lambda held: held.place)

    def held_names(self) -> list[str]:
        """Names of the items that are held back."""
        return [attempt.item.name for attempt in self._held]


class _InOrder:
    """Yields results in the order of the items."""

    def __init__(self) -> None:
        self._results: dict[int, WorkResult] = {}
        self._next = 0

    def add(self, place: int, result: WorkResult) -> Iterator[WorkResult]:
        """Add a result; yield those whose predecessors have all been yielded."""
        self._results[place] = result
        while self._next in self._results:
            yield self._results.pop(self._next)
            self._next += 1


def run_here(items: Iterable[WorkItem], observer: Observer) -> Generator[WorkResult]:
    """Run items in this process, one after the other."""
    queue, in_order = _Queue(items), _InOrder()
    while True:
        attempt = queue.next_free()
        if attempt is None:
            held = queue.held_names()
            if not held:
                return
            observer.waiting(held)
            time.sleep(HELD_EVERY)
            continue
        item = attempt.item
        observer.started(item.name, None)
        reply = call(item.function, item.arguments)
        if reply.is_held:
            observer.held(item.name)
            queue.put_back(attempt)
            continue
        result = WorkResult(item.name, reply.record, reply.error)
        observer.ended(result)
        yield from in_order.add(attempt.place, result)


def run_processes(
    items: Iterable[WorkItem], slots: Sequence[Slot], observer: Observer
) -> Generator[WorkResult]:
    """Run each item in a new process, as many at a time as there are slots.

    Whatever ends this process ends the items' processes: an exception, a signal, kill -9.
    """
    queue, in_order = _Queue(items), _InOrder()
    free = list(slots)
    running: list[_WorkProcess] = []
    try:
        while True:
            while free:
                attempt = queue.next_free()
                if attempt is None:
                    break
                slot = free.pop(0)
                observer.started(attempt.item.name, slot)
                running.append(_WorkProcess(attempt, slot))
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
                result = _result_of(process, queue, observer)
                if result is not None:
                    observer.ended(result)
                    yield from in_order.add(process.attempt.place, result)
    finally:
        end_processes([process.popen for process in running])


def _result_of(process: "_WorkProcess", queue: _Queue, observer: Observer) -> WorkResult | None:
    """Result of a process that has ended; None if its item was put back to run again."""
    attempt = process.attempt
    name = attempt.item.name
    reply, output = process.reply(), process.output()
    if reply is None:
        reason = process.end_reason()
        attempt.losses += 1
        if process.popen.returncode < 0 and attempt.losses < ATTEMPTS:
            observer.lost(name, reason)
            queue.put_back(attempt)
            return None
        lines = [line for line in output.splitlines() if line.strip()]
        last_line = "it printed nothing"
        if lines:
            last_line = lines[-1]
        return WorkResult(name, error=f"its process {reason}: {last_line}", output=output)
    if reply.is_held:
        observer.held(name)
        queue.put_back(attempt)
        return None
    return WorkResult(name, reply.record, reply.error, output)


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of a call: a record, an error that a user can act on, or that it is for later."""

    record: Any = None
    error: str = ""
    is_held: bool = False


def call(function: Callable[..., object], arguments: tuple[object, ...]) -> CallResult:
    """Call an item's function. Errors that a user can act on become its reply; others are raised."""
    try:
        return CallResult(function(*arguments))
    except HeldError:
        return CallResult(is_held=True)
    except TuneyardError as error:
        return CallResult(error=str(error))
    except OSError as error:
        return CallResult(error=describe_os_error(error))


@dataclass(slots=True)
class _WorkProcess:
    """A process of core/work_process.py that runs one item in a slot, in a session of its own."""

    attempt: _Attempt
    slot: Slot
    popen: "subprocess.Popen[bytes]" = field(init=False)
    _reply: IO[bytes] = field(init=False)
    _output: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._reply = tempfile.TemporaryFile()  # noqa: SIM115  # closed when it is read
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        item = self.attempt.item
        variables = {**self.slot.environment, "PYTHONPATH": python_path(), "TQDM_DISABLE": "1"}
        with tempfile.TemporaryFile() as question:
            pickle.dump((item.function, item.arguments), question)
            question.seek(0)
            module = ["-P", "-m", "tuneyard.core.work_process"]
            self.popen = subprocess.Popen(
                [sys.executable, *module, str(os.getpid()), str(self._reply.fileno())],
                stdin=question,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                pass_fds=(self._reply.fileno(),),
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Exit code, None while it runs."""
        return self.popen.poll()

    def reply(self) -> CallResult | None:
        """CallResult of a process that has ended; None if it left none."""
        with self._reply:
            self._reply.seek(0)
            content = self._reply.read()
        if not content or self.popen.returncode:
            return None
        reply: CallResult = pickle.loads(content)
        return reply

    def output(self) -> str:
        """What a process that has ended printed."""
        with self._output:
            self._output.seek(0)
            return self._output.read().decode("utf-8", errors="replace")

    def end_reason(self) -> str:
        """How a process ended that left no reply."""
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
