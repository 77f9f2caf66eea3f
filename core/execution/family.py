"""A program with all that it starts, which end together, and with the process that started them.

python -m tuneyard.core.execution.family PID COMMAND… runs a command, and ends all of its family once the
command or process PID ends, even by kill -9. torchrun's ranks have sessions of their own, out of reach of
signals to a group, and an orphan has lost its parent. So each process of a family is found by a variable of
its environment; one that has overwritten it is found below the others.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tuneyard.core.execution.processes import GRACE, end_with, leave_on_sigterm

if TYPE_CHECKING:
    import psutil

FAMILIES = "TUNEYARD_FAMILIES"
"""The variable: names of families, the innermost last, with a colon between them."""


def start_family(command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a command in a new session. Its family ends with it, or with this process.

    `options` are those of `subprocess.Popen`. The exit code is the command's.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tuneyard.core.execution.family", str(os.getpid()), *command],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        **options,
    )


def run_family(parent: int, command: Sequence[str]) -> int:
    """Run a command for the process `parent` to its end; return its exit code, negative for a signal."""
    end_with(parent)
    leave_on_sigterm()
    family = f"{os.getpid()}-{time.time_ns()}"
    families = ":".join(filter(None, [os.environ.get(FAMILIES), family]))
    try:
        variables = {**os.environ, FAMILIES: families}
        # its descriptors are handed on: the lock of the output folder
        return subprocess.Popen(command, close_fds=False, env=variables).wait()
    finally:
        end_family(family)


def end_family(family: str) -> None:
    """End every process of a family: SIGTERM, and SIGKILL after a grace period."""
    import psutil

    for end in ("terminate", "kill"):
        members = _members(family)
        for member in members:
            try:
                getattr(member, end)()
            except psutil.NoSuchProcess:  # it ended by itself
                continue
        deadline = time.monotonic() + GRACE
        while any(map(_is_alive, members)):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return


def _members(family: str) -> "list[psutil.Process]":
    """The processes of a family, without this one, and those below them."""
    import psutil

    members = set(psutil.Process().children(recursive=True))
    for process in psutil.process_iter():
        try:
            families = process.environ().get(FAMILIES, "")
            if family in families.split(":"):
                members |= {process, *process.children(recursive=True)}
        except psutil.Error:  # it has ended, or is another user's
            continue
    return [member for member in members if member.pid != os.getpid()]


def _is_alive(process: "psutil.Process") -> bool:
    """False for a zombie, too: an orphan is one for ever where process 1 collects none, as in a container."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    code = run_family(int(sys.argv[1]), sys.argv[2:])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
