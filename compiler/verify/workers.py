"""Batches of rows audited by as many processes as there are cores, each a fork that shares the rows."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import Any

from compiler.verify.audit import Audit, Auditor
from core.errors import RequestError

MANY = 4_000_000  # bytes of rows from which on a second process is worth its start
MOST = 8
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
Audits = Iterator[Audit]

_batch: Callable[[int], Audit]  # of the audit under way, as the forked processes find it


def workers_for(size: int) -> int:
    """Return how many processes to read and audit a file of so many bytes with."""
    if size < MANY or not sys.platform.startswith("linux"):
        return 1
    return min(len(os.sched_getaffinity(0)), MOST)


@contextmanager
def audits(auditor: Auditor, rows: Any, starts: range, workers: int) -> Iterator[Audits]:
    """Yield the audits of the batches of rows (a `datasets.Dataset`) that begin at `starts`, in their order.

    Several workers make them while the caller does something else; `RequestError` where one was killed.
    """
    global _batch  # forked processes inherit it; it could not be sent to them
    _batch = partial(_audit, auditor, rows, starts.step)
    if workers == 1:
        yield map(_batch, starts)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, _begin, (os.getpid(),)) as pool:
        try:
            yield pool.map(_forked, starts)
        except BrokenProcessPool as error:
            raise RequestError(
                "a process that audits rows was killed: was there too little memory?"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _audit(auditor: Auditor, rows: Any, size: int, start: int) -> Audit:
    return auditor.audit(rows[start : start + size], start)


def _forked(start: int) -> Audit:
    return _batch(start)


def _begin(parent: int) -> None:
    """Leave with the parent, leave Ctrl-C to it, and use one core: what threads there were are not forked."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
