"""lm-evaluation-harness 0.4.13 as a peer: installed on demand, asked in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from testing import ROOT
from testing.peers import installed

NEEDED = (  # of its dependencies, what our lock has not
    "--no-deps", "lm_eval==0.4.13", "evaluate", "jsonlines", "more-itertools", "sqlitedict", "word2number",
    "pytablewriter", "chardet", "dataproperty", "mbstrdecoder", "pathvalidate", "tabledata", "tcolorpy",
    "typepy",
)  # fmt: skip


def lm_eval_environment() -> dict[str, str]:
    """Return the environment in which lm_eval can be imported, without asking the hub."""
    path = {"PYTHONPATH": str(installed("lm-eval", *NEEDED)), "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **path}


def lm_eval(model: Path, adapters: str, data: Path, out: Path, *options: str) -> dict[str, Any]:
    """Return what testing/lm_eval_scores.py writes: rows, scoring_s, process_s."""
    script = ROOT / "testing/lm_eval_scores.py"
    command = [sys.executable, script, model, adapters, data, out, *options]
    done = subprocess.run(list(map(str, command)), env=lm_eval_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scores: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return scores
