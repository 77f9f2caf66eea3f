"""The points of a sweep side by side: real processes, with a trainer that trains nothing.

Each sweep and each training starts two or three of them, so that the fast tests run one sweep.
"""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.sweeps import start, sweep
from tests.json_files import read_json
from tests.messages import printed
from tests.processes import wait_for_end, written
from tuneyard.recipes.machine import hardware
from tuneyard.recipes.sweep.grid import parse_grid, plan_runs
from tuneyard.recipes.sweep.run import commands

SCORES = """
import json, os, pathlib, sys
(folder := pathlib.Path(sys.argv[1])).mkdir()
found = {"accuracy": 0.5, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}
(folder / "results.json").write_text(json.dumps(found))
"""


def test_points_run_on_gpus_of_their_own_and_one_that_fails_is_listed(recipe: Path) -> None:
    judge = shlex.join(["python", "-c", SCORES, "{results}"])
    gpus = {"FAKE_GPUS": "2", "CUDA_VISIBLE_DEVICES": "GPU-aa, GPU-bb"}
    # The first ends last: its place in the table does not come from that.
    words, runs = ("rank=2,13,4", "--eval", judge), recipe.parent / "runs"
    last = {"FAKE_AFTER_2": str(runs / "lora_rank-4/results/results.json")}
    output, errors = sweep(recipe, *words, code=1, FAKE_FAILURE="13", **last, **gpus)
    summary = read_json(runs / "sweep.json")
    assert [row["lora_rank"] for row in summary["rows"]] == ["2", "4"]
    (failure,) = summary["failed"]
    assert (failure["lora_rank"], failure["run"]) == ("13", str(runs / "lora_rank-13"))
    assert failure["error"].endswith("train.log\nValueError: no such rank")
    assert f"failed: {runs / 'lora_rank-13'}" in output
    assert "1 of 3 runs failed (lora_rank-13)" in errors
    used = {rank: read_json(runs / f"lora_rank-{rank}/environment.json") for rank in (2, 13, 4)}
    assert used[2]["CUDA_VISIBLE_DEVICES"] == "GPU-aa"
    assert used[13]["CUDA_VISIBLE_DEVICES"] == used[4]["CUDA_VISIBLE_DEVICES"] == "GPU-bb"
    for rank in (2, 4):  # scored where it was trained
        results = read_json(runs / f"lora_rank-{rank}/results/results.json")
        assert results["gpu"] == used[rank]["CUDA_VISIBLE_DEVICES"]
    output, _ = sweep(recipe, *words, **gpus)
    assert output.count("up to date") == 2
    summary = read_json(runs / "sweep.json")
    assert [row["lora_rank"] for row in summary["rows"]] == ["2", "13", "4"]
    assert summary["failed"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_sweep_that_ends_ends_its_trainings_and_is_resumed(recipe: Path, sign: int, code: int) -> None:
    gpus = {"FAKE_GPUS": "2"}
    process = start(recipe, "rank=2,4", **gpus, FAKE_AFTER_2="nothing", FAKE_AFTER_4="nothing")
    runs = recipe.parent / "runs"
    trainings = [int(written(runs / f"lora_rank-{rank}/pid", process)) for rank in (2, 4)]
    process.send_signal(sign)
    _, errors = process.communicate()
    assert process.returncode == code
    assert ("the same command resumes it" in errors) is (sign == signal.SIGINT)
    wait_for_end(trainings)
    output, _ = sweep(recipe, "rank=2,4", **gpus)
    cells = " ".join(output.split())
    assert cells.index("| 4 | 0.2500 |") < cells.index("| 2 | 0.5000 |")


def listed(recipe: Path, script: str) -> list[str]:
    """The commands of `--list` for two points that a script scores, with the trainer of the tests."""
    (recipe.parent / "score it.py").write_text(script)
    judge = "python 'score it.py' {results}"
    output, _ = sweep(recipe, "rank=2,4", "run_name=it's", "--list", "--eval", judge)
    program = f"{sys.executable} -m tests.fake_trainer.sweep"
    lines = output.splitlines()
    assert all(line.startswith("tuneyard recipe sweep ") for line in lines)
    assert sys.executable not in output  # a listed command runs on another machine
    return [line.replace("tuneyard recipe sweep", program, 1) for line in lines]


def start_line(line: str, folder: Path) -> "subprocess.Popen[str]":
    """Start a listed command in a shell in this folder."""
    path = os.pathsep.join([str(ROOT / "tests" / "fake_trainer"), str(ROOT)])
    return subprocess.Popen(
        ["sh", "-c", f"exec {line}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_listed_command_sets_half_written_results_aside_and_records_its_own(recipe: Path) -> None:
    line, other = listed(recipe, SCORES)
    folder = recipe.parent / "runs/lora_rank-2"
    (folder / "results").mkdir(parents=True)
    for _ in range(2):  # the second finds nothing to do
        process = start_line(line, recipe.parent)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert read_json(folder / "judged.json") == {"command": "python 'score it.py' {results}"}
    assert read_json(folder / "results/results.json")["accuracy"] == 0.5
    assert (folder / "results.1").is_dir() and not (folder / "results.2").exists()
    assert (folder / "trained").read_text() == "x"
    assert not (recipe.parent / "runs/sweep.json").exists()
    process = start_line(other.replace("lora_rank-4", "rank-4"), recipe.parent)
    _, errors = process.communicate()
    assert process.returncode == 2
    printed(errors, "--point rank-4", "lora_rank-4")


@pytest.mark.slow
def test_a_listed_command_scores_under_the_lock_of_its_folder(recipe: Path) -> None:
    line, _ = listed(recipe, SCORES + "import time; time.sleep(600)")
    first = start_line(line, recipe.parent)
    results = recipe.parent / "runs/lora_rank-2/results"
    written(results / "results.json", first)
    second = start_line(line, recipe.parent)
    _, errors = second.communicate()
    assert second.returncode == 2
    printed(errors, "runs/lora_rank-2", "another command is writing there")
    assert [path.name for path in results.parent.glob("results*")] == ["results"]
    first.terminate()
    first.communicate()


def test_a_listed_command_trains_in_a_shell(recipe: Path, tmp_path: Path) -> None:
    runs = plan_runs(recipe, parse_grid(["rank=2,4", "run_name=it's"]), tmp_path / "my runs")
    recipes = [recipe for _, recipe in runs]
    lines = commands(recipes, [], None, hardware.machine("gpu"))
    first, second = (shlex.split(line) for line in lines)
    folder = str(tmp_path / "my runs" / "lora_rank-2")
    overrides = ["run_name=it's", "lora_rank=2", f"output_dir={folder}"]
    assert first == ["tuneyard", "recipe", "train", str(recipe), *overrides]
    assert "lora_rank=4" in second
