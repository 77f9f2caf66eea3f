"""Work items for tests of executors. Workers import this file alone, and none of what the tests import."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from tests.processes import wait_until
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.execution import InThisProcess, Slot, once_per_worker
from tuneyard.core.execution.local_processes import LocalProcesses

SLOTS = [Slot("first", {"PART": "a"}), Slot("second", {"PART": "b"})]
EXECUTORS = {
    "here": InThisProcess,
    "interpreters": lambda: LocalProcesses(SLOTS),
    "forks": lambda: LocalProcesses(SLOTS, forks=True),
}


def slot_after(mark: Path | None = None) -> str:
    """The variable of the slot, once a file is there."""
    if mark is not None:
        wait_until(mark.exists)
    print(f"after {mark}")
    return os.environ.get("PART", "")


def fail(kind: str) -> None:
    if kind == "content":
        raise ContentError("row 3 is empty")
    if kind == "disk":
        raise OSError(28, "No space left on device", "out/x")
    if kind == "request":
        raise RequestError("no such file")
    if kind == "memory":
        raise MemoryError
    if kind == "defect":
        raise ZeroDivisionError("by nothing")
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(mark: Path) -> int:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


def die_once_in_the_result(mark: Path) -> int:
    """End this process when the length of its result is sent, and not the result."""

    def send_length(connection, content):
        os.write(connection.fileno(), struct.pack("!i", len(content)))
        os.kill(os.getpid(), signal.SIGKILL)

    if not mark.exists():
        mark.touch()
        Connection._send_bytes = send_length
    return 7


def start_and_die_once(note: Path) -> int:
    """Start a process that does not end with this one."""
    if note.exists():
        return 7
    child = subprocess.Popen(["sleep", "600"])
    note.write_text(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def note_pid_and_sleep(file: Path) -> None:
    """Start a process that lives as long as this one. Both are noted at once: this one may be ended."""
    child = subprocess.Popen(["sleep", "600"])
    try:  # the end may come as soon as the note is there
        note = file.with_name(f"{file.name}.part")
        note.write_text(f"{os.getpid()} {child.pid}")
        note.rename(file)
        time.sleep(600)
    finally:
        child.terminate()
        child.wait()


def lose_the_end(file: Path) -> None:
    """Go on after the signal to end, as where Python ignores errors."""
    note = file.with_name(f"{file.name}.part")
    note.write_text(f"{os.getpid()}")
    note.rename(file)
    with contextlib.suppress(SystemExit):
        time.sleep(600)
    time.sleep(600)


class Heavy:
    """Counts how often it is pickled."""

    pickled = 0

    def __reduce__(self):
        Heavy.pickled += 1
        return (str, ("heavy",))


def describe(common: object, number: int) -> tuple[int, str, int]:
    return os.getpid(), type(common).__name__, number


LOADED = []


def load(name: str) -> str:
    LOADED.append(name)
    return name.upper()


def use_model(name: str) -> tuple[str, int]:
    return once_per_worker(load, name), len(LOADED)


def large(size: int, content: bytes) -> bytes:
    return content[:1] * size


def print_much(size: int) -> int:
    print("x" * (size // 2), end="", flush=True)
    subprocess.run([sys.executable, "-c", f"print('x' * {size - size // 2})"], check=True)
    return os.getpid()
