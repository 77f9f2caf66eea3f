"""`recipes sweep` with real trainings, judged by a real evaluation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.integration.weighted_losses import register, settings
from tests.peers import installed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1600)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("grid")
    register(folder)
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(settings(folder, str(tiny_model), "run", max_steps=2)))
    return path


def recipes(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "recipes", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_grid_of_which_a_listed_command_has_trained_and_scored_a_point(recipe, tiny_model):
    out = recipe.parent / "sweep"
    judge = (
        f"python -m eval.nli --model {tiny_model} --adapter run={{adapter}} --no-base "
        f"--data {recipe.parent / 'even.json'} --choices yes,no --out {{results}}"
    )
    rows = json.loads((recipe.parent / "even.json").read_text())
    short = [row for row in rows if row["output"] in ("yes", "no")]
    (recipe.parent / "even.json").write_text(json.dumps(short))
    words = ("sweep", recipe, "rank=2,4", "--out", out, "--eval", judge)
    line = recipes(*words, "--list").splitlines()[0]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-c", line], cwd=ROOT, env={**os.environ, "PATH": programs}, check=True)
    files = [out / "lora_rank-2" / name for name in ("training.json", "results/run.json")]
    made = [file.stat().st_mtime_ns for file in files]
    assert len(recipes(*words, "--list").splitlines()) == 1
    assert "up to date" in recipes(*words)
    assert [file.stat().st_mtime_ns for file in files] == made
    found = json.loads((out / "sweep.json").read_text())
    assert [row["lora_rank"] for row in found["rows"]] == ["2", "4"]
    for row in found["rows"]:
        folder = out / f"lora_rank-{row['lora_rank']}"
        assert json.loads((folder / "adapter_config.json").read_text())["r"] == int(row["lora_rank"])
        (results,) = (folder / "results").rglob("results.json")
        assert row["accuracy"] == json.loads(results.read_text())["accuracy"]
    assert (out / "sweep.png").stat().st_size > 5000


@pytest.mark.peer
def test_wandb_records_offline(recipe, monkeypatch):
    wandb = installed("wandb", "wandb")
    monkeypatch.setenv("PYTHONPATH", str(wandb))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(recipe.parent))
    lines = [line for line in recipe.read_text().splitlines() if not line.startswith("report_to")]
    recipe.write_text("\n".join(lines))
    recipes("train", recipe, f"output_dir={recipe.parent / 'watched'}")  # which adds report_to=wandb
    (record,) = (recipe.parent / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"train/loss" in record.read_bytes()
