"""Local worker processes: new interpreters that each have a slot of the machine, or forks of this process.

Workers start when items are there for them, and stay for the next items and maps. Whatever ends this process
ends them: an exception, a signal, kill -9.
"""

import contextlib
import gc
import io
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import IO, Any, NoReturn

from tuneyard.core.checkout import python_path
from tuneyard.core.execution import (
    AHEAD,
    SILENT,
    Attempt,
    CallResult,
    Common,
    Executor,
    Observer,
    Slot,
    WorkItem,
    WorkQueue,
    WorkResult,
    no_reply,
)
from tuneyard.core.processes import GRACE, Process, end_left_behind, end_processes, end_with
from tuneyard.core.work_process import LENGTH, CommonKey, WorkAnswer, WorkOrder, message, serve

_POLL_EVERY = 1.0  # seconds; a process that ends is noticed at once unless a child of it has its socket
_HELD_POLL_EVERY = 0.1  # seconds, while items are held back
_RECEIVED_AT_ONCE = 1 << 18  # bytes
_connections: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()
"""Our ends of all sockets. A fork closes them: otherwise another worker would not see our end closed."""


class _Worker:
    """A process, our end of its socket, and the items that it has: the first runs, others wait there.

    `output` is the file to which it prints. It empties that file at each reply.
    """

    def __init__(self, slot: Slot, process: Process, connection: socket.socket, output: IO[bytes]) -> None:
        self.slot = slot
        self.process = process
        self.connection = connection
        self.attempts: deque[Attempt] = deque()
        self.values: set[int] = set()  # numbers of the shared values that it has
        self._output = output
        self._outgoing = bytearray()
        self._incoming = bytearray()
        connection.setblocking(False)

    @property
    def has_outgoing(self) -> bool:
        """True if the socket could not take all of a message yet."""
        return bool(self._outgoing)

    def give(self, attempt: Attempt) -> None:
        """Send an item, with the shared values that the worker does not have yet.

        The worker lets go of values that are gone in this process: scoring sends its datasets as one.
        """
        outdated = tuple(self.values.difference(Common.living))
        self.values.difference_update(outdated)
        arguments: list[object] = []
        values: list[tuple[int, bytes]] = []
        for argument in attempt.item.arguments:
            if not isinstance(argument, Common):
                arguments.append(argument)
                continue
            arguments.append(CommonKey(argument.number))
            if argument.number not in self.values:
                values.append((argument.number, argument.pickled))
                self.values.add(argument.number)
        order = WorkOrder(attempt.item.function, tuple(arguments), tuple(values), outdated)
        self._outgoing += message(order)
        self.attempts.append(attempt)
        self.send()

    def send(self) -> None:
        """Send what the socket takes now. A worker that is gone is noticed when we read."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._outgoing:
                count = self.connection.send(self._outgoing)
                del self._outgoing[:count]

    def receive(self) -> tuple[list[tuple[CallResult, str]], bool]:
        """Replies that have come, each with what its item printed; and whether the worker is gone."""
        is_gone = False
        with contextlib.suppress(BlockingIOError):
            try:
                received = self.connection.recv(_RECEIVED_AT_ONCE)
            except ConnectionResetError:
                received = b""
            self._incoming += received
            is_gone = not received
        replies: list[tuple[CallResult, str]] = []
        while True:
            answer = self._next_answer()
            if answer is None:
                return replies, is_gone
            reply: CallResult = pickle.loads(answer.reply)
            replies.append((reply, answer.output.decode("utf-8", errors="replace")))

    def _next_answer(self) -> WorkAnswer | None:
        if len(self._incoming) < LENGTH.size:
            return None
        (size,) = LENGTH.unpack_from(self._incoming)
        end = LENGTH.size + size
        if len(self._incoming) < end:
            return None
        answer: WorkAnswer = pickle.loads(memoryview(self._incoming)[LENGTH.size : end])
        del self._incoming[:end]
        return answer

    def last_output(self) -> str:
        """What a worker that is gone printed after its last reply."""
        descriptor = self._output.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode("utf-8", errors="replace")

    def end_reason(self) -> str:
        """How a worker ended that left no reply. What its item has started is ended, too."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        end_processes([self.process])
        end_left_behind(self.process)
        code = self.process.wait(GRACE)
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def close(self) -> None:
        """Close our end of its files. It ends by itself if it has no item."""
        self.connection.close()
        self._output.close()


class _WorkerProcesses(Executor):
    """Workers that take items from this process. A subclass starts them."""

    def __init__(self, slots: Sequence[Slot], depth: int) -> None:
        self.workers = len(slots)
        self._slots = slots
        self._depth = depth  # items that a worker has at a time
        self._running: list[_Worker] = []

    @abstractmethod
    def _start(self, slot: Slot) -> _Worker:
        """Start a worker that has this slot."""

    def map(
        self, items: Iterable[WorkItem], observer: Observer = SILENT, ahead: int = AHEAD
    ) -> Generator[WorkResult]:
        """Run each item in a worker, in as many at a time as there are slots."""
        if self._busy():
            raise RuntimeError("an executor runs one map at a time")
        queue = WorkQueue(items, max(ahead, self.workers))
        try:
            while True:
                self._hand_out(queue, observer)
                if not self._busy():
                    if not queue.waits_for_held(observer):
                        return
                    continue
                for worker in self._ready(has_held=bool(queue.held_names())):
                    for attempt, result in self._results_of(worker, queue, observer):
                        yield from queue.add(attempt, result)
        finally:
            self._end(self._busy())

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._running if worker.attempts]

    def _hand_out(self, queue: WorkQueue, observer: Observer) -> None:
        """Give items to the workers that can take one, those without an item first."""
        for count in range(self._depth):
            for slot in self._slots:
                worker = self._worker_of(slot)
                if worker is not None and len(worker.attempts) > count:
                    continue
                attempt = queue.next_free()
                if attempt is None:
                    return
                if worker is None:
                    worker = self._start(slot)
                    self._running.append(worker)
                observer.started(attempt.item.name, slot)
                worker.give(attempt)

    def _worker_of(self, slot: Slot) -> _Worker | None:
        for worker in self._running:
            if worker.slot is slot:
                return worker
        return None

    def _ready(self, has_held: bool) -> list[_Worker]:
        """Wait for a worker that has sent something or has ended, or for the time to look at held items."""
        busy = self._busy()
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                events = selectors.EVENT_READ
                if worker.has_outgoing:
                    events |= selectors.EVENT_WRITE
                selector.register(worker.connection, events, worker)
            selected = selector.select(_HELD_POLL_EVERY if has_held else _POLL_EVERY)
        ready = []
        for key, mask in selected:
            if mask & selectors.EVENT_WRITE:
                key.data.send()
            if mask & selectors.EVENT_READ:
                ready.append(key.data)
        if not selected:
            ready = [worker for worker in busy if worker.process.poll() is not None]
        return ready

    def _results_of(
        self, worker: _Worker, queue: WorkQueue, observer: Observer
    ) -> list[tuple[Attempt, WorkResult]]:
        """Results that a worker has sent; an item that it took with it runs again or fails."""
        results = []
        replies, is_gone = worker.receive()
        for reply, output in replies:
            attempt = worker.attempts.popleft()
            result = queue.settle(attempt, reply, output, observer)
            if result is not None:
                results.append((attempt, result))
        if is_gone or (not replies and worker.process.poll() is not None):
            self._running.remove(worker)
            results += self._results_of_lost(worker, queue, observer)
        return results

    def _results_of_lost(
        self, worker: _Worker, queue: WorkQueue, observer: Observer
    ) -> list[tuple[Attempt, WorkResult]]:
        """Result of the item that ran in a worker that has ended; [] if it runs again."""
        reason, output = worker.end_reason(), worker.last_output()
        worker.close()
        if not worker.attempts:
            return []
        attempt = worker.attempts.popleft()
        while worker.attempts:  # these had not started
            waiting = worker.attempts.popleft()
            observer.lost(waiting.item.name, reason)
            queue.give_back(waiting)
        if reason.startswith("was ended by"):
            result = queue.settle_lost(attempt, reason, output, observer)
        else:  # an error of the item, which would come again
            reply = CallResult(error=no_reply(reason, output), exit_code=1, is_lost=True)
            result = queue.settle(attempt, reply, output, observer)
        if result is None:
            return []
        return [(attempt, result)]

    def _end(self, workers: Sequence[_Worker]) -> None:
        """End workers at once, and what their items have started."""
        end_processes([worker.process for worker in workers])
        for worker in workers:
            worker.close()
            self._running.remove(worker)

    def close(self) -> None:
        """End the workers: those that run an item at once, the others by themselves."""
        self._end(self._busy())
        for worker in self._running:
            worker.close()
        idle = [worker.process for worker in self._running]
        for process in idle:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        end_processes(idle)
        self._running = []


class LocalProcesses(_WorkerProcesses):
    """New interpreters, one for each slot, with the variables of the slot."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        super().__init__(slots, depth=1)

    def _start(self, slot: Slot) -> _Worker:
        connection, workers_end = socket.socketpair()
        output = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
        variables = {**slot.environment, "PYTHONPATH": python_path(), "TQDM_DISABLE": "1"}
        module = ["-P", "-m", "tuneyard.core.work_process"]
        with workers_end:
            process = subprocess.Popen(
                [sys.executable, *module, str(os.getpid()), str(workers_end.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                pass_fds=(workers_end.fileno(),),
                start_new_session=True,
            )
        _connections.add(connection)
        return _Worker(slot, process, connection, output)


class ForkedProcesses(_WorkerProcesses):
    """Forks of this process, for short items. A worker has one item more than the one that runs.

    Forks start in milliseconds with all that is imported. Threads, and so torch, do not survive a fork.
    """

    def __init__(self, workers: int) -> None:
        super().__init__([Slot(f"worker {number}") for number in range(1, workers + 1)], depth=2)

    def _start(self, slot: Slot) -> _Worker:
        connection, workers_end = socket.socketpair()
        _connections.add(connection)
        output = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        signals = {signal.SIGINT, signal.SIGTERM}
        with _handled_later(signals):
            mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until the fork has its handlers
            try:
                number = os.fork()
                if number == 0:
                    _work_in_fork(parent, workers_end, output, signals)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask_before)
        with contextlib.suppress(OSError):  # the fork does the same: whichever comes first
            os.setpgid(number, number)
        workers_end.close()
        worker = _Worker(slot, _Fork(number), connection, output)
        worker.values = set(Common.living)
        return worker


@contextlib.contextmanager
def _handled_later(signals: set[signal.Signals]) -> Iterator[None]:
    """Handle signals at the end of a block, also those that reach another thread.

    Python runs functions of its libraries around a fork and ignores what they raise. A handler that ran in
    one of them could neither end this process nor let logging release its lock.
    """
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread only
        yield
        return
    received: list[int] = []
    handlers = {}
    for number in signals:
        if signal.getsignal(number) is not None:  # None: a handler that Python did not set
            handlers[number] = signal.signal(number, lambda each, _: received.append(each))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for each in received:
            signal.raise_signal(each)


def _work_in_fork(
    parent: int, connection: socket.socket, output: IO[bytes], blocked: set[signal.Signals]
) -> NoReturn:
    """Be a worker. Nothing of the parent is unwound: no `finally`, no buffer, no exit function."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for parents_end in list(_connections):
            parents_end.close()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", errors="backslashreplace")
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", errors="backslashreplace")
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not survive a fork
        gc.freeze()  # a collection would copy the pages that are shared with the parent
        values: dict[int, Any] = {number: common.value for number, common in Common.living.items()}
        try:
            end_with(parent)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
            serve(connection, values)
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        finally:
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


class _Fork:
    """A forked child, with the methods of `subprocess.Popen` that we use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Exit code, None while it runs; negative: the signal that ended it."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float) -> int:
        """Wait for its end. `subprocess.TimeoutExpired` after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        pause = 0.001
        while True:
            code = self.poll()
            if code is not None:
                return code
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("a forked worker", timeout)
            time.sleep(pause)
            pause = min(0.05, pause * 2)
