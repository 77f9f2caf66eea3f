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
def bounded(code: str, seconds: float | None = None) -> Iterator[None]:
    """Stop the block with `TimeLimitError` after `seconds` (5) of CPU time. The message names the `code`.

    Blocks may be nested. Only the main thread gets signals: in another one the block runs without a bound.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seconds = SECONDS if seconds is None else seconds

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TimeLimitError(
            f"{code}: stopped after {seconds:g} s of computing; repeats inside repeats, such as (a+)+, can "
            "take for ever: write it without them"
        )

    around = signal.getitimer(signal.ITIMER_VIRTUAL)[0]
    allowed = min(seconds, around) if around else seconds
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, allowed)
    try:
        yield
    finally:
        left = signal.setitimer(signal.ITIMER_VIRTUAL, 0)[0]
        signal.signal(signal.SIGVTALRM, before)
        if around:
            signal.setitimer(signal.ITIMER_VIRTUAL, max(around - (allowed - left), 1e-6))
