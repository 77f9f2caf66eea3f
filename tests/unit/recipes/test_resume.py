"""A checkpoint that a recipe names: what stops the training, and what it takes from the checkpoint."""

import pickle
import zipfile
from pathlib import Path

import pytest

from tests.json_files import read_json, write_json
from tests.unit.recipes.test_output_dir import checkpoint
from tuneyard.recipes.output_dir.resume import resume_problems, saved_rates, target_problems
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.schedule import schedule_of

STATE = {"global_step": 4, "save_steps": 2, "eval_steps": 500, "logging_steps": 1, "train_batch_size": 2}
CONFIG = {
    "peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_dora": False, "use_rslora": False,
    "target_modules": ["q_proj", "v_proj"],
}  # fmt: skip
SETTINGS = {
    "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_target": "v_proj,q_proj",
    "lora_rank": 8, "per_device_train_batch_size": 2, "save_steps": 2, "logging_steps": 1,
    "learning_rate": 1e-4, "max_steps": 10,
}  # fmt: skip


def write_scheduler(path: Path, rates: list[float]) -> None:
    """As torch.save writes it: a pickle in a zip archive."""
    state = {"base_lrs": rates, "last_epoch": 4, "_last_lr": [3.0]}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scheduler/data.pkl", pickle.dumps(state, 2))


@pytest.fixture
def saved(tmp_path) -> Path:
    """A complete LoRA checkpoint after step 4."""
    folder = checkpoint(tmp_path / "saves")
    write_json(folder / "trainer_state.json", STATE)
    write_json(folder / "adapter_config.json", CONFIG)
    write_scheduler(folder / "scheduler.pt", [1e-4, 1e-4])
    return folder


def found(saved: Path, world_size: int | None = 1, rows: int = 40, **settings) -> list[tuple[str, str]]:
    """Codes and settings of the problems."""
    recipe = Recipe(Path("r.yaml"), {**SETTINGS, "resume_from_checkpoint": str(saved), **settings}, {})
    problems = resume_problems(recipe, schedule_of(recipe, rows, 1), world_size)
    return [(problem.code, problem.field) for problem in problems]


RESUME = "resume_from_checkpoint"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"max_steps": 4}, [("E347", RESUME)]),
        ({"max_steps": 3}, [("E347", RESUME)]),
        ({"max_steps": 5}, []),
        ({"max_steps": -1, "num_train_epochs": 0.2}, [("E347", RESUME)]),  # 4 of 20 steps
        ({"max_steps": -1, "num_train_epochs": 0.25}, []),
        ({"save_steps": 3}, [("W347", "save_steps")]),
        ({"save_steps": 3, "save_strategy": "epoch"}, []),
        ({"save_steps": 0.2}, []),  # 2 of 10 steps
        ({"save_steps": 0.5}, [("W347", "save_steps")]),
        ({"eval_steps": 3}, []),
        ({"eval_steps": 3, "eval_strategy": "steps"}, [("W347", "eval_steps")]),
        ({"logging_steps": 10}, [("W347", "logging_steps")]),
        ({"per_device_train_batch_size": 4}, [("W347", "per_device_train_batch_size")]),
        ({"learning_rate": 5e-3}, [("W347", "learning_rate")]),
        ({"lora_rank": 4, "lora_alpha": 16}, [("E347", "lora_rank")]),
        ({"lora_rank": 4}, [("E347", "lora_rank"), ("W347", "lora_alpha")]),
        ({"lora_alpha": 64}, [("W347", "lora_alpha")]),
        ({"use_dora": True}, [("E347", "use_dora")]),
        ({"use_rslora": True}, [("W347", "use_rslora")]),
        ({"lora_target": "q_proj"}, [("E347", "lora_target")]),
        ({"lora_target": ["k_proj", "v_proj"]}, [("E347", "lora_target")]),
        ({"finetuning_type": "full"}, [("E347", RESUME)]),
        ({"finetuning_type": "oft"}, [("E347", RESUME)]),
        ({"stage": "rm"}, [("E347", RESUME)]),
        ({"stage": "ppo"}, [("E347", RESUME)]),
        ({"pissa_convert": True}, [("E347", RESUME)]),
        ({"deepspeed": "z2.json"}, [("E347", RESUME)]),
        ({"do_train": False, "lora_rank": 4}, []),
    ],
)
def test_what_the_recipe_and_the_checkpoint_make_of_each_other(saved, settings, expected):
    assert found(saved, **settings) == expected


def test_without_rows_and_max_steps_no_end_is_known(saved):
    assert found(saved, rows=0, max_steps=-1, num_train_epochs=0.1) == []


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt"])
def test_without_its_optimizer_the_rate_starts_again(saved, name):
    (saved / name).unlink()
    assert found(saved) == [("W347", RESUME)]


@pytest.mark.parametrize("name", ["trainer_state.json", "adapter_model.safetensors"])
def test_what_lacks_a_file_stops_the_training(saved, name):
    (saved / name).unlink()
    assert found(saved) == [("E347", RESUME)]


def test_a_cut_off_file_stops_the_training(saved):
    path = saved / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:-9])
    assert found(saved) == [("E347", RESUME)]


def test_weights_in_pytorchs_own_form_are_weights(saved):
    (saved / "adapter_model.safetensors").rename(saved / "adapter_model.bin")
    assert found(saved) == []


def test_a_whole_model_holds_no_adapter(saved):
    (saved / "adapter_config.json").unlink()
    assert found(saved) == [("E347", RESUME)]
    assert found(saved, finetuning_type="full") == []


def test_all_is_compared_with_the_layers_of_the_model(saved):
    recipe = Recipe(Path("r.yaml"), {**SETTINGS, RESUME: str(saved), "lora_target": "all"}, {})
    for linear, codes in ((["q_proj", "v_proj"], []), (["q_proj", "k_proj", "v_proj"], ["E347"]), ([], [])):
        assert [problem.code for problem in target_problems(recipe, linear)] == codes


def test_true_takes_the_newest_of_output_dir_or_stops(saved, tmp_path):
    assert found(saved, resume_from_checkpoint=True, output_dir=str(saved.parent)) == []
    assert found(saved, resume_from_checkpoint=True, output_dir=str(tmp_path / "new")) == [("E347", RESUME)]
    assert found(saved, resume_from_checkpoint=False, output_dir=str(tmp_path / "new")) == []


def test_another_number_of_processes(saved):
    assert found(saved, world_size=2) == [("W347", RESUME)]
    assert found(saved, world_size=None) == []


@pytest.mark.parametrize("state", [{"global_step": 4, "save_steps": "2"}, {"global_step": 4}])
def test_an_odd_state_is_no_traceback(saved, state):
    write_json(saved / "trainer_state.json", state)
    assert found(saved, save_steps=3) == []


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1.0]), pickle.dumps({"base_lrs": "x"})])
def test_an_odd_scheduler_has_no_rate(saved, content):
    with zipfile.ZipFile(saved / "scheduler.pt", "w") as archive:
        archive.writestr("scheduler/data.pkl", content)
    assert saved_rates(saved / "scheduler.pt") == []
    assert found(saved, learning_rate=5e-3) == []


@pytest.mark.parametrize("value", [None, "8", [8], {"r": 8}])
def test_an_odd_config_is_no_traceback(saved, value):
    config = read_json(saved / "adapter_config.json")
    write_json(saved / "adapter_config.json", {**config, "r": value, "target_modules": value})
    assert {code for code, _ in found(saved)} <= {"E347"}


ADAMW_GROUP = {"weight_decay": 0.01, "lr": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "initial_lr": 1e-4}


def write_optimizer(path: Path, groups: list[dict]) -> None:
    """As torch.save writes it, without tensors."""
    groups = [{**group, "params": [number]} for number, group in enumerate(groups)]
    state = {"state": {0: {"step": 4.0, "weight_decay": 7.0}}, "param_groups": groups}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("optimizer/data.pkl", pickle.dumps(state, 2))


@pytest.mark.parametrize(
    ("groups", "settings", "expected"),
    [
        ([ADAMW_GROUP] * 2, {}, []),
        ([ADAMW_GROUP] * 2, {"weight_decay": 0.01, "adam_beta1": 0.9, "adam_epsilon": 1e-8}, []),
        ([ADAMW_GROUP] * 2, {"weight_decay": 0.1}, [("W347", "weight_decay")]),
        ([ADAMW_GROUP, {**ADAMW_GROUP, "weight_decay": 0.1}], {"weight_decay": 0.1},
         [("W347", "weight_decay")]),
        ([ADAMW_GROUP] * 2, {"adam_beta2": 0.95}, [("W347", "adam_beta2")]),
        ([ADAMW_GROUP] * 2, {"optim": "adamw_8bit"}, []),
        ([ADAMW_GROUP] * 2, {"optim": "sgd"}, [("E347", "optim")]),
        ([{"momentum": 0.0, "weight_decay": 0.0}] * 2, {"optim": "sgd"}, []),
        ([{"momentum": 0.0, "weight_decay": 0.0}] * 2, {}, [("E347", "optim")]),
        ([ADAMW_GROUP] * 2, {"loraplus_lr_ratio": 16}, [("E347", "loraplus_lr_ratio")]),
        ([ADAMW_GROUP] * 4, {"loraplus_lr_ratio": 16}, []),
        ([ADAMW_GROUP] * 4, {}, [("E347", "loraplus_lr_ratio")]),
    ],
)  # fmt: skip
def test_the_optimizer_of_the_checkpoint(saved, groups, settings, expected):
    write_optimizer(saved / "optimizer.pt", groups)
    assert found(saved, **settings) == expected


@pytest.mark.parametrize(
    ("modules", "settings", "expected"),
    [
        (None, {}, []),
        (["embed_tokens"], {"additional_target": "embed_tokens"}, []),
        (["embed_tokens", "lm_head"], {"additional_target": "lm_head,embed_tokens"}, []),
        (None, {"additional_target": "embed_tokens"}, [("E347", "additional_target")]),
        (["embed_tokens"], {}, [("E347", "additional_target")]),
        (["embed_tokens", "lm_head"], {"resize_vocab": True, "add_tokens": "<a>"}, []),
    ],
)
def test_the_further_modules_of_the_checkpoint(saved, modules, settings, expected):
    write_json(saved / "adapter_config.json", {**CONFIG, "modules_to_save": modules})
    assert found(saved, **settings) == expected
