"""Time limit for code from users: regular expressions such as `(a+)+b`, and chat templates.

Both `re` and Jinja's compiled templates let signals through while they work, so a timer ends either.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from tuneyard.core.errors import TimeLimitError

SECONDS = 5.0


@contextlib.contextmanager
def bounded(code: str) -> Iterator[None]:
    """Stop the block with `TimeLimitError` after `SECONDS` of CPU time. The message names the `code`.

    Blocks are not nested: no code of a user runs inside other code of a user. Only the main thread gets
    signals: in another one the block runs without a bound.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeLimitError(
            f"{code}: stopped after {SECONDS:g} s of computing; repeats inside repeats, such as (a+)+, can "
            "take for ever: write it without them"
        )

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
