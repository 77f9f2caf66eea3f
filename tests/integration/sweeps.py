"""Sweeps as processes, with a trainer that trains nothing."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def start(recipe: Path, *words: str, **variables: str) -> "subprocess.Popen[str]":
    """Start a sweep over RECIPE into the folder `runs` beside it."""
    metric = () if "--eval" in words else ("--metric", "train_loss")
    command = ["tests.fake_trainer.sweep", recipe, *words, "--out", recipe.parent / "runs", *metric]
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "fake_trainer"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sweep(recipe: Path, *words: str, code: int = 0, **variables: str) -> tuple[str, str]:
    """Run a sweep to its end; return what it printed."""
    process = start(recipe, *words, **variables)
    output, errors = process.communicate()
    assert process.returncode == code, output + errors
    assert "Traceback" not in output + errors
    return output, errors
