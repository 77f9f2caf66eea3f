"""Processes that end with the process that started them, and their orderly end."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

GRACE = 20.0  # seconds that a process gets to end by itself after SIGTERM
_PDEATHSIG = 1  # PR_SET_PDEATHSIG of prctl(2)


def end_process(process: "subprocess.Popen[bytes]") -> None:
    """End the process group of a process that still runs: SIGTERM, and SIGKILL after a grace period."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE + 10)  # a process that ends others gives them GRACE


def end_left_behind(group: int) -> None:
    """End the rest of a process group whose leader has ended, before its successor begins."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def end_with(parent: int, sign: signal.Signals = signal.SIGTERM) -> None:
    """Send this process a signal when the process `parent` ends, even by kill -9."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PDEATHSIG, sign)
    if os.getppid() != parent:  # it died before the kernel knew that we want to be told
        raise SystemExit(128 + signal.SIGTERM)


def leave_on_sigterm() -> None:
    """Let SIGTERM unwind this process by `SystemExit`, so that it ends the processes that it has started.

    Python ignores errors in callbacks, such as those of an import: a lost exit comes again after a second.
    """
    for sign in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(sign, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    signal.setitimer(signal.ITIMER_REAL, 1)
    if not isinstance(sys.exc_info()[1], SystemExit):  # the process does not end already
        raise SystemExit(128 + signal.SIGTERM)
