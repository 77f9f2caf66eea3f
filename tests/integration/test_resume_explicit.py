"""What transformers and LLaMA-Factory make of a checkpoint that a recipe names, against `recipe check`.

Each case is trained. It stops where the check says E347, and otherwise takes what W347 says from the
checkpoint.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testing.tiny import make_tiny
from tests.json_files import read_json, write_json
from tuneyard.recipes.output_dir.resume import KEY, resume_problems, saved_rates, target_problems
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.schedule import schedule_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
TRAIN = """
import json, sys
from llamafactory.train.tuner import run_exp
for settings in json.load(open(sys.argv[1])):
    try:
        run_exp(settings)
    except Exception as error:
        open(settings["output_dir"] + ".stopped", "w").write(repr(error))
"""
CASES = {
    "resumed": {},
    "at the end": {KEY: "base/checkpoint-4"},
    "steps": {"save_steps": 1, "max_steps": 6},
    "rank": {"lora_rank": 4, "lora_alpha": 16},
    "alpha": {"lora_alpha": 64},
    "rate": {"learning_rate": 5e-3, "lr_scheduler_type": "constant"},
    "all": {"lora_target": "all"},
    "fewer": {"lora_target": "q_proj"},
    "dora": {"use_dora": True},
    "full": {"finetuning_type": "full"},
    "no optimizer": {KEY: "no-optimizer/checkpoint-2"},
    "no state": {KEY: "no-state/checkpoint-2"},
    "whole model": {KEY: "whole/checkpoint-2"},
    "true": {KEY: True},
    "decay": {"weight_decay": 0.5},
    "beta": {"adam_beta2": 0.95},
    "sgd": {"optim": "sgd"},
    "adafactor": {"optim": "adafactor"},
    "module": {"additional_target": "embed_tokens"},
    "lora+": {"loraplus_lr_ratio": 16},
}
STOPS = (
    "rank", "all", "fewer", "dora", "full", "no state", "whole model", "true", "sgd", "adafactor", "module",
    "lora+",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folders of all cases, trained one after the other by one process."""
    folder = tmp_path_factory.mktemp("resume")
    make_tiny(folder / "model")
    rows = [{"instruction": f"a{number}", "input": "", "output": "b"} for number in range(40)]
    (folder / "data").mkdir()
    write_json(folder / "data/a.json", rows)
    write_json(folder / "data/dataset_info.json", {"a": {"file_name": "a.json"}})
    train(folder, {"base": {KEY: None}, "whole": {KEY: None, "finetuning_type": "full", "max_steps": 2}})
    for name, file in (("no-optimizer", "optimizer.pt"), ("no-state", "trainer_state.json")):
        shutil.copytree(folder / "base/checkpoint-2", folder / name / "checkpoint-2")
        (folder / name / "checkpoint-2" / file).unlink()
    train(folder, CASES)
    return folder


def settings_of(name: str, changes: dict[str, object]) -> dict[str, object]:
    settings = {
        "model_name_or_path": "model", "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "lora_target": "q_proj,v_proj", "lora_rank": 8, "dataset": "a", "dataset_dir": "data",
        "template": "qwen", "output_dir": name, "per_device_train_batch_size": 2, "save_steps": 2,
        "logging_steps": 1, "max_steps": 4, "learning_rate": 1e-4, "use_cpu": True, "report_to": "none",
        "disable_tqdm": True, "cutoff_len": 64, KEY: "base/checkpoint-2",
    }  # fmt: skip
    return {key: value for key, value in {**settings, **changes}.items() if value is not None}


def train(folder: Path, cases: dict[str, dict[str, object]]) -> None:
    write_json(folder / "cases.json", [settings_of(name, changes) for name, changes in cases.items()])
    command = [sys.executable, "-c", TRAIN, "cases.json"]
    subprocess.run(command, cwd=folder, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=True)


def rates(folder: Path, name: str) -> dict[int, float]:
    """The learning rate of each step."""
    log = read_json(folder / name / "trainer_state.json")["log_history"]
    return {line["step"]: line["learning_rate"] for line in log if "learning_rate" in line}


@pytest.mark.parametrize("name", CASES)
def test_a_training_stops_where_the_check_says_so(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    assert Path(f"{name}.stopped").exists() == (name in STOPS)
    recipe = Recipe(Path("r.yaml"), settings_of(name, CASES[name]) | {"output_dir": f"{name}-anew"}, {})
    problems = [*resume_problems(recipe, schedule_of(recipe, 40, 1), 1), *target_problems(recipe, LINEAR)]
    codes = {problem.code for problem in problems}
    if name == "resumed":
        assert codes == set()
    elif name in (*STOPS, "at the end"):
        assert codes == {"E347"}, json.dumps([problem.line() for problem in problems])
    else:
        assert codes == {"W347"}


def test_the_checkpoints_own_values_are_used(folder):
    assert saved_rates(folder / "base/checkpoint-2/scheduler.pt") == [1e-4]
    assert rates(folder, "rate")[4] == pytest.approx(1e-4)
    assert rates(folder, "no optimizer")[3] == rates(folder, "base")[1]  # begins again
    assert sorted(path.name for path in (folder / "steps").glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
    ]
    assert rates(folder, "at the end")[5] == 0
