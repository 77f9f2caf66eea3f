"""Local worker processes: each is a pool of one process (`concurrent.futures`), so that it is lost alone.

Workers start with their first item, and stay for the next items and maps. Whatever ends this process ends
them: an exception, a signal, kill -9.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any

from tuneyard.core.errors import TERMINATED
from tuneyard.core.execution import Resources, Slot, WorkerSide, WorkItem, WorkResult
from tuneyard.core.execution.processes import GRACE, end_left_behind, end_with, leave_on_sigterm
from tuneyard.core.execution.worker_map import LostWorkerError, Worker, WorkerMap

_SIGNALS = {signal.SIGINT, signal.SIGTERM}


class LocalProcesses(WorkerMap):
    """A process for each slot: a new interpreter, or with `forks` a fork, which shares this one's memory.

    Threads, and so torch, do not survive a fork, and a fork cannot use the GPU that this process uses.
    """

    def __init__(self, slots: Sequence[Slot], *, forks: bool = False) -> None:
        super().__init__()
        self.workers = len(slots)
        self._processes = [_LocalWorker(slot, "fork" if forks else "spawn") for slot in slots]

    def _workers_with(self, resources: Resources) -> Sequence[Worker]:  # noqa: ARG002  # a slot decides
        return self._processes

    def _end(self, workers: Sequence[Worker]) -> None:
        ended = [worker for worker in self._processes if worker in workers]
        with _signals_wait():  # a second Ctrl-C comes when each of them knows
            for worker in ended:
                worker.terminate()
        for worker in ended:
            worker.end()

    def close(self) -> None:
        """End all workers: those that run an item by SIGTERM, the others by themselves."""
        super().close()
        for worker in self._processes:
            worker.stop()


class _LocalWorker(Worker):
    """A process with a slot, started when it gets an item."""

    def __init__(self, slot: Slot, method: str) -> None:
        self.name = slot.name
        self._slot = slot
        self._method = method
        self._pool: ProcessPoolExecutor | None = None
        self._process: BaseProcess | None = None
        self._sent: object = None  # the common value that the process has

    def submit(self, item: WorkItem, common: object) -> "Future[WorkResult]":
        pool = self._pool or self._start()
        pickled = None
        if common is not self._sent:
            pickled = pickle.dumps(common, pickle.HIGHEST_PROTOCOL)
        self._sent = common
        try:
            return pool.submit(_run, item, pickled)
        except BrokenProcessPool as error:  # killed since its last item
            lost: Future[WorkResult] = Future()
            lost.set_exception(error)
            return lost

    def _start(self) -> ProcessPoolExecutor:
        """Start a process whose signals wait until it has its handlers."""
        context: Any = multiprocessing.get_context(self._method)
        self._pool = ProcessPoolExecutor(1, context, _begin, (os.getpid(), self._slot.environment))
        before = set(multiprocessing.active_children())
        sys.stdout.flush()
        sys.stderr.flush()
        with _signals_wait():
            self._pool.submit(os.getpid)
            (self._process,) = set(multiprocessing.active_children()) - before
        return self._pool

    def result_of(self, future: "Future[WorkResult]") -> WorkResult:
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise LostWorkerError(self._end_reason()) from error

    def _end_reason(self) -> str:
        process = self._process
        self.stop()
        if process is None or process.exitcode is None:
            return "was lost"
        if process.exitcode >= 0:
            return f"ended with exit code {process.exitcode}"
        reason = f"was ended by {signal.Signals(-process.exitcode).name}"
        if process.exitcode == -signal.SIGKILL:
            reason += "; was there too little memory?"
        return reason

    def terminate(self) -> None:
        """Ask the process to end, and what its item has started."""
        if self._process is not None:
            self._process.terminate()

    def end(self) -> None:
        """Wait for a process that was asked to end; kill it after a time."""
        if self._process is not None:
            self._process.join(GRACE + 10)  # one that ends others gives them GRACE
            self._process.kill()
        self.stop()

    def stop(self) -> None:
        """Let a process end that has no item, and wait for it."""
        pool, process = self._pool, self._process
        self._pool = self._process = self._sent = None
        if pool is not None:
            pool.shutdown()
        if process is not None and process.pid is not None:
            end_left_behind(process.pid)


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
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    end_with(parent)
    os.environ.update(environment, TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false")
    _here.append(WorkerSide())
    _parents.append(parent)


_here: list[WorkerSide] = []
"""In a worker, its one state."""
_parents: list[int] = []
"""In a worker, the process that it ends with."""


def _run(item: WorkItem, pickled: bytes | None) -> WorkResult:
    """Run an item in a worker. `pickled` is the common value, if the worker does not have it.

    The end of the parent is looked at again after it: where Python ignores errors, as in a generator that is
    closed, the signal's exit is lost.
    """
    try:
        leave_on_sigterm()
        try:
            if pickled is not None:
                _here[0].common = pickle.loads(pickled)
            return _here[0].run(item)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            end_with(_parents[0])
    except SystemExit:  # the pool would hand out the next item
        os._exit(TERMINATED)
