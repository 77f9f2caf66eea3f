"""The whole way on a tiny model: compile, train by llamafactory-cli, merge, score, compare.

The second adapter is made here: every recipe is trained in test_recipes_all.py, and a training takes 20 s.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.cli.scoring import call
from tests.conftest import ROOT, render_nothing
from tests.json_files import read_json, read_lines
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.compiler.cli import cli as compiler
from tuneyard.eval import compare, nli

SETS = ("rte", "mnli")
ROWS = 12
SHRUNK = ["use_cpu=true", "max_steps=3", "warmup_steps=1", "gradient_accumulation_steps=1", "cutoff_len=256"]


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, own_folder: Path) -> Path:
    """The folder in which every step has been taken once, in this process but for the training."""
    folder = tmp_path_factory.mktemp("way")
    for name in SETS:
        parts = [f"--source={part}={ROOT}/samples/{name}/{part}.jsonl" for part in ("train", "eval")]
        call(compiler, "compile", name, *parts, "--limit", ROWS, "--out", folder / "info")
    train("rte", folder, tiny_model)
    make_another(folder / "rte", folder / "mnli")
    weighted = [f"{folder / name}=0.5" for name in SETS]
    call(adapters, "merge", *weighted, "--out", folder / "merge")
    named = [f"--adapter={name}={folder / name}" for name in (*SETS, "merge")]
    data = [f"--data={folder}/info/{name}/alpaca_{name}-eval.json" for name in SETS]
    call(nli.cli, "--model", tiny_model, *named, *data, "--out", folder / "results")
    with pytest.MonkeyPatch.context() as patch:
        render_nothing(patch)
        call(compare.cli, folder / "results", "--out", folder / "results")
    return folder


def train(name: str, folder: Path, model: Path) -> None:
    """Train the shipped recipe as it stands but for its size, with LLaMA-Factory's own command."""
    places = [f"model_name_or_path={model}", f"dataset_dir={folder / 'info'}", f"output_dir={folder / name}"]
    command = [Path(sys.executable).parent / "llamafactory-cli", "train", f"recipes/{name}.yaml"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *places, *SHRUNK], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def make_another(trained: Path, folder: Path) -> None:
    """Write an adapter with the files of a trained one and other weights."""
    shutil.copytree(trained, folder)
    rng = np.random.default_rng(0)
    weights = load_file(trained / "adapter_model.safetensors")
    for name, value in weights.items():
        weights[name] = rng.normal(0, 0.02, value.shape).astype(value.dtype)
    save_file(weights, folder / "adapter_model.safetensors")


def test_the_adapter_is_what_the_recipe_says(way: Path) -> None:
    config = read_json(way / "rte" / "adapter_config.json")
    assert (config["r"], config["lora_alpha"]) == (8, 16)
    assert set(config["target_modules"]) == {"q_proj", "v_proj"}
    assert len(load_file(way / "rte" / "adapter_model.safetensors")) == 2 * 2 * 2  # layers × q,v × A,B


def test_four_models_are_scored_on_two_sets_and_compared(way: Path) -> None:
    for model in ("base", *SETS, "merge"):
        for name in SETS:
            folder = way / "results" / model / f"alpaca_{name}-eval"
            results = read_json(folder / "results.json")
            rows = read_lines(folder / "predictions.jsonl")
            correct = [row["expected_output"] == row["predicted_output"] for row in rows]
            assert (results["n"], results["accuracy"]) == (ROWS, pytest.approx(sum(correct) / ROWS))
            low, high = results["ci95"]
            assert 0 <= low <= results["accuracy"] <= high <= 1
    assert {"table.json", "table.md", "accuracy.png"} <= {path.name for path in (way / "results").iterdir()}
