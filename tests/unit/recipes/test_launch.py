"""A training process: its end, its failure and its reason, and that it never outlives us."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.messages import printed, raises
from tests.processes import wait_for_end, written
from tuneyard.core.errors import ContentError
from tuneyard.recipes.llamafactory.launch import (
    LOG,
    PROGRESS,
    TrainingLog,
    environment,
    failure,
    launch,
    training_command,
)
from tuneyard.recipes.llamafactory.token_weights import train_weighted

SLEEPS = """
import time, pathlib, sys, os
pathlib.Path(sys.argv[1], "pid").write_text(str(os.getpid()))
time.sleep(600)
"""
# As torchrun: the process with the pid is a rank, in a session of its own.
RANKS = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {SLEEPS!r}, sys.argv[1]], start_new_session=True)
"""


def python(code: str, folder: Path) -> list[str]:
    return [sys.executable, "-c", code, str(folder)]


def test_torchrun_trains_with_weights_on_one_node_and_on_several(tmp_path, monkeypatch):
    for name in ("NNODES", "NPROC_PER_NODE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    trainer = ["-m", "tuneyard.recipes.llamafactory.token_weights", str(tmp_path)]
    start = [sys.executable, "-m", "torch.distributed.run", "--nnodes"]
    assert training_command(tmp_path, uses_torchrun=True) == [
        *start,
        "1",
        "--nproc_per_node",
        "gpu",
        "--standalone",
        *trainer,
    ]
    monkeypatch.setenv("NNODES", "2")
    monkeypatch.setenv("NPROC_PER_NODE", "4")
    monkeypatch.setenv("NODE_RANK", "1")
    where = ["--node_rank", "1", "--master_addr", "127.0.0.1", "--master_port", "29500"]
    assert training_command(tmp_path, uses_torchrun=True) == [
        *start,
        "2",
        "--nproc_per_node",
        "4",
        *where,
        *trainer,
    ]


def test_a_failure_tells_its_reason(tmp_path):
    with (tmp_path / "lock").open("w") as lock, raises(ContentError, "1") as caught:
        launch(
            python("print('x' * 9); raise ValueError('no such column')", tmp_path), tmp_path, lock.fileno()
        )
    assert str(caught.value).endswith("\nValueError: no such column")


def test_a_training_inherits_the_lock_of_its_folder(tmp_path):
    with (tmp_path / "lock").open("w") as lock:
        code = f"import os; open('inode', 'w').write(str(os.fstat({lock.fileno()}).st_ino))"
        launch(python(f"import os; os.chdir({str(tmp_path)!r}); {code}", tmp_path), tmp_path, lock.fileno())
    assert (tmp_path / "inode").read_text() == str((tmp_path / "lock").stat().st_ino)


@pytest.mark.parametrize("uses_torchrun", [True, False])
def test_a_training_of_one_gpu_under_torchrun_forces_it(tmp_path, monkeypatch, uses_torchrun):
    """LLaMA-Factory starts torchrun by itself for several GPUs alone: DeepSpeed needs it on one, too."""
    monkeypatch.delenv("FORCE_TORCHRUN", raising=False)
    code = "import os, sys; open(sys.argv[1] + '/forced', 'w').write(os.environ.get('FORCE_TORCHRUN', 'no'))"
    with (tmp_path / "lock").open("w") as lock:
        launch(python(code, tmp_path), tmp_path, lock.fileno(), uses_torchrun=uses_torchrun)
    assert (tmp_path / "forced").read_text() == ("1" if uses_torchrun else "no")


def test_the_reason_is_found_among_other_lines(tmp_path):
    log = tmp_path / LOG
    log.write_text(
        "  5%|# | 1/20\r 10%|## | 2/20\n[rank1]: Traceback (most recent call last):\n"
        "[rank1]: torch.cuda.OutOfMemoryError: CUDA out of memory.\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n"
    )
    assert failure(1, log).endswith("\ntorch.cuda.OutOfMemoryError: CUDA out of memory.")
    assert "memory runs out" in failure(-signal.SIGKILL, log)
    log.write_text("something odd\n")
    assert failure(3, log).endswith("\nsomething odd")


def test_a_reason_of_several_lines_is_told_by_its_first_words(tmp_path):
    log = tmp_path / LOG
    log.write_text(
        "RuntimeError: \n            Some tensors share memory: {'lm_head'}.\n            A way\n  "
    )
    assert failure(1, log).endswith("\nRuntimeError: Some tensors share memory: {'lm_head'}.")


TORCHRUN = """step 12
[rank0]: RuntimeError: [pair.cc:538] Read error: Connection reset by peer
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
  exitcode  : -15 (pid: 25796)
  traceback : Signal 15 (SIGTERM) received by PID 25796
Root Cause (first observed failure):
  exitcode  : {code} (pid: 25798)
  traceback : Signal {number} ({name}) received by PID 25798
subprocess.CalledProcessError: Command '['torchrun']' returned non-zero exit status 1.
"""


def test_a_rank_that_a_signal_ended_is_told(tmp_path):
    log = tmp_path / LOG
    log.write_text(TORCHRUN.format(code=-6, number=6, name="SIGABRT"))
    said = failure(1, log)
    printed(said, "SIGABRT", log)
    assert said.endswith("\nRuntimeError: [pair.cc:538] Read error: Connection reset by peer")
    log.write_text(TORCHRUN.format(code=-9, number=9, name="SIGKILL"))
    printed(failure(1, log), "SIGKILL", "memory")


def test_the_starters_own_words_are_no_reason(tmp_path):
    log = tmp_path / LOG
    log.write_text("loading\nsubprocess.CalledProcessError: Command '['torchrun']' returned 1.\n")
    assert "\nloading\n" in failure(1, log)  # the end of the log, in place of the one line


def start(folder: Path, training: str) -> tuple[subprocess.Popen, int]:
    """Start a python that launches a sleeping training; return it and the training's process id."""
    code = f"""
import os, pathlib, signal, sys
from tuneyard.recipes.llamafactory.launch import launch
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
launch({python(training, folder)!r}, pathlib.Path({str(folder)!r}), os.open({str(folder)!r}, 0))
"""
    ours = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    return ours, int(written(folder / "pid", ours))


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("kind", [SLEEPS, RANKS], ids=["one", "ranks"])
def test_whatever_ends_us_ends_the_training(tmp_path, sign, kind):
    ours, training = start(tmp_path, kind)
    os.kill(ours.pid, sign)
    ours.wait()
    wait_for_end([training])


LAST = json.dumps({"current_steps": 3, "total_steps": 3, "loss": 2 / 3})
WRITTEN = {
    "a line that is no progress": [f'{{\n[]\n{{"loss": "low"}}\n{LAST}\n'],
    "half a line": [LAST[:9], f"{LAST[9:]}\n"],
}


@pytest.mark.parametrize("what", WRITTEN)
def test_progress_survives(tmp_path, capsys, what):
    """What a training writes between two looks at its progress, and then its end."""
    pieces = iter(WRITTEN[what])

    def exit_code() -> int | None:
        piece = next(pieces, None)
        if piece is None:
            return 0
        with (tmp_path / PROGRESS).open("a") as file:
            file.write(piece)
        return None

    TrainingLog(tmp_path).follow(exit_code, lambda: None)
    assert "3/3" in capsys.readouterr().err


def test_weights_that_cannot_be_read_end_a_training_with_their_message(tmp_path):
    with pytest.raises(SystemExit, match="RequestError: .*w.yaml"):
        train_weighted(tmp_path / "w.yaml", "r.yaml")


def test_a_training_reports_no_load_of_a_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The datasets library sends a request for each, unless the variable is off or the user sets it."""
    monkeypatch.delenv("HF_UPDATE_DOWNLOAD_COUNTS", raising=False)
    assert environment()["HF_UPDATE_DOWNLOAD_COUNTS"] == "0"
    monkeypatch.setenv("HF_UPDATE_DOWNLOAD_COUNTS", "1")
    assert environment()["HF_UPDATE_DOWNLOAD_COUNTS"] == "1"
