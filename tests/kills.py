"""Kill a command at one of its steps on the disk, as kill -9 does: no `finally` runs, nothing is tidied.

python -m tests.kills STEP FOLDER TEMPORARY REPORT MODULE WORDS… runs MODULE in FOLDER, as `python -m` does,
with temporary files in TEMPORARY. Before its step number STEP on files of the two it kills itself and the
processes that it started. If it has fewer steps, it writes their number into REPORT.
"""

import builtins
import contextlib
import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from testing.forks import run_as_main

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
"""Audit events of changes of a folder. Python raises them before the change."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def killed_at(step: int, folder: Path, work: Callable[[], object]) -> bool:
    """Run `work` in a process that is killed before its step number `step`. False if it has fewer steps."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setpgid(0, 0)
            count_steps(step, [folder])
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


class Steps:
    """Counts steps on files of some folders. The process and its group are killed before the `fatal` one."""

    def __init__(self, fatal: int, folders: Collection[Path]) -> None:
        self.fatal = fatal
        self.folders = tuple(f"{folder.resolve()}/" for folder in folders)
        self.process, self.count = os.getpid(), 0

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take an event of Python: a file that is opened to be written, or a change of a folder."""
        if event == "open":
            path, _, flags = arguments
            if flags & WRITES and self.is_counted(path):
                self.step()
        elif event in CHANGES and self.is_counted(*arguments):
            self.step()

    def is_counted(self, path: object, *others: object) -> bool:
        """True for a path below the folders. One of the others may be the descriptor of its parent."""
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        place = Path.cwd() / os.fsdecode(path)
        for descriptor in others:
            if isinstance(descriptor, int):
                parent = Path(f"/proc/self/fd/{descriptor}")
                if parent.is_dir():
                    place = parent.readlink() / os.fsdecode(path)
        return f"{os.path.normpath(place)}/".startswith(self.folders)

    def step(self, before_the_kill: Callable[[], object] = lambda: None) -> None:
        """Count a step of this process, none of those that it forks."""
        if os.getpid() != self.process:
            return
        self.count += 1
        if self.count == self.fatal:
            with contextlib.suppress(OSError):  # the disk is full
                before_the_kill()
            os.killpg(0, signal.SIGKILL)


def count_steps(fatal: int, folders: Collection[Path]) -> Steps:
    """Count the steps of this process from now on. A fatal write(2) brings half of its bytes to the disk.

    Writes of files that Python opened are counted, none of libraries in other languages.
    """
    steps = Steps(fatal, folders)
    open_file = io.open

    class Counted(io.FileIO):
        """A file of which each write(2) is a step."""

        def write(self, data: Any) -> int:
            content = bytes(data)
            half = content[: len(content) // 2]
            steps.step(lambda: super(Counted, self).write(half))
            return super().write(content)

    def open_counted(file: Any, mode: str = "r", buffering: int = -1, *text: Any, **options: Any) -> Any:
        is_written = set(mode) & set("wxa") and "+" not in mode
        if not is_written or "opener" in options or not steps.is_counted(file):
            return open_file(file, mode, buffering, *text, **options)
        raw = Counted(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        if "b" in mode:
            return io.BufferedWriter(raw)
        return io.TextIOWrapper(io.BufferedWriter(raw), *text, **options)

    builtins.open = io.open = open_counted
    sys.addaudithook(steps.audit)
    return steps


def main(step: str, folder: str, temporary: str, report: str, module: str, *words: str) -> int:
    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = temporary
    os.fsync = lambda _: None  # half of the time, and a kill loses nothing that was written
    steps = count_steps(int(step), [Path(folder), Path(temporary)])
    code = run_as_main(["-m", module, *words])
    Path(report).write_text(str(steps.count))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
