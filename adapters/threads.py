"""Threads that read, compute and hash while the main one goes on."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 2
PREFETCHED = 3  # results in memory that are not used yet; each may have some tens of MB
Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def workers(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Pool of threads. Leaving the context, with an error or without, cancels jobs that have not begun."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def prefetch(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """Yield `work(item)` of each item in order, computed up to `PREFETCHED` items ahead.

    Reading, BLAS and hashing release the interpreter's lock, so that they go on while a result is used.
    Close it if you may leave early: the garbage collector may close it in a thread that is just starting,
    and joining threads there never ends.
    """
    waiting: deque[Future[Result]] = deque()
    with workers(THREADS) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > PREFETCHED:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
