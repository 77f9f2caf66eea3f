"""`recipes train` with the real llamafactory-cli: cut off by kill -9, damaged, resumed, finished.

The unbroken runs are LLaMA-Factory's own. All are forks, since its import takes 10 s.
"""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.json_files import read_json, write_json
from tests.messages import printed_line
from tests.processes import wait_until, written
from tuneyard.recipes.output_dir import is_free

pytestmark = pytest.mark.slow
QUESTIONS = [f"Is {n} even? Answer yes or no." for n in range(64)]
DATA = {
    "even": [
        {"instruction": question, "input": "", "output": "no" if n % 2 else "yes"}
        for n, question in enumerate(QUESTIONS)
    ],
    "pairs": [{"instruction": question, "chosen": "yes", "rejected": "no"} for question in QUESTIONS],
    "marked": [
        {"instruction": question, "output": "yes", "good": n % 3 > 0} for n, question in enumerate(QUESTIONS)
    ],
    "text": [{"text": question * 4} for question in QUESTIONS],
}
COLUMNS = {
    "even": {},
    "pairs": {
        "ranking": True,
        "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"},
    },
    "marked": {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "good"}},
    "text": {"columns": {"prompt": "text"}},
}
STAGES = {
    "sft": {},
    "dpo": {"stage": "dpo", "dataset": "pairs"},
    "kto": {"stage": "kto", "dataset": "marked"},
    "pt": {"stage": "pt", "dataset": "text", "packing": True, "cutoff_len": 48},
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_model) -> Path:
    """A recipe of 16 steps on the tiny model that saves every fourth, next to one for each other stage."""
    folder = tmp_path_factory.mktemp("train")
    entries = {}
    for name, rows in DATA.items():
        write_json(folder / f"{name}.json", rows)
        entries[name] = {"file_name": f"{name}.json", **COLUMNS[name]}
    write_json(folder / "dataset_info.json", entries)
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
        "max_steps": 16,
    }
    for stage, changed in STAGES.items():
        text = json.dumps({**settings, **changed}, indent=1)  # JSON is YAML too
        (folder / f"{stage}.yaml").write_text(text)
    return folder / "sft.yaml"


@pytest.fixture(scope="module")
def unbroken(recipe, llamafactory) -> dict[str, Path]:
    """What LLaMA-Factory trains of each stage's recipe in one go."""
    folders = {}
    for stage in STAGES:
        folders[stage] = recipe.parent / f"unbroken-{stage}"
        path = recipe.parent / f"{stage}.yaml"
        words = (f"output_dir={folders[stage]}", "use_cpu=true")
        llamafactory.run("llamafactory.cli", "train", path, *words)
    return folders


@pytest.fixture
def train(forks) -> Callable[..., str]:
    """`train(recipe, …, code=0)` runs `recipe train` and returns what it says."""

    def run(*arguments: object, code: int = 0) -> str:
        done = forks.run("recipes", "train", *arguments, code=code)
        return done.stdout + done.stderr

    return run


@pytest.mark.parametrize("stage", STAGES)
def test_killed_damaged_resumed_ends_as_an_unbroken_run(recipe, unbroken, train, forks, stage):
    path, broken = recipe.parent / f"{stage}.yaml", recipe.parent / f"broken-{stage}"
    process = forks.start("recipes", "train", path, f"output_dir={broken}")
    written(broken / "checkpoint-8" / "trainer_state.json", process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    wait_until(lambda: is_free(broken))  # its training has ended, too
    assert not (broken / "training.json").exists()
    for later in broken.glob("checkpoint-1*"):  # the kill may have come while one was written
        shutil.rmtree(later)
    newest = broken / "checkpoint-8"
    weights = newest / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    said = train(path, f"output_dir={broken}")
    printed_line(said, newest, "adapter_model.safetensors", "truncated")
    assert "resuming after step" in said and "trained in" in said
    assert (broken / f"incomplete-{newest.name}").is_dir()
    whole, resumed = (folder / "adapter_model.safetensors" for folder in (unbroken[stage], broken))
    assert whole.read_bytes() == resumed.read_bytes()
    assert read_json(broken / "trainer_state.json")["global_step"] == 16
    record = read_json(broken / "training.json")
    assert record["inputs"]["settings"]["lora_rank"] == 4
    assert record["result"]["train_loss"] > 0


def test_a_finished_run_is_left_as_it_is(recipe, train):
    finished = recipe.parent / "broken-sft"
    assert "up to date" in train(recipe, f"output_dir={finished}")
    assert "holds another run (lora_rank 4 → 8)" in train(
        recipe, f"output_dir={finished}", "lora_rank=8", code=1
    )


def test_two_at_once_and_sigint(recipe, train, forks):
    folder = recipe.parent / "twice"
    words = (recipe, f"output_dir={folder}", "max_steps=100000")  # it does not end by itself
    process = forks.start("recipes", "train", *words)
    written(folder / "train.log", process)
    assert "another training is writing there" in train(*words, code=2)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert not (folder / "training.json").exists()


def test_a_training_that_fails_says_why(recipe, train, tiny_model):
    folder, broken = recipe.parent / "fails", recipe.parent / "broken-model"
    shutil.copytree(tiny_model, broken)  # its weights are read by the training alone
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    said = train(recipe, f"output_dir={folder}", f"model_name_or_path={broken}", code=1)
    assert "LLaMA-Factory failed" in said and f"its output is in {folder / 'train.log'}" in said
    assert "SafetensorError" in said
    assert not (folder / "training.json").exists()
