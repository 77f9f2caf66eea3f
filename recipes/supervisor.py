"""python -m recipes.supervisor PID COMMAND…: a command whose whole family ends with it, or with process PID.

torchrun's ranks have sessions of their own: no signal to the group, no parent's death reaches them. Orphans
come to this process, which ends them.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

GRACE = 20.0  # seconds that a training gets to end by itself after SIGTERM
_PDEATHSIG, _SUBREAPER = 1, 36  # PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER of prctl(2)


def main(parent: int, command: list[str]) -> int:
    """Run a command for the process `parent` to its end; return its exit code, negative for a signal."""
    signal.signal(signal.SIGTERM, _leave)
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(_SUBREAPER, 1)
        libc.prctl(_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the kernel knew that we want to be told
        return 128 + signal.SIGTERM
    try:
        return subprocess.Popen(command, close_fds=False).wait()  # the output_dir's lock is handed on
    finally:
        end_family()


def _leave(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the kernel tells of each of the parent's threads
    raise SystemExit(128 + signal.SIGTERM)


def end_family() -> None:
    """End every process below this one: SIGTERM, and SIGKILL after a grace period."""
    import psutil

    for end in ("terminate", "kill"):
        family = psutil.Process().children(recursive=True)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(process, end)()
        if not psutil.wait_procs(family, timeout=GRACE)[1]:
            return


if __name__ == "__main__":
    code = main(int(sys.argv[1]), sys.argv[2:])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
