"""The ordered map over workers that run one item at a time: local processes, or actors of a Ray cluster."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from tuneyard.core.errors import ContentError
from tuneyard.core.execution import AHEAD, SILENT, Executor, Observer, Resources, WorkItem, WorkResult

_LOOK_EVERY = 1.0  # seconds between two looks for workers that have started meanwhile


class LostWorkerError(Exception):
    """A worker has ended before its item. The message says how."""


class Worker(ABC):
    """A process that runs one item at a time."""

    name: str

    @abstractmethod
    def submit(self, item: WorkItem, common: object) -> "Future[WorkResult]":
        """Start an item with the common value of its map."""

    @abstractmethod
    def result_of(self, future: "Future[WorkResult]") -> WorkResult:
        """What the item returned. `LostWorkerError` if the worker is lost."""


@dataclass(slots=True)
class _Attempt:
    """An item, its place in the order, and how often its worker was lost."""

    place: int
    item: WorkItem
    losses: int = 0


class _Order:
    """Items that are not yet run, and results that wait for an earlier one."""

    def __init__(self, items: Iterable[WorkItem], ahead: int) -> None:
        self._items = enumerate(items)
        self._ahead = ahead
        self._drawn = 0
        self._next_place = 0  # of the result that is taken next
        self._again: list[_Attempt] = []
        self._results: dict[int, WorkResult] = {}

    @property
    def has_next_result(self) -> bool:
        """True if the result is there whose turn it is."""
        return self._next_place in self._results

    def take_result(self) -> WorkResult:
        """The result whose turn it is."""
        result = self._results.pop(self._next_place)
        self._next_place += 1
        return result

    def draw(self) -> _Attempt | None:
        """The item that runs next, that of a lost worker first. None if there is none that may be ahead."""
        if self._again:
            return self._again.pop(0)
        if self._drawn - self._next_place >= self._ahead:
            return None
        for place, item in self._items:
            self._drawn += 1
            return _Attempt(place, item)
        return None

    def run_again(self, attempt: _Attempt) -> None:
        """Let an item run again, before those that have not started."""
        self._again.append(attempt)

    def add(self, attempt: _Attempt, result: WorkResult) -> None:
        """Keep a result until it is its turn."""
        self._results[attempt.place] = result


class WorkerMap(Executor):
    """Maps items over workers. A subclass starts and ends them."""

    attempts = 2  # of an item whose worker is lost: the second loss is not by chance

    def __init__(self) -> None:
        self._running: dict[Future[WorkResult], tuple[Worker, _Attempt]] = {}

    @abstractmethod
    def _workers_with(self, resources: Resources) -> Sequence[Worker]:
        """The workers that have these resources and have started."""

    @abstractmethod
    def _end(self, workers: Sequence[Worker]) -> None:
        """End workers that run an item, and what it has started."""

    def _free(self, resources: Resources) -> Iterator[Worker]:
        busy = self._busy()
        for worker in self._workers_with(resources):
            if worker not in busy:
                yield worker

    def _busy(self) -> list[Worker]:
        return [worker for worker, _ in self._running.values()]

    def map(
        self,
        items: Iterable[WorkItem],
        *,
        common: object = None,
        resources: Resources = Resources(),  # noqa: B008  # frozen
        observer: Observer = SILENT,
        ahead: int = AHEAD,
    ) -> Generator[WorkResult]:
        """Run each item in a worker."""
        if self._running:
            raise RuntimeError("an executor runs one map at a time")
        order = _Order(items, max(ahead, self.workers))
        try:
            while True:
                for worker in self._free(resources):
                    attempt = order.draw()
                    if attempt is None:
                        break
                    observer.started(attempt.item.name, worker.name)
                    self._running[worker.submit(attempt.item, common)] = (worker, attempt)
                if order.has_next_result:
                    yield order.take_result()
                elif not self._running:
                    return
                timeout = 0 if order.has_next_result else _LOOK_EVERY
                ended, _ = wait(self._running, timeout, FIRST_COMPLETED)
                for future in ended:
                    worker, attempt = self._running.pop(future)
                    self._settle(worker, attempt, future, order, observer)
        finally:
            self._end_busy()

    def _settle(
        self,
        worker: Worker,
        attempt: _Attempt,
        future: "Future[WorkResult]",
        order: _Order,
        observer: Observer,
    ) -> None:
        """Keep the result of an item that has ended, or let the item of a lost worker run again."""
        name = attempt.item.name
        try:
            result = worker.result_of(future)
        except LostWorkerError as lost:
            attempt.losses += 1
            if attempt.losses < self.attempts:
                observer.lost(name, str(lost))
                order.run_again(attempt)
                return
            result = WorkResult(name, error=ContentError(f"{name}: its process {lost}"))
        observer.ended(result)
        order.add(attempt, result)

    def _end_busy(self) -> None:
        busy = self._busy()
        self._running = {}
        self._end(busy)

    def close(self) -> None:
        """End all workers: those that run an item at once."""
        self._end_busy()
