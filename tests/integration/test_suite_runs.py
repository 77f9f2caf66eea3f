"""eval.suite in a process of its own, killed in its second step and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.runs_cut import tree

pytestmark = pytest.mark.slow
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
SUITE = """\
first: {command: nli, data: sums.json, choices: "1,2", count: []}
second: {command: qa, data: sums.json, max-new-tokens: 12}
third: {command: text, data: sums.json, generate: false}
"""
COUNT = 90


def answered(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_a_killed_suite_resumed_ends_as_an_unbroken_one(tiny_model: Path, tmp_path: Path, run) -> None:
    rows = [{"question": f"{n} + 1 = ? " + "想" * (n % 7), "answer": str(n % 2 + 1)} for n in range(COUNT)]
    (tmp_path / "sums.json").write_text(json.dumps(rows))
    (tmp_path / "suite.yaml").write_text(SUITE)
    out, given = tmp_path / "out", [tmp_path / "suite.yaml", "--model", tiny_model, "--out", tmp_path / "out"]
    arguments = ["-m", "eval.suite", *map(str, given), "--batch-tokens", "1"]
    run(*arguments, env=ONE_THREAD)
    whole = tree(out)
    out.rename(tmp_path / "whole")
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=ONE_THREAD, stdout=subprocess.DEVNULL
    )
    log = out / "second/base/sums/predictions.jsonl"
    while answered(log) < COUNT // 3 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the suite ended before it could be killed"
    assert COUNT // 3 <= answered(log) < COUNT
    assert not (out / "third").exists()
    done = run(*arguments, "--resume", env=ONE_THREAD)
    assert done.stdout.count("done before") == 1
    left = tree(out)
    page = left.pop("report.html").replace(b" --resume", b"")
    assert page == whole.pop("report.html")
    assert left == whole
