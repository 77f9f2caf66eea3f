"""Runs in processes of their own: killed and resumed, and scored by workers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.scoring import PAIRS, call
from tests.conftest import ROOT
from tests.runs_cut import lines, tree
from tests.unit.eval_backends.test_apply import write as write_adapter
from tests.workers import use_workers
from tuneyard.core.execution.local_processes import LocalProcesses
from tuneyard.eval import suite, sweep
from tuneyard.eval.backends.worker_model import worker_slots

pytestmark = pytest.mark.slow
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
COUNT = 300
BY_WORKERS = ["--workers", "2"]
SUITE = {
    "pairs": {"command": "nli", "data": "pairs.json"},
    "talk": {"command": "qa", "data": "pairs.json", "max-new-tokens": 4},
    "texts": {"command": "text", "data": "pairs.json", "no_generate": True, "token_losses": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of all runs here: each writes `out`, whose path is in the files."""
    folder: Path = tmp_path_factory.mktemp("runs")
    rows = [
        {"instruction": f"Is {n} + {n} = {2 * n + n % 2}? " + "Think well. " * (n % 7), "output": label}
        for n, label in zip(range(COUNT), ["yes", "no"] * COUNT, strict=False)
    ]
    (folder / "sums.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="module")
def arguments(tiny_model: Path, folder: Path) -> list[str]:
    given = ["--model", tiny_model, "--data", folder / "sums.json", "--out", folder / "out"]
    return ["-m", "eval.nli", *map(str, given), "--batch-tokens", "1"]


@pytest.fixture(scope="module")
def whole(arguments, folder) -> dict[str, bytes]:
    """The files of an unbroken run in one process."""
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=ONE_THREAD, check=True)
    files = tree(folder / "out")
    (folder / "out").rename(folder / "whole")
    return files


@pytest.fixture
def out(folder: Path) -> Iterator[Path]:
    """The folder that a run writes, which is moved away after the test."""
    yield folder / "out"
    (folder / "out").rename(folder / f"out-{time.monotonic_ns()}")


def start(arguments: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=ONE_THREAD, stdout=subprocess.DEVNULL)


def wait_for_lines(process: "subprocess.Popen[bytes]", out: Path, count: int) -> None:
    """Wait until a run has logged so many rows."""
    while lines(out) < count:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)


def kill(process: "subprocess.Popen[bytes]", out: Path) -> None:
    """Kill a run that has not finished."""
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "base" / "sums" / "results.json").exists()


def children(process: "subprocess.Popen[bytes]") -> list[int]:
    """The workers of a run."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(word) for word in listed.split()]


def is_running(pid: int) -> bool:
    """True if a process neither ended nor waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_run_killed_twice_and_resumed_ends_as_an_unbroken_one(whole, arguments, out, run) -> None:
    for target in (20, 150):
        process = start([*arguments, "--resume"])
        wait_for_lines(process, out, target)
        kill(process, out)
        assert target <= lines(out) < COUNT
    run(*arguments, "--resume", env=ONE_THREAD)
    assert tree(out) == whole


def test_a_lost_worker_and_a_killed_driver_leave_the_bytes_of_one_process(whole, arguments, out, run) -> None:
    process = start([*arguments, *BY_WORKERS])
    wait_for_lines(process, out, 20)
    first, *_ = children(process)
    os.kill(first, signal.SIGKILL)
    seen = lines(out)
    wait_for_lines(process, out, seen + 40)
    workers = children(process)
    kill(process, out)
    deadline = time.monotonic() + 60
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, "workers outlive their driver"
        time.sleep(0.05)
    done = run(*arguments, *BY_WORKERS, "--resume", env=ONE_THREAD)
    assert done.stdout.count("majority") == 1
    assert tree(out) == whole


def test_suites_and_searches_by_workers_have_the_bytes_of_one_process(
    tiny_model, tmp_path, monkeypatch
) -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the workers
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    (tmp_path / "pairs.json").write_text(json.dumps(PAIRS))
    for seed, name in enumerate(("left", "right")):
        write_adapter(tmp_path / name, seed=seed)
    given = ["--model", tiny_model, "--adapter", f"left={tmp_path / 'left'}"]
    search = [*given, "--adapter", f"right={tmp_path / 'right'}", "--data", tmp_path / "pairs.json"]
    runs = [
        (suite.cli, [tmp_path / "suite.yaml", *given]),
        (sweep.cli, search),
    ]
    with LocalProcesses(worker_slots(2)) as workers:
        for command, options in runs:
            files = []
            for by_workers in (False, True):
                with monkeypatch.context() as patched:
                    if by_workers:
                        use_workers(patched, workers)
                    call(command, *options, "--out", tmp_path / "out")
                files.append(tree(tmp_path / "out"))
                (tmp_path / "out").rename(tmp_path / f"out-{time.monotonic_ns()}")
            assert files[0] == files[1]
