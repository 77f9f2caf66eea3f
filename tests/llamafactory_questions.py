"""LLaMA-Factory's child without LLaMA-Factory: packages in its place, and what a question can do wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tuneyard.core.language.message import counted
from tuneyard.core.llamafactory import progress

DATASETS = """
class config:
    HF_HUB_OFFLINE = HF_DATASETS_OFFLINE = False

def disable_progress_bars():
    print("noise of a function")
"""
STATE: list[int] = []
LEAK = 1 << 45
"""More bytes than any machine has."""


def stand_in(folder: Path, module: str = "print('noise of an import')") -> Path:
    """Write a package in LLaMA-Factory's place, each of whose modules has this code; return its folder."""
    (folder / "datasets").mkdir(parents=True)
    (folder / "datasets" / "__init__.py").write_text(DATASETS)
    package = folder / "llamafactory"
    package.mkdir()
    for name in ("__init__", "data", "hparams", "model"):
        (package / f"{name}.py").write_text(module)
    return folder


def process() -> dict[str, object]:
    """Where a question runs."""
    names = ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "MINE")
    variables = {name: os.environ.get(name) for name in names}
    return {"pid": os.getpid(), "child": os.getppid(), "folder": str(Path.cwd()), **variables}


def echo(value: object) -> object:
    return value


def count_calls() -> int:
    """How often this was called in this process."""
    STATE.append(1)
    return len(STATE)


def message(rows: int) -> str:
    return counted(rows, "row", "rows")


def print_much() -> str:
    """Print as libraries do, and show progress."""
    os.write(1, b"noise on descriptor 1\n")
    print("noise")
    print("noise", file=sys.stderr)
    subprocess.run([sys.executable, "-c", "print('noise of a program')"], check=True)
    print("counting \x1b]0;title\x07tokens", file=progress.stream)
    return sys.stdin.read()


def fail(how: str) -> None:
    """End without an answer."""
    if how == "exception":
        raise ValueError("odd\n  value \udcff")
    if how == "exit":
        os._exit(3)
    if how == "sys.exit":
        sys.exit(0)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "memory":
        bytearray(LEAK)
    if how == "long error":
        raise RuntimeError("x" * 10_000_000)
    os.kill(os.getpid(), signal.Signals[how])
    time.sleep(60)


def unwritable() -> object:
    return {1, 2}


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def start_and_sleep(pid_file: str) -> None:
    """Start a program that holds this process's pipes open, and sleep."""
    program = subprocess.Popen(["sleep", "600"], close_fds=False)
    Path(pid_file).write_text(f"{os.getpid()} {program.pid}")
    time.sleep(600)


def start_and_die(pid_file: str) -> None:
    """Start a fork that holds the answer's pipe open, and die."""
    if os.fork() == 0:
        time.sleep(600)
    Path(pid_file).write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


def text_of(size: int) -> str:
    return "é" * size


def length_of(text: str) -> int:
    return len(text)
