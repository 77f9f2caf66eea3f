"""An ordered map of work items: in this process, in local processes, or on a Ray cluster.

An item is a module-level function with arguments that can be pickled. It reads and writes files and returns a
small record. It leaves the same files if it runs twice, so that the item of a lost process runs again, and a
map that was cut off resumes. Results come in the order of the items, which are drawn when a worker can take
one.

`InThisProcess` is here, `LocalProcesses` and `ForkedProcesses` are in core/local_processes.py, `RayCluster`
is in core/ray_cluster.py.
"""

import itertools
import pickle
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

from tuneyard.core.errors import ContentError, RequestError, TuneyardError, describe_os_error

ATTEMPTS = 2  # of an item whose process is lost: the second loss is not by chance
HELD_EVERY = 1.0  # seconds between two looks at the items that another process works on
AHEAD = 64  # items that may be drawn before the result of the first of them is taken
P = ParamSpec("P")
T = TypeVar("T")


class HeldError(RequestError):
    """Another process works on the same files. The item can run when it has ended."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Resources:
    """What an item takes on a node of a cluster; memory in bytes. On one machine a slot decides.

    `stays`: its worker keeps the GPU for the next such item, and with it what `once_per_worker` has loaded.
    """

    cpus: float = 1
    gpus: float = 0
    memory: int = 0
    stays: bool = False


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A call. `is_free` is asked in this process before it starts, and must be quick."""

    name: str
    function: Callable[..., object]
    arguments: tuple[object, ...]
    is_free: Callable[[], bool] = _always
    resources: Resources = Resources()


class Common:
    """An argument that many items share. It is sent to each worker once; the function receives `value`.

    A fork inherits a value that was made before the fork. Such a value need not be picklable.
    """

    living: ClassVar["weakref.WeakValueDictionary[int, Common]"] = weakref.WeakValueDictionary()
    _numbers = itertools.count()

    def __init__(self, value: Any) -> None:
        self.value = value
        self.number = next(Common._numbers)
        Common.living[self.number] = self

    @cached_property
    def pickled(self) -> bytes:
        """The value as it is sent, pickled once."""
        return pickle.dumps(self.value, pickle.HIGHEST_PROTOCOL)


@dataclass(frozen=True, slots=True)
class Slot:
    """A part of this machine that one item has at a time: its name, and the variables that assign it."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkResult:
    """What an item returned, or why it failed. `output` is what its process printed.

    `is_lost`: the error is not of the item, but says how its process ended.
    """

    name: str
    record: Any = None
    error: str = ""
    output: str = ""
    exit_code: int = 0
    is_lost: bool = False

    def record_or_raise(self) -> Any:
        """The record. An item that failed raises its error here."""
        if self.is_lost:
            raise ContentError(f"{self.name}: {self.error}")
        if self.error and self.exit_code == RequestError.exit_code:
            raise RequestError(self.error)
        if self.error:
            raise ContentError(self.error)
        return self.record


class Observer:
    """Follows a map. This one shows nothing."""

    def started(self, name: str, slot: Slot | None) -> None:
        """An item starts: in a slot, or in this process. On a cluster it may wait there for a node."""

    def ended(self, result: WorkResult) -> None:
        """An item has ended. Results come here at once, in any order."""

    def held(self, name: str) -> None:
        """An item that has started found that another process works on its files. It runs later."""

    def lost(self, name: str, reason: str) -> None:
        """The process of an item was lost. The item runs again."""

    def waiting(self, names: list[str]) -> None:
        """Nothing runs here, since other processes work on the items that are left."""


SILENT = Observer()


class Executor(ABC):
    """Runs work items. Leaving it (`with`) ends its workers, also after an exception or a signal."""

    workers: int
    """How many items run side by side."""
    has_gpus: bool = False
    """True if it assigns the GPUs of a cluster to items. On one machine a slot does."""

    @abstractmethod
    def map(
        self, items: Iterable[WorkItem], observer: Observer = SILENT, ahead: int = AHEAD
    ) -> Generator[WorkResult]:
        """Run items and yield their results in the order of the items. One map at a time.

        An item that fails does not end the others. At most `ahead` items are drawn and not yet yielded.
        Closing the generator ends the items that run.
        """

    def fitting(self, resources: Resources) -> int:  # noqa: ARG002  # a slot decides
        """How many items with these resources run side by side."""
        return self.workers

    def check_paths(  # noqa: B027  # nothing to check on one machine
        self, inputs: Sequence[object] = (), outputs: Sequence[object] = ()
    ) -> None:
        """Check that every worker reads these inputs and writes to these folders. `RequestError` if not."""

    def close(self) -> None:  # noqa: B027  # this process has no workers
        """End all workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(slots=True)
class Attempt:
    """An item that waits for its turn: its place in the order, and how often its process was lost."""

    place: int
    item: WorkItem
    losses: int = 0


class WorkQueue:
    """Items that have not ended, and the results that wait for an earlier one.

    Items that another process works on are held back until they are free.
    """

    def __init__(self, items: Iterable[WorkItem], ahead: int) -> None:
        self._items = enumerate(items)
        self._ahead = ahead
        self._drawn = 0
        self._returned: list[Attempt] = []
        self._held: list[Attempt] = []
        self._looked = 0.0  # when the held items were last asked
        self._results: dict[int, WorkResult] = {}
        self._next_place = 0  # of the result that is yielded next

    def next_free(self) -> Attempt | None:
        """Take the first item that can run now; None if there is none."""
        if self._returned:
            return self._returned.pop(0)
        if time.monotonic() - self._looked >= HELD_EVERY:
            self._looked = time.monotonic()
            for attempt in self._held:
                if attempt.item.is_free():
                    self._held.remove(attempt)
                    self._looked = 0.0  # the next may be free too
                    return attempt
        while self._drawn - self._next_place < self._ahead:
            place_and_item = next(self._items, None)
            if place_and_item is None:
                return None
            self._drawn += 1
            attempt = Attempt(*place_and_item)
            if attempt.item.is_free():
                return attempt
            self._held.append(attempt)
        return None

    def give_back(self, attempt: Attempt) -> None:
        """Return an item that was taken and has not started. It is the next to run."""
        self._returned.append(attempt)

    def put_back(self, attempt: Attempt) -> None:
        """Hold an item back that could not run after all, for `HELD_EVERY` seconds or more."""
        self._looked = time.monotonic()
        self._held.append(attempt)
        self._held.sort(key=lambda held: held.place)

    def waits_for_held(self, observer: Observer) -> bool:
        """Wait until the items that are held back may be asked again. False if there are none."""
        held = self.held_names()
        if not held:
            return False
        observer.waiting(held)
        time.sleep(HELD_EVERY)
        return True

    def held_names(self) -> list[str]:
        """Names of the items that are held back."""
        return [attempt.item.name for attempt in self._held]

    def add(self, attempt: Attempt, result: WorkResult) -> Iterator[WorkResult]:
        """Add a result; yield those whose predecessors have all been yielded."""
        self._results[attempt.place] = result
        while self._next_place in self._results:
            next_result = self._results.pop(self._next_place)
            self._next_place += 1
            yield next_result

    def settle(
        self, attempt: Attempt, reply: "CallResult", output: str, observer: Observer
    ) -> WorkResult | None:
        """Result of an item that was called; None if it was put back, since another process holds its files.

        `observer` is told of both.
        """
        name = attempt.item.name
        if reply.is_held:
            observer.held(name)
            self.put_back(attempt)
            return None
        result = WorkResult(name, reply.record, reply.error, output, reply.exit_code, reply.is_lost)
        observer.ended(result)
        return result

    def settle_lost(
        self, attempt: Attempt, reason: str, output: str, observer: Observer
    ) -> WorkResult | None:
        """Result of an item whose process was lost; None if the item was put back to run again."""
        attempt.losses += 1
        if attempt.losses < ATTEMPTS:
            observer.lost(attempt.item.name, reason)
            self.give_back(attempt)
            return None
        error = no_reply(reason, output)
        if "SIGKILL" in reason:
            error += "; was there too little memory?"
        return self.settle(attempt, CallResult(error=error, exit_code=1, is_lost=True), output, observer)


def no_reply(reason: str, output: str) -> str:
    """Error of an item whose process ended without a reply: the reason, and the last line it printed."""
    lines = [line for line in output.splitlines() if line.strip()]
    last_line = "it printed nothing"
    if lines:
        last_line = lines[-1]
    return f"its process {reason}: {last_line}"


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of a call: a record, an error that a user can act on, or that it is for later.

    `is_lost`: the call did not end, and the error says how its process did.
    """

    record: Any = None
    error: str = ""
    exit_code: int = 0
    is_held: bool = False
    is_lost: bool = False


def call(function: Callable[..., object], arguments: Sequence[object]) -> CallResult:
    """Call an item's function. Errors that a user can act on become its reply; others are raised."""
    try:
        return CallResult(function(*arguments))
    except HeldError:
        return CallResult(is_held=True)
    except TuneyardError as error:
        return CallResult(error=str(error), exit_code=error.exit_code)
    except OSError as error:
        return CallResult(error=describe_os_error(error), exit_code=RequestError.exit_code)
    except MemoryError:
        return CallResult(error="out of memory; use fewer workers, or a machine with more", exit_code=1)


class InThisProcess(Executor):
    """Runs items in this process, one after the other, with nothing pickled."""

    workers = 1

    def map(
        self, items: Iterable[WorkItem], observer: Observer = SILENT, ahead: int = AHEAD
    ) -> Generator[WorkResult]:
        """Run each item when its result is wanted."""
        queue = WorkQueue(items, ahead)
        while True:
            attempt = queue.next_free()
            if attempt is None:
                if not queue.waits_for_held(observer):
                    return
                continue
            item = attempt.item
            observer.started(item.name, None)
            arguments = [
                argument.value if isinstance(argument, Common) else argument for argument in item.arguments
            ]
            result = queue.settle(attempt, call(item.function, arguments), "", observer)
            if result is not None:
                yield from queue.add(attempt, result)


_kept: dict[Callable[..., Any], tuple[object, Any]] = {}


def once_per_worker(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Keep what a function returned in this worker, such as a loaded model, for the same arguments.

    For other arguments the old value is let go before the function is called: two models may not fit.
    """
    key = (arguments, options)
    if function in _kept and _kept[function][0] == key:
        value: T = _kept[function][1]
        return value
    _kept.pop(function, None)
    value = function(*arguments, **options)
    _kept[function] = (key, value)
    return value
