"""A command that waits at a call, so that a test ends it there and nowhere else.

python -m tests.held FOLDER PLACE CALL MODULE WORDS… runs MODULE. Each process of it waits in the CALL-th call
of the function at PLACE as long as FOLDER has a file with its process id.
"""

import contextlib
import itertools
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import ROOT
from tests.folders import names
from tests.processes import wait_until


class Held:
    """A command whose processes wait in a call: `Held("package.module.function", CALL, MODULE, …)`."""

    def __init__(self, place: str, call: int, *words: object) -> None:
        self.marks = tempfile.TemporaryDirectory(prefix="held-")
        self.folder = Path(self.marks.name, "pids")
        self.folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.held", *map(str, (self.folder, place, call, *words))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def waiting(self, count: int = 1) -> list[int]:
        """The process ids, once so many processes wait."""
        wait_until(lambda: len(names(self.folder)) >= count, self.process)
        return list(map(int, names(self.folder)))

    def go_on(self) -> None:
        """Let all processes go on, also those that come to the call later."""
        self.folder.rename(self.folder.with_name("gone"))

    def ended(self, code: int) -> str:
        """What the command printed until its end; its exit code is checked."""
        printed, _ = self.process.communicate()
        assert self.process.returncode == code, printed
        return printed

    def ended_by(self, sign: int) -> str:
        """The same, by a signal that it gets where it waits."""
        self.waiting()
        self.process.send_signal(sign)
        return self.ended(-sign if sign == signal.SIGKILL else 128 + sign)


def hold(folder: Path) -> None:
    mark = folder / str(os.getpid())
    with contextlib.suppress(FileNotFoundError):  # all may go on
        mark.touch()
    while mark.exists():  # the folder goes with the test's process
        time.sleep(0.01)


def main(folder: str, place: str, call: str, *words: str) -> None:
    parent, _, name = place.rpartition(".")
    owner = pkgutil.resolve_name(parent)
    function = getattr(owner, name)
    calls = itertools.count(1)

    def held(*arguments: object, **options: object) -> object:
        if next(calls) == int(call):
            hold(Path(folder))
        return function(*arguments, **options)

    setattr(owner, name, held)
    sys.argv = ["-m", *words[1:]]  # as Python sets it until it has found the module
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
