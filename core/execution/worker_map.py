"""The ordered map over workers that run one item at a time: local processes, or actors of a Ray cluster."""

from abc import ABC, abstractmethod
from collections import deque
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


@dataclass(eq=False, slots=True)
class _Attempt:
    """An item, how often its worker was lost, and its result once that is there."""

    item: WorkItem
    losses: int = 0
    result: WorkResult | None = None


def _next_attempt(
    items: Iterator[WorkItem], order: deque[_Attempt], again: deque[_Attempt], ahead: int
) -> _Attempt | None:
    """The item that runs next, that of a lost worker first. None if there is none that may be ahead."""
    if again:
        return again.popleft()
    if len(order) < ahead:
        for item in items:
            order.append(_Attempt(item))
            return order[-1]
    return None


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
        rest = iter(items)
        order: deque[_Attempt] = deque()  # the attempts whose results are not taken yet
        again: deque[_Attempt] = deque()  # those of lost workers
        try:
            while True:
                for worker in self._free(resources):
                    attempt = _next_attempt(rest, order, again, max(ahead, self.workers))
                    if attempt is None:
                        break
                    observer.started(attempt.item.name, worker.name)
                    self._running[worker.submit(attempt.item, common)] = (worker, attempt)
                result = order[0].result if order else None
                if result is not None:
                    order.popleft()
                    yield result
                elif not self._running:
                    return
                has_next_result = bool(order) and order[0].result is not None
                ended, _ = wait(self._running, 0 if has_next_result else _LOOK_EVERY, FIRST_COMPLETED)
                for future in ended:
                    worker, attempt = self._running.pop(future)
                    attempt.result = self._ended(worker, attempt, future, observer)
                    if attempt.result is None:
                        again.append(attempt)
        finally:
            self._end_busy()

    def _ended(
        self, worker: Worker, attempt: _Attempt, future: "Future[WorkResult]", observer: Observer
    ) -> WorkResult | None:
        """The result of an item that has ended, None if its worker was lost and it may run again."""
        name = attempt.item.name
        try:
            result = worker.result_of(future)
        except LostWorkerError as lost:
            attempt.losses += 1
            if attempt.losses < self.attempts:
                observer.lost(name, str(lost))
                return None
            result = WorkResult(name, error=ContentError(f"{name}: its process {lost}"))
        observer.ended(result)
        return result

    def _end_busy(self) -> None:
        busy = self._busy()
        self._running = {}
        self._end(busy)

    def close(self) -> None:
        """End all workers: those that run an item at once."""
        self._end_busy()
