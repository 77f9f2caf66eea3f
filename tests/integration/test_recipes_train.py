"""`recipes train` with the real llamafactory-cli: cut off by kill -9, damaged, resumed, finished."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_model) -> Path:
    """A recipe of 16 steps on the tiny model that saves every fourth."""
    folder = tmp_path_factory.mktemp("train")
    rows = [
        {"instruction": f"Is {n} even? Answer yes or no.", "input": "", "output": "no" if n % 2 else "yes"}
        for n in range(64)
    ]
    (folder / "even.json").write_text(json.dumps(rows))
    (folder / "dataset_info.json").write_text(json.dumps({"even": {"file_name": "even.json"}}))
    settings = {
        "model_name_or_path": str(tiny_model),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": 4,
        "lora_dropout": 0.1,  # so that a resumed run is the same only if the random state is
        "dataset_dir": str(folder),
        "dataset": "even",
        "cutoff_len": 64,
        "overwrite_cache": True,
        "output_dir": str(folder / "out"),
        "logging_steps": 1,
        "save_steps": 4,
        "report_to": "none",
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "num_train_epochs": 1.0,
    }
    path = folder / "even.yaml"
    path.write_text(json.dumps(settings, indent=1))  # JSON is YAML too
    return path


def train(*arguments: object, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "recipes", "train", *map(str, arguments)],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def start(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "recipes", "train", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while not path.exists():
        assert time.monotonic() < deadline and process.poll() is None, f"{path} never came"
        time.sleep(0.01)


def test_killed_damaged_resumed_ends_as_an_unbroken_run(recipe):
    unbroken, broken = recipe.parent / "unbroken", recipe.parent / "broken"
    assert "16" in train(recipe, f"output_dir={unbroken}")
    record = json.loads((unbroken / "run.json").read_text())
    assert record["inputs"]["settings"]["lora_rank"] == 4
    assert record["result"]["train_loss"] > 0

    process = start(recipe, f"output_dir={broken}")
    wait_for(broken / "checkpoint-8" / "trainer_state.json", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)
    assert not (broken / "run.json").exists()
    newest = max((int(path.name[11:]), path) for path in broken.glob("checkpoint-*"))[1]
    weights = newest / "adapter_model.safetensors"
    if newest.name != "checkpoint-4" and weights.exists():
        weights.write_bytes(weights.read_bytes()[:-100])

    said = train(recipe, f"output_dir={broken}")
    assert f"{newest}: passed over, adapter_model.safetensors: truncated safetensors" in said
    assert "resuming after step" in said
    assert (broken / f"incomplete-{newest.name}").is_dir()
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (unbroken, broken))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)

    assert "up to date" in train(recipe, f"output_dir={broken}")
    assert "holds another run (lora_rank 4 → 8)" in train(
        recipe, f"output_dir={broken}", "lora_rank=8", code=1
    )


def test_two_at_once_and_sigint(recipe):
    folder = recipe.parent / "twice"
    process = start(recipe, f"output_dir={folder}")
    wait_for(folder / "train.log", process)
    assert "another training is writing there" in train(recipe, f"output_dir={folder}", code=2)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert not (folder / "run.json").exists()


def test_a_training_that_fails_says_why(recipe):
    said = train(recipe, f"output_dir={recipe.parent / 'fails'}", "lora_target=no_such_layer", code=1)
    assert "LLaMA-Factory failed" in said
    assert "no_such_layer" in said
    assert not (recipe.parent / "fails" / "run.json").exists()
