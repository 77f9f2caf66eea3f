"""The whole way on a tiny model: compile, train by llamafactory-cli, merge, score, compare.

The fast test goes it with adapters that are written here, since a training takes 30 s. The slow one trains:
a recipe in the user's own hands. Every recipe is trained in test_recipes_all.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from testing.tiny import write_adapter
from tests.cli.scoring import call
from tests.conftest import ROOT
from tests.json_files import read_json, read_lines
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.compiler.cli import cli as compiler
from tuneyard.eval import nli
from tuneyard.eval.compare import __main__ as compare

SETS = ("rte", "mnli")
ROWS = 12
SHRUNK = ["use_cpu=true", "max_steps=3", "warmup_steps=1", "gradient_accumulation_steps=1", "cutoff_len=256"]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory, own_folder: Path) -> Path:
    """A folder of LLaMA-Factory's with some rows of both sets."""
    folder = tmp_path_factory.mktemp("way") / "info"
    for name in SETS:
        parts = [f"--source={part}={ROOT}/samples/{name}/{part}.jsonl" for part in ("train", "eval")]
        call(compiler, "compile", name, *parts, "--limit", ROWS, "--out", folder)
    return folder


@pytest.mark.slow
def test_the_adapter_is_what_the_recipe_says(datasets: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The shipped recipe as it stands but for its size, trained with LLaMA-Factory's own command."""
    places = [f"model_name_or_path={tiny_model}", f"dataset_dir={datasets}", f"output_dir={tmp_path / 'rte'}"]
    command = [Path(sys.executable).parent / "llamafactory-cli", "train", "recipes/rte.yaml"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *places, *SHRUNK], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    config = read_json(tmp_path / "rte/adapter_config.json")
    assert (config["r"], config["lora_alpha"]) == (8, 16)
    assert set(config["target_modules"]) == {"q_proj", "v_proj"}
    assert len(load_file(tmp_path / "rte/adapter_model.safetensors")) == 2 * 2 * 2  # layers × q,v × A,B
    merge(tmp_path / "rte", tmp_path / "rte", out=tmp_path / "merge")
    score(tiny_model, datasets, tmp_path, "rte", "merge")


def merge(*adapter_folders: Path, out: Path) -> None:
    """Merge adapters with half their weight each."""
    call(adapters, "merge", *(f"{folder}=0.5" for folder in adapter_folders), "--out", out)


def score(model: Path, datasets: Path, folder: Path, *names: str) -> None:
    """Score the base and adapters of a folder on both sets, into its folder `results`."""
    named = [f"--adapter={name}={folder / name}" for name in names]
    data = [f"--data={datasets}/{name}/alpaca_{name}-eval.json" for name in SETS]
    call(nli.cli, "--model", model, *named, *data, "--out", folder / "results")


def test_four_models_are_scored_on_two_sets_and_compared(
    datasets: Path, tiny_model: Path, tmp_path: Path, unrendered: None
) -> None:
    for seed, name in enumerate(SETS):
        write_adapter(tmp_path / name, seed=seed, base_model_name_or_path=str(tiny_model))
    merge(*(tmp_path / name for name in SETS), out=tmp_path / "merge")
    score(tiny_model, datasets, tmp_path, *SETS, "merge")
    call(compare.cli, tmp_path / "results", "--out", tmp_path / "results")
    for model in ("base", *SETS, "merge"):
        for name in SETS:
            folder = tmp_path / "results" / model / f"alpaca_{name}-eval"
            results = read_json(folder / "results.json")
            rows = read_lines(folder / "predictions.jsonl")
            correct = [row["expected_output"] == row["predicted_output"] for row in rows]
            assert (results["n"], results["accuracy"]) == (ROWS, pytest.approx(sum(correct) / ROWS))
            low, high = results["ci95"]
            assert 0 <= low <= results["accuracy"] <= high <= 1
    written = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"table.json", "table.md", "accuracy.png"} <= written
