"""LLaMA-Factory in a process of its own: started, watched with one progress line, logged, ended with us.

python -m recipes.launch PID COMMAND… runs a command whose whole family ends with it, or with process PID:
torchrun's ranks have sessions of their own, out of reach of signals to a group; orphans come to that process.
"""

import contextlib
import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from core.checkout import ROOT
from core.errors import ContentError, RequestError

if TYPE_CHECKING:
    from tqdm import tqdm

GRACE = 20.0  # seconds that a training gets to end by itself after SIGTERM
_PDEATHSIG, _SUBREAPER = 1, 36  # PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER of prctl(2)
LOG = "train.log"
PROGRESS = "trainer_log.jsonl"
_ERROR = re.compile(
    r"^(?:\[rank\d+\]: *)?((?:terminate called|Fatal Python error|(?:\w+\.)*\w*(?:Error|Exception|Exit)\b).*)"
)
_STARTERS = ("ChildFailedError", "CalledProcessError")  # of torchrun and the launcher: another process failed
_RANK = re.compile(r"Signal (\d+) \(SIG\w+\) received by PID")  # torchrun's table; the root cause is last


def training_command(weights: Path | None, torchrun: bool) -> list[str]:
    """Return LLaMA-Factory's command (`RequestError` without it); with weights ours, torchrun as it would."""
    if weights is None:
        cli = shutil.which("llamafactory-cli", path=environment()["PATH"])
        if cli is None:
            raise RequestError("llamafactory-cli not found; install it with `make setup`")
        return [cli, "train"]
    given, ranks = os.environ.get, []
    if torchrun:
        nodes, each = given("NNODES", "1"), given("NPROC_PER_NODE") or "gpu"
        address, port = given("MASTER_ADDR", "127.0.0.1"), given("MASTER_PORT", "29500")
        where = ["--node_rank", given("NODE_RANK", "0"), "--master_addr", address, "--master_port", port]
        ranks = ["-m", "torch.distributed.run", "--nnodes", nodes, "--nproc_per_node", each]
        ranks += ["--standalone"] if nodes == "1" else where
    return [sys.executable, *ranks, "-m", "recipes.token_weights", str(weights)]


def launch(command: list[str], output_dir: Path, lock: int, torchrun: bool = False) -> None:
    """Run a training command to its end; `ContentError` with the reason's last lines where it fails.

    It inherits the descriptor `lock`. Whatever ends this process (even kill -9) ends it with all its workers.
    """
    progress = output_dir / PROGRESS
    known = progress.stat().st_size if progress.exists() else 0  # of a run that is resumed
    with (output_dir / LOG).open("ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "recipes.launch", str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment() | ({"FORCE_TORCHRUN": "1"} if torchrun else {}),
            start_new_session=True,
            pass_fds=(lock,),
        )
    try:
        _watch(process, progress, known)
    finally:
        _end(process)
    if process.returncode:
        raise ContentError(failure(process.returncode, output_dir / LOG, start))


def environment() -> dict[str, str]:
    """Return the environment with our modules and our programs first (torchrun is called by its name)."""

    def first(variable: str, folder: Path) -> str:
        return f"{folder}{os.pathsep}{os.environ.get(variable, '')}".rstrip(os.pathsep)

    paths = {"PYTHONPATH": first("PYTHONPATH", ROOT), "PATH": first("PATH", Path(sys.executable).parent)}
    return {**os.environ, **paths, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


def _watch(process: "subprocess.Popen[bytes]", path: Path, position: int) -> None:
    """Show steps, loss and time left, read from the file that LLaMA-Factory's own callback appends to."""
    from tqdm import tqdm

    bar: tqdm[Any] = tqdm(desc="starting", unit="step", mininterval=0.5, dynamic_ncols=True)
    with bar:
        while process.poll() is None:
            time.sleep(0.2)
            position = _show(bar, path, position)
            bar.update(0)
        _show(bar, path, position)


def _show(bar: "tqdm[Any]", path: Path, position: int) -> int:
    """Bring the bar up to the last whole line after `position` and return where that line ends."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < position:  # LLaMA-Factory has begun the file anew
            position = 0
        file.seek(position)
        for line in itertools.takewhile(lambda line: line.endswith(b"\n"), file):
            position += len(line)
            with contextlib.suppress(ValueError, TypeError, AttributeError):  # no reason to end a training
                row = json.loads(line)
                bar.n, bar.total = row.get("current_steps", bar.n), bar.total or row.get("total_steps")
                bar.set_description("training" if bar.total else "starting", refresh=False)
                bar.set_postfix({key: f"{row[key]:.4g}" for key in ("loss", "eval_loss") if key in row})
    return position


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a training that still runs: its supervisor ends its family; SIGKILL where that takes too long."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE + 5)


def failure(code: int, log: Path, start: int = 0) -> str:
    """Return why a training failed: the last errors in its log from byte `start`, or the signal."""
    text = log.read_bytes()[start:].decode("utf-8", errors="replace").replace("\r", "\n")
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [match[1] for line in lines if (match := _ERROR.match(line))]
    reasons = [error for error in errors if not any(name in error for name in _STARTERS)]
    reason = "\n".join(dict.fromkeys(reasons[-3:])) or "\n".join(lines)[-500:]
    ranks = _RANK.findall(text) if code > 0 else []
    ended = int(ranks[-1]) if ranks else -code
    how = f"exit code {code}" if ended < 0 else f"ended by {signal.Signals(ended).name}"
    if ended == signal.SIGKILL:
        how += " (by the system where memory runs out: a smaller batch or cutoff_len takes less)"
    return f"LLaMA-Factory failed, {'a rank was ' if ranks else ''}{how}; its output is in {log}\n{reason}"


def supervise(parent: int, command: list[str]) -> int:
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
    code = supervise(int(sys.argv[1]), sys.argv[2:])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
