"""Runs in processes of their own: killed and resumed, and parted over several."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.runs_cut import lines, tree

pytestmark = pytest.mark.slow
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
COUNT = 300


@pytest.fixture
def arguments(tiny_model: Path, tmp_path: Path) -> list[str]:
    rows = [
        {"instruction": f"Is {n} + {n} = {2 * n + n % 2}? " + "Think well. " * (n % 7), "output": label}
        for n, label in zip(range(COUNT), ["yes", "no"] * COUNT, strict=False)
    ]
    (tmp_path / "sums.json").write_text(json.dumps(rows))
    given = ["--model", tiny_model, "--data", tmp_path / "sums.json", "--out", tmp_path / "out"]
    return ["-m", "eval.nli", *map(str, given), "--batch-tokens", "1"]


def test_a_run_killed_twice_and_resumed_ends_as_an_unbroken_one(arguments, tmp_path, run) -> None:
    out = tmp_path / "out"
    run(*arguments, env=ONE_THREAD)
    whole = tree(out)
    out.rename(tmp_path / "whole")
    for target in (20, 150):
        process = subprocess.Popen(
            [sys.executable, *arguments, "--resume"], cwd=ROOT, env=ONE_THREAD, stdout=subprocess.DEVNULL
        )
        while lines(out) < target and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
        assert target <= lines(out) < COUNT
        assert not (out / "base" / "sums" / "results.json").exists()
    run(*arguments, "--resume", env=ONE_THREAD)
    assert tree(out) == whole


def test_two_processes_find_what_one_finds(arguments, tmp_path, run) -> None:
    run(*arguments, env=ONE_THREAD)
    one = tree(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "one")
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29613"]
    done = run(*torchrun, *arguments, env=ONE_THREAD)
    assert done.stdout.count("majority") == 1
    assert tree(tmp_path / "out") == one
