"""Kill a function at each of its steps on the disk, as kill -9 does: no `finally` runs, nothing is tidied."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink")
"""Audit events of changes of a folder. Python raises them before the change."""


def killed_at(step: int, folder: Path, work: Callable[[], object]) -> bool:
    """Run `work` in a process that is killed before its change number `step`. False if it has fewer changes.

    A file below `folder` that is opened is a change, too.
    """
    child = os.fork()
    if not child:
        _run(step, folder, work)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def _run(step: int, folder: Path, work: Callable[[], object]) -> None:
    changes = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        opens = event == "open" and str(arguments[0]).startswith(str(folder))
        if opens or event in CHANGES:
            changes += 1
            if changes == step:
                os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        sys.addaudithook(count)
        work()
        code = 0
    finally:
        os._exit(code)
