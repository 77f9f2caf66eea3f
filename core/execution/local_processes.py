"""Local worker processes: each is a pool of one process (`concurrent.futures`), so that it is lost alone.

A pool of several ends all of them with one: trainings of hours, loaded models. Workers start with their first
item, and stay for the next items and maps. Whatever ends this process ends them: an exception, a signal,
kill -9.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from tuneyard.core.errors import TERMINATED, ContentError
from tuneyard.core.execution import (
    AHEAD,
    SILENT,
    Executor,
    Observer,
    Resources,
    Slot,
    WorkerSide,
    WorkItem,
    WorkResult,
    once_per_worker,
)
from tuneyard.core.execution.processes import GRACE, end_left_behind, end_with, leave_on_sigterm

_SIGNALS = {signal.SIGINT, signal.SIGTERM}


@dataclass(eq=False, slots=True)
class _Call:
    """An item that has started, how often its worker was lost, and its result once that is there."""

    item: WorkItem
    common: object
    losses: int = 0
    result: WorkResult | None = None


class LocalProcesses(Executor):
    """A process for each slot: a new interpreter, or with `forks` a fork, which shares this one's memory.

    Threads, and so torch, do not survive a fork, and a fork cannot use the GPU that this process uses.
    """

    def __init__(self, slots: Sequence[Slot], *, forks: bool = False) -> None:
        self.workers = len(slots)
        self._workers = [_Worker(slot, "fork" if forks else "spawn") for slot in slots]

    def map(
        self,
        items: Iterable[WorkItem],
        *,
        common: object = None,
        resources: Resources = Resources(),  # noqa: ARG002, B008  # a slot decides
        observer: Observer = SILENT,
        ahead: int = AHEAD,
    ) -> Generator[WorkResult]:
        """Run each item in a worker. If that is lost, the item runs again in its successor, once."""
        if self._running():
            raise RuntimeError("an executor runs one map at a time")
        rest = iter(items)
        order: deque[_Call] = deque()  # those whose results are not taken yet
        try:
            while True:
                running = {worker.future: (worker, call) for worker, call in self._running()}
                has_next_result = bool(order) and order[0].result is not None
                for future in wait(running, 0 if has_next_result else None, FIRST_COMPLETED).done:
                    worker, call = running[future]
                    worker.take_result(call, observer)
                for worker in self._workers:
                    if worker.call is None and len(order) < max(ahead, self.workers):
                        item = next(rest, None)
                        if item is None:
                            break
                        order.append(_Call(item, common))
                        worker.start(order[-1], observer)
                if not order:
                    return
                result = order[0].result
                if result is not None:
                    order.popleft()
                    yield result
        finally:
            self._end_busy()

    def _running(self) -> "list[tuple[_Worker, _Call]]":
        return [(worker, worker.call) for worker in self._workers if worker.call is not None]

    def _end_busy(self) -> None:
        """End the workers that run an item. After a second Ctrl-C `close` does it again."""
        running = self._running()
        for worker, _ in running:
            worker.terminate()
        for worker, _ in running:
            worker.stop()

    def close(self) -> None:
        """End all workers: those that run an item by SIGTERM, the others by themselves."""
        self._end_busy()
        for worker in self._workers:
            worker.stop()


class _Worker:
    """A process with a slot, and the call that it runs. The process is started with its first call."""

    def __init__(self, slot: Slot, method: str) -> None:
        self.call: _Call | None = None
        self.future: Future[WorkResult] = Future()
        self._slot = slot
        self._context: Any = multiprocessing.get_context(method)
        self._pool: Any = None
        self._process: BaseProcess | None = None
        self._sent: object = None  # the common value that the process has

    def start(self, call: _Call, observer: Observer) -> None:
        """Run an item."""
        pickled = None
        if call.common is not self._sent:
            pickled = pickle.dumps(call.common, pickle.HIGHEST_PROTOCOL)
        self.call, self._sent = call, call.common
        try:
            self._submit(call.item, pickled)
        except BrokenProcessPool:  # killed since its last item
            self.stop()
            self.start(call, observer)
            return
        observer.started(call.item.name, self._slot.name)

    def _submit(self, item: WorkItem, pickled: bytes | None) -> None:
        parent = os.getpid()
        with _signals_wait():  # those of a new process wait until it has its handlers
            if self._pool is None:
                self._pool = ProcessPoolExecutor(1, self._context, _begin, (parent, self._slot.environment))
            self.future = self._pool.submit(_run, parent, item, pickled)
            (self._process,) = self._pool._processes.values()
            # Only the process writes results: half of one ends when it is killed, and is not waited for.
            self._pool._result_queue._writer.close()

    def take_result(self, call: _Call, observer: Observer) -> None:
        """Give the call that it ran its result. If the process was lost, run it again, once."""
        self.call = None
        try:
            call.result = self.future.result()
        except BrokenProcessPool:
            reason = self._end_reason()
            call.losses += 1
            if call.losses == 1:
                observer.lost(call.item.name, reason)
                self.start(call, observer)
                return
            error = ContentError(f"{call.item.name}: its process {reason}")
            call.result = WorkResult(call.item.name, error=error)
        observer.ended(call.result)

    def _end_reason(self) -> str:
        process = self._process
        self.stop()
        code = process.exitcode if process else None
        if code is None or code >= 0:
            return f"ended with exit code {code}"
        reason = f"was ended by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            reason += "; was there too little memory?"
        return reason

    def terminate(self) -> None:
        """Ask the process to end, and what its item has started."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Wait for the end of the process. One that was asked to end is killed after a time."""
        process = self._process
        if process is not None and self.call is not None:
            process.join(GRACE + 10)  # one that ends others gives them GRACE
            process.kill()
        if self._pool is not None:
            self._pool.shutdown()
        if process is not None and process.pid is not None:
            end_left_behind(process.pid)
        self._pool = self._process = self._sent = self.call = None


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Let signals wait until the end of a block. What starts in it, a thread or process, gets none."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int, environment: Mapping[str, str]) -> None:
    """Be a worker: with the variables of a slot, in a session that the terminal's Ctrl-C does not reach."""
    os.setsid()
    once_per_worker(WorkerSide)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    end_with(parent)
    os.environ.update(environment, TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false")


def _run(parent: int, item: WorkItem, pickled: bytes | None) -> WorkResult:
    """Run an item in a worker. `pickled` is the common value, if the worker does not have it.

    The end of the parent is looked at again after it: where Python ignores errors, as in a generator that is
    closed, the signal's exit is lost.
    """
    worker = once_per_worker(WorkerSide)
    try:
        leave_on_sigterm()
        try:
            if pickled is not None:
                worker.common = pickle.loads(pickled)
            return worker.run(item)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            end_with(parent)
    except SystemExit:  # the pool would hand out the next item
        os._exit(TERMINATED)
