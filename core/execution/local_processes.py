"""Local worker processes: each is a pool of one process (`concurrent.futures`), so that it is lost alone.

A pool of several ends all of them with one: trainings of hours, loaded models. Workers start with their first
item, and stay for the next items and maps. Whatever ends this process ends them: an exception, a signal,
kill -9.
"""

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tuneyard.core.errors import TERMINATED
from tuneyard.core.execution import (
    AHEAD,
    SILENT,
    DrawnItem,
    Executor,
    Observer,
    Slot,
    WorkerSide,
    WorkItem,
    WorkResult,
    once_per_worker,
)
from tuneyard.core.execution.processes import GRACE, end_left_behind, end_with, leave_on_sigterm
from tuneyard.core.installation.checkout import environment_set, python_variables
from tuneyard.core.language.message import _

_SIGNALS = {signal.SIGINT, signal.SIGTERM}


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
        observer: Observer = SILENT,
        ahead: int = AHEAD,
        **_unused: object,  # a slot decides on resources
    ) -> Generator[WorkResult]:
        """Run each item in a worker. If that is lost, the item runs again in its successor, once."""
        if self._running():
            raise RuntimeError(_("an executor runs one map at a time"))
        rest = iter(items)
        order: deque[DrawnItem] = deque()  # those whose results are not taken yet
        try:
            while True:
                running = {worker.future: worker for worker in self._running()}
                has_next_result = bool(order) and order[0].result is not None
                for future in wait(running, 0 if has_next_result else None, FIRST_COMPLETED).done:
                    running[future].take_result(common, observer)
                for worker in self._workers:
                    if worker.drawn is None and len(order) < max(ahead, self.workers):
                        item = next(rest, None)
                        if item is None:
                            break
                        order.append(DrawnItem(item))
                        worker.start(order[-1], common, observer)
                if not order:
                    return
                result = order[0].result
                if result is not None:
                    order.popleft()
                    yield result
        finally:
            self._end_busy()

    def _running(self) -> "list[_Worker]":
        return [worker for worker in self._workers if worker.drawn is not None]

    def _end_busy(self) -> None:
        """End the workers that run an item. After a second Ctrl-C `close` does it again."""
        running = self._running()
        for worker in running:
            worker.terminate()
        for worker in running:
            worker.stop()

    def close(self) -> None:
        """End all workers: those that run an item by SIGTERM, the others by themselves."""
        self._end_busy()
        for worker in self._workers:
            worker.stop()


class _Worker:
    """A process with a slot, and the item that it runs. The process is started with its first item."""

    def __init__(self, slot: Slot, method: str) -> None:
        self.drawn: Any = None
        self.future: Future[WorkResult] = Future()
        self._slot = slot
        self._context: Any = multiprocessing.get_context(method)
        self._pool: Any = None
        self._process: Any = None
        self._sent: object = None  # the common value that the process has

    def start(self, drawn: DrawnItem, common: object, observer: Observer) -> None:
        """Run an item."""
        pickled = None
        if common is not self._sent:
            pickled = pickle.dumps(common, pickle.HIGHEST_PROTOCOL)
        self.drawn, self._sent = drawn, common
        try:
            self._submit(drawn.item, pickled)
        except BrokenProcessPool:  # killed since its last item
            self.stop()
            self.start(drawn, common, observer)
            return
        observer.started(drawn.item.name, self._slot.name)

    def _submit(self, item: WorkItem, pickled: bytes | None) -> None:
        # A new process or thread gets no signals; those of the process wait until it has its handlers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            with environment_set(python_variables()):  # for the worker, and for multiprocessing's own process
                if self._pool is None:
                    self._pool = ProcessPoolExecutor(
                        1, self._context, _begin, (os.getpid(), self._slot.environment)
                    )
                self.future = self._pool.submit(_run, item, pickled)
            (self._process,) = self._pool._processes.values()
            # Only the process writes results: half of one ends when it is killed, and is not waited for.
            self._pool._result_queue._writer.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def take_result(self, common: object, observer: Observer) -> None:
        """Give the item that it ran its result. If the process was lost, run it again, once."""
        drawn, self.drawn = self.drawn, None
        try:
            drawn.end(self.future.result(), observer)
        except BrokenProcessPool:
            if drawn.runs_again(self._end_reason(), observer):
                self.start(drawn, common, observer)

    def _end_reason(self) -> str:
        process = self._process
        self.stop()
        if process.exitcode >= 0:
            return _("ended with exit code {number}", number=process.exitcode)
        name = signal.Signals(-process.exitcode).name
        if process.exitcode == -signal.SIGKILL:
            return _("was ended by {signal}; was there too little memory?", signal=name)
        return _("was ended by {signal}", signal=name)

    def terminate(self) -> None:
        """Ask the process to end, and what its item has started."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Wait for the end of the process. One that was asked to end is killed after a time."""
        process = self._process
        if process is not None and self.drawn is not None:
            process.join(GRACE + 10)  # one that ends others gives them GRACE
            process.kill()
        if self._pool is not None:
            self._pool.shutdown()
        if process is not None:
            end_left_behind(process.pid)
        self._pool = self._process = self._sent = self.drawn = None


def _begin(parent: int, environment: Mapping[str, str]) -> None:
    """Be a worker: with the variables of a slot, in a session that the terminal's Ctrl-C does not reach."""
    os.setsid()
    once_per_worker(WorkerSide)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    end_with(parent)
    os.environ.update(environment, TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false")


def _run(item: WorkItem, pickled: bytes | None) -> WorkResult:
    """Run an item in a worker. `pickled` is the common value, if the worker does not have it."""
    worker = once_per_worker(WorkerSide)
    try:
        leave_on_sigterm()
        try:
            if pickled is not None:
                worker.common = pickle.loads(pickled)
            return worker.run(item)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except SystemExit:  # the pool would hand out the next item
        os._exit(TERMINATED)
