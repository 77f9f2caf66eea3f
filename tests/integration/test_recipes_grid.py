"""`recipes sweep` with real trainings, judged by a real evaluation."""

import json
import os
import subprocess
import sys

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


def test_a_grid_judged_by_an_evaluation_and_continued(recipe, tiny_model):
    out = recipe.parent / "sweep"
    judge = (
        f"python -m eval.nli --model {tiny_model} --adapter run={{adapter}} --no-base "
        f"--data {recipe.parent / 'even.json'} --choices yes,no --out {{results}}"
    )
    rows = json.loads((recipe.parent / "even.json").read_text())
    short = [row for row in rows if row["output"] in ("yes", "no")]
    (recipe.parent / "even.json").write_text(json.dumps(short))
    first = recipes("train", recipe, "lora_rank=2", f"output_dir={out / 'lora_rank-2'}")
    made = (out / "lora_rank-2" / "training.json").stat().st_mtime_ns
    both = recipes("sweep", recipe, "rank=2,4", "--out", out, "--eval", judge)
    assert "up to date" in both and "up to date" not in first
    assert (out / "lora_rank-2" / "training.json").stat().st_mtime_ns == made
    found = json.loads((out / "sweep.json").read_text())
    assert [row["lora_rank"] for row in found["rows"]] == ["2", "4"]
    for row in found["rows"]:
        folder = out / f"lora_rank-{row['lora_rank']}"
        assert json.loads((folder / "adapter_config.json").read_text())["r"] == int(row["lora_rank"])
        (results,) = (folder / "results").rglob("results.json")
        assert row["accuracy"] == json.loads(results.read_text())["accuracy"]
    assert (out / "sweep.png").stat().st_size > 5000


def test_seeds_are_trained_and_tabled(recipe):
    out = recipe.parent / "seeds"
    said = recipes("sweep", recipe, "seed=42,43", "--out", out, "--metric", "train_loss")
    assert "standard deviation" in said and "over 2 seeds" in said
    runs = [out / f"seed-{seed}" for seed in (42, 43)]
    one, other = ((run / "adapter_model.safetensors").read_bytes() for run in runs)
    assert one != other
    losses = [json.loads((run / "all_results.json").read_text())["train_loss"] for run in runs]
    assert f"{sum(losses) / 2:.4f}" in said


@pytest.mark.peer
def test_wandb_records_offline(recipe, monkeypatch):
    wandb = installed("wandb", "wandb")
    monkeypatch.setenv("PYTHONPATH", str(wandb))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(recipe.parent))
    recipes("train", recipe, f"output_dir={recipe.parent / 'watched'}", "report_to=wandb")
    (record,) = (recipe.parent / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"train/loss" in record.read_bytes()
