"""`recipes sweep` with real trainings, judged by a real evaluation."""

import subprocess

import pytest
import yaml

from testing.peers import installed
from tests.conftest import ROOT
from tests.integration.weighted_losses import register, settings
from tests.json_files import read_json, write_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1600)]


@pytest.fixture(scope="module")
def tiny_recipe(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("grid")
    register(folder)
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(settings(folder, str(tiny_model), "run", max_steps=2)))
    return path


def test_a_grid_of_which_a_listed_command_has_trained_and_scored_a_point(tiny_recipe, tiny_model, forks):
    out = tiny_recipe.parent / "sweep"
    judge = (
        f"tuneyard eval nli --model {tiny_model} --adapter run={{adapter}} --no-base "
        f"--data {tiny_recipe.parent / 'even.json'} --choices yes,no --out {{results}}"
    )
    rows = read_json(tiny_recipe.parent / "even.json")
    short = [row for row in rows if row["output"] in ("yes", "no")]
    write_json(tiny_recipe.parent / "even.json", short)
    words = ("sweep", tiny_recipe, "rank=2,4", "--out", out, "--eval", judge)
    line = forks.run("recipes", *words, "--list").stdout.splitlines()[0]
    subprocess.run(["sh", "-c", line], cwd=ROOT, env=forks.env, check=True)
    files = [out / "lora_rank-2" / name for name in ("training.json", "results/run.json")]
    made = [file.stat().st_mtime_ns for file in files]
    assert len(forks.run("recipes", *words, "--list").stdout.splitlines()) == 1
    assert "up to date" in forks.run("recipes", *words).stdout
    assert [file.stat().st_mtime_ns for file in files] == made
    found = read_json(out / "sweep.json")
    assert [row["lora_rank"] for row in found["rows"]] == ["2", "4"]
    for row in found["rows"]:
        folder = out / f"lora_rank-{row['lora_rank']}"
        assert read_json(folder / "adapter_config.json")["r"] == int(row["lora_rank"])
        (results,) = (folder / "results").rglob("results.json")
        assert row["accuracy"] == read_json(results)["accuracy"]
    assert (out / "sweep.png").stat().st_size > 5000


@pytest.mark.peer
def test_wandb_records_offline(tiny_recipe, run):
    paths = f"{installed('wandb', 'wandb')}:{ROOT}"
    watched = {"PYTHONPATH": paths, "WANDB_MODE": "offline", "WANDB_DIR": str(tiny_recipe.parent)}
    lines = [line for line in tiny_recipe.read_text().splitlines() if not line.startswith("report_to")]
    tiny_recipe.write_text("\n".join(lines))
    words = (
        "train",
        tiny_recipe,
        f"output_dir={tiny_recipe.parent / 'watched'}",
    )  # which adds report_to=wandb
    run("-m", "recipes", *words, env=watched)
    (record,) = (tiny_recipe.parent / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"train/loss" in record.read_bytes()
