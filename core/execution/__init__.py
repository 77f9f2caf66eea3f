"""An ordered map of work items: in this process, in local processes, or on a Ray cluster.

    with executor_of(workers, ray) as executor, closing(executor.map(items, common=job)) as results:
        for result in results:
            use(result.record_or_raise())

An item is a module-level function with arguments that can be pickled. It leaves the same files if it runs
twice: the item of a lost worker runs again, once. Results come in the order of the items. Items are drawn
when a worker is free, and at most `ahead` of them before the first of their results is taken.

An error that a user can act on is that of its item alone, with its exit code: the others go on, and
`record_or_raise` raises it. Any other exception of an item ends the map. Closing the generator ends the items
that run, and leaving the executor ends its workers; so do Ctrl-C, SIGTERM, and kill -9 of this process.

`InThisProcess` is here. `LocalProcesses` (local_processes.py) has a `Slot` for each worker: the environment
that gives it a GPU or some cores. It starts new interpreters, or forks, which begin in milliseconds with all
that is in this process. `RayCluster` is in ray_cluster.py. `executor_of` (options.py) chooses among them.
"""

import os
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

from tuneyard.core.errors import ContentError, RequestError, TuneyardError, describe_os_error
from tuneyard.core.language.message import _

AHEAD = 64  # items that may be drawn before the result of the first of them is taken
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Resources:
    """What an item takes on a node of a cluster; memory in bytes. On one machine a slot decides."""

    cpus: float = 1
    gpus: float = 0
    memory: int = 0


class WorkItem(NamedTuple):
    """A call: `function(*arguments)`, or `function(common, *arguments)`. The name is for messages."""

    name: str
    function: Callable[..., object]
    arguments: tuple[object, ...] = ()


class Slot(NamedTuple):
    """A part of this machine that one worker has: its name, and the variables that assign it."""

    name: str
    environment: Mapping[str, str] = {}


class WorkResult(NamedTuple):
    """The record that an item returned, or its error. `output` has the lines that it printed in a worker."""

    name: str
    record: Any = None
    error: TuneyardError | None = None
    output: str = ""

    def record_or_raise(self) -> Any:
        """The record. An item that failed raises its error here."""
        if self.error is not None:
            raise self.error
        return self.record


class Observer:
    """Follows a map. This one shows nothing."""

    def started(self, name: str, slot: str) -> None:
        """An item starts in a slot; "" is this process."""

    def ended(self, result: WorkResult) -> None:
        """An item has ended. Results come here at once, in any order."""

    def lost(self, name: str, reason: str) -> None:
        """The worker of an item was lost. The item runs again."""


SILENT = Observer()


@dataclass(eq=False)
class DrawnItem:
    """An item that was drawn, and its result once that is there."""

    item: WorkItem
    result: WorkResult | None = None
    has_lost_a_worker: bool = False

    def end(self, result: WorkResult, observer: Observer) -> None:
        """Take the result."""
        self.result = result
        observer.ended(result)

    def runs_again(self, reason: str, observer: Observer) -> bool:
        """True for the first loss of its worker. The second one is its result."""
        if self.has_lost_a_worker:
            error = ContentError(_("{name}: its process {reason}", name=self.item.name, reason=reason))
            self.end(WorkResult(self.item.name, error=error), observer)
            return False
        self.has_lost_a_worker = True
        observer.lost(self.item.name, reason)
        return True


class Executor(ABC):
    """Runs work items. Leaving it (`with`) ends its workers, also after an exception or a signal."""

    workers: int
    """How many items run side by side."""
    has_gpus: bool = False
    """True if it assigns the GPUs of a cluster to items. On one machine a slot does."""

    @abstractmethod
    def map(
        self,
        items: Iterable[WorkItem],
        *,
        common: object = None,
        resources: Resources = Resources(),  # frozen
        observer: Observer = SILENT,
        ahead: int = AHEAD,
    ) -> Generator[WorkResult]:
        """Run items and yield their results in the order of the items. One map at a time.

        `common` is sent to each worker once, and is the first argument of every item, if it is not None.
        """

    def fitting(self, resources: Resources) -> int:  # noqa: ARG002  # a slot decides
        """How many items with these resources run side by side."""
        return self.workers

    def check_paths(  # noqa: B027  # nothing to check on one machine
        self, inputs: Sequence[object] = (), outputs: Sequence[object] = ()
    ) -> None:
        """Check that every worker sees these inputs and these folders. `RequestError` if not."""

    def close(self) -> None:  # noqa: B027  # this process has no workers
        """End all workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()


def run_item(item: WorkItem, common: object) -> WorkResult:
    """Call an item's function here. An error that a user can act on is in the result; others are raised."""
    shared = () if common is None else (common,)
    try:
        return WorkResult(item.name, item.function(*shared, *item.arguments))
    except TuneyardError as error:
        return WorkResult(item.name, error=error)
    except OSError as error:
        return WorkResult(item.name, error=RequestError(describe_os_error(error)))
    except MemoryError:
        message = _("out of memory; use fewer workers, or a machine with more")
        return WorkResult(item.name, error=ContentError(message))


class InThisProcess(Executor):
    """Runs items in this process, one after the other, with nothing pickled."""

    workers = 1

    def map(
        self,
        items: Iterable[WorkItem],
        *,
        common: object = None,
        observer: Observer = SILENT,
        **_unused: object,  # it takes all of this process, and draws none ahead
    ) -> Generator[WorkResult]:
        """Run each item when its result is wanted."""
        for item in items:
            observer.started(item.name, "")
            result = run_item(item, common)
            observer.ended(result)
            yield result


_kept: dict[Callable[..., Any], tuple[object, Any]] = {}


def once_per_worker(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call a function once for the same arguments in this worker, e.g. to load a model.

    For other arguments the old value is let go before the function is called: two models may not fit. A fork
    begins with the values of this process.
    """
    key = (arguments, options)
    if function not in _kept or _kept[function][0] != key:
        _kept.pop(function, None)
        _kept[function] = (key, function(*arguments, **options))
    value: T = _kept[function][1]
    return value


class WorkerSide:
    """The state of a worker process: the common value of its items, and the file that it prints to."""

    common: object = None

    def __init__(self) -> None:
        self._output = tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        for descriptor in (1, 2):
            os.dup2(self._output.fileno(), descriptor)
        sys.stdout = sys.stderr = self._output

    def run(self, item: WorkItem) -> WorkResult:
        """Run an item. Its result has the output of the item and of its child processes."""
        result = run_item(item, self.common)
        self._output.flush()
        self._output.seek(0)
        output = self._output.read()
        self._output.seek(0)  # a worker may live for days
        self._output.truncate()
        return result._replace(output=output)
