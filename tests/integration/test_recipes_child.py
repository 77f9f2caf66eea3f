"""What a user notices of LLaMA-Factory's process: how long it takes, what it prints, that nothing is left."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import OFFLINE, ROOT
from tests.processes import wait_for_end, wait_until

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys, time
from pathlib import Path
from tuneyard.recipes.checking.checked import ask_check, quick_check
from tuneyard.recipes.machine.hardware import machine
from tuneyard.recipes.recipe import read_recipe

for setting in sys.argv[2:]:
    start = time.monotonic()
    checked = ask_check(quick_check(read_recipe(Path(sys.argv[1]), (setting,)), machine("cpu")), None)
    codes = [problem.code for problem in checked.problems]
    seconds, rows = time.monotonic() - start, checked.answer.train.rows
    print(json.dumps({"seconds": seconds, "codes": codes, "rows": rows}))
"""
"""A script as users write it, without `if __name__ == "__main__"`."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, **OFFLINE, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_an_edited_recipe_pays_no_second_start_and_an_unchanged_one_no_question(
    tmp_path: Path, sft_recipe: Path, environment: dict[str, str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    settings = ("lora_rank=4", "lora_rank=8", "lora_rank=8", "lora_target=nope")
    command = [sys.executable, str(script), str(sft_recipe), *settings]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    first, edited, unchanged, unfit = map(json.loads, done.stdout.splitlines())
    assert done.stderr.count("\n") == 1  # that LLaMA-Factory is started, once
    assert [answer["rows"] for answer in (first, edited, unchanged)] == [64, 64, 64]
    assert "E351" in unfit["codes"]
    # 7 s, 0.5 s and 0.05 s on two idle cores: shares hold on busy ones, too
    assert edited["seconds"] < first["seconds"] / 2
    assert unchanged["seconds"] < edited["seconds"]


def test_nothing_is_left_of_a_check_that_was_killed(
    tmp_path: Path, sft_recipe: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "tuneyard", "recipe", "check", str(sft_recipe)]
    check = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    family: set[int] = set()
    wait_until(lambda: psutil.Process(check.pid).children(), check)
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline and check.poll() is None:  # in the middle of the imports
        family |= {process.pid for process in psutil.Process(check.pid).children(recursive=True)}
        time.sleep(0.1)
    check.kill()
    check.wait()
    assert family
    wait_for_end(family)
