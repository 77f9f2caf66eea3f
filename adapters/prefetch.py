"""Prefetching: work on the next items while one is used (reading, BLAS and hashing release the GIL)."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 2
PREFETCHED = 3  # results that wait to be used; each may be a few tens of MB
Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def workers(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Yield threads; what still waits when the context is left (by an error, say) is left undone."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def prefetch(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `work(item)` of each item in order; up to `PREFETCHED` of them are ready before their turn."""
    waiting: deque[Future[Result]] = deque()
    with workers(THREADS) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > PREFETCHED:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)
