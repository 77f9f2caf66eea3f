"""python -m eval.text in processes of its own, killed and resumed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.test_nli_runs import ONE_THREAD, tree

pytestmark = pytest.mark.slow
COUNT = 200


def test_a_run_killed_and_resumed_ends_as_an_unbroken_one(tiny_model: Path, tmp_path: Path, run) -> None:
    rows = [
        {"instruction": f"Is {n} + {n} even? " + "Think well. " * (n % 7), "output": f"yes, {2 * n} is"}
        for n in range(COUNT)
    ]
    (tmp_path / "sums.json").write_text(json.dumps(rows))
    out = tmp_path / "out"
    given = ["--model", tiny_model, "--data", tmp_path / "sums.json", "--out", out, "--rouge"]
    arguments = ["-m", "eval.text", *map(str, given), "--max_new_tokens", "3", "--batch_tokens", "1"]
    run(*arguments, env=ONE_THREAD)
    whole = tree(out)
    files = ("lengths.png", "metrics.json", "predictions.jsonl", "results.json")
    assert sorted(whole) == [*(f"base/sums/{name}" for name in files), "run.json"]
    out.rename(tmp_path / "whole")
    log = out / "base" / "sums" / "predictions.jsonl"
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=ONE_THREAD, stdout=subprocess.DEVNULL
    )
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 60):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert 60 <= log.read_bytes().count(b"\n") < COUNT
    assert not log.with_name("metrics.json").exists()
    run(*arguments, "--resume", env=ONE_THREAD)
    assert tree(out) == whole
