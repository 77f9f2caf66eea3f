"""Other processes of a test: whether they live, and waiting for what they do."""

import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tuneyard.core.files import HeldError, reserved


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def imported(importtime: str) -> set[str]:
    """The packages of the modules that `python -X importtime` lists on stderr."""
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in importtime.splitlines()}


def on_a_full_disk(command: Iterable[object]) -> "subprocess.CompletedProcess[str]":
    """Run a command whose files end after 64 blocks of 512 or 1,024 bytes, as on a full disk.

    It keeps no compiled module: Python takes a cut one for a whole one, and every later import of it fails.
    """
    script = 'ulimit -f 64; PYTHONDONTWRITEBYTECODE=1 exec "$@"'
    limited = ["sh", "-c", script, "sh", *map(str, command)]
    return subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)


def is_free(folder: Path) -> bool:
    """True unless a training, or the scoring of one, is writing to a folder."""
    if not folder.is_dir():
        return True
    try:
        with reserved(folder):
            return True
    except HeldError:
        return False


def wait_until(holds: Callable[[], object], process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until a condition holds, at most as long as a test may take; fail if the process ends before."""
    while not holds():
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.002)


def written(file: Path, process: subprocess.Popen[Any] | None = None) -> str:
    """Wait for the content of a file that a process writes."""
    wait_until(lambda: file.exists() and file.read_text(), process)
    return file.read_text()


def wait_for_end(pids: Iterable[int]) -> None:
    """Wait until no process lives that should have ended with the one that started it."""
    wait_until(lambda: not any(map(alive, pids)))
