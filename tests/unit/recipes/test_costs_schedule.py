"""Steps worked out by hand against the schedule; what never comes is said."""

from pathlib import Path

import pytest

from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.schedule import schedule_of, schedule_problems, training_rows

EACH = "per_device_train_batch_size"


def schedule(rows, world=1, **settings):
    recipe = Recipe(Path("r.yaml"), settings, {})
    return schedule_of(recipe, training_rows(recipe, [rows]), world)


@pytest.mark.parametrize(
    ("rows", "world", "settings", "batch", "per_epoch", "steps"),
    [
        # document 003: 392,702 rows, 4 GPUs × 4 × 4: 24,544 batches, /4 gathered
        (392_702, 4, {EACH: 4, "gradient_accumulation_steps": 4, "num_train_epochs": 1.0}, 64, 6136, 6136),
        (2490, 4, {EACH: 4, "gradient_accumulation_steps": 4, "num_train_epochs": 10.0}, 64, 39, 390),
        (1800, 1, {EACH: 2, "gradient_accumulation_steps": 4, "num_train_epochs": 3.0}, 8, 225, 675),
        (10, 1, {EACH: 4, "num_train_epochs": 0.5}, 4, 3, 2),
        (10, 1, {EACH: 4, "max_steps": 7}, 4, 3, 7),
        (100, 1, {EACH: 10, "val_size": 0.1, "num_train_epochs": 1}, 10, 9, 9),
        (100, 1, {EACH: 10, "val_size": 25, "num_train_epochs": 1}, 10, 8, 8),
        (5, 1, {}, 8, 1, 3),
        # trained by two processes with LLaMA-Factory: 5 steps
        (40, 2, {EACH: 8, "num_train_epochs": 1, "accelerator_config": {"split_batches": True}}, 8, 5, 5),
        (40, 2, {EACH: 8, "num_train_epochs": 1, "accelerator_config": {"split_batches": False}}, 16, 3, 3),
        (45, 2, {EACH: 4, "num_train_epochs": 1, "dataloader_drop_last": True}, 8, 5, 5),
        (45, 2, {EACH: 4, "num_train_epochs": 1, "accelerator_config": {"split_batches": True}}, 4, 12, 12),
    ],
)  # fmt: skip
def test_steps(rows, world, settings, batch, per_epoch, steps):
    found = schedule(rows, world, **settings)
    assert (found.batch, found.steps_per_epoch, found.steps) == (batch, per_epoch, steps)


def test_warmup_is_steps_or_a_share():
    assert schedule(100, per_device_train_batch_size=1, num_train_epochs=1, warmup_steps=6).warmup == 6
    assert schedule(100, per_device_train_batch_size=1, num_train_epochs=1, warmup_steps=0.03).warmup == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize(
    "key", [EACH, "gradient_accumulation_steps", "num_train_epochs", "max_steps", "val_size", "warmup_steps"]
)
def test_a_number_that_is_none_does_not_stop_the_check(key, value):
    assert schedule(100, **{key: value}) == schedule(100)  # ranges.py names it


@pytest.mark.parametrize(
    ("settings", "overrides"),
    [
        ({"eval_strategy": "steps", "max_steps": 100, "logging_steps": 10}, ()),
        ({"num_train_epochs": 3, "max_steps": 5, "save_strategy": "no"}, ("max_steps=5",)),
    ],
)
def test_an_evaluation_by_logging_steps_and_an_override_that_ends_early_are_no_problem(settings, overrides):
    recipe = Recipe(Path("r.yaml"), settings, {}, overrides)
    assert not list(schedule_problems(recipe, schedule_of(recipe, 80, 1)))


@pytest.mark.parametrize(("each", "codes"), [(8, []), (5, ["E337"])])
def test_a_batch_that_is_split_is_a_multiple_of_the_processes(tmp_path, each, codes):
    file = tmp_path / "accelerate.json"
    file.write_text('{"split_batches": true}')
    recipe = Recipe(Path("r.yaml"), {EACH: each, "accelerator_config": str(file)}, {})
    schedule = schedule_of(recipe, 80, 2)
    assert schedule.batch == each
    assert [problem.code for problem in schedule_problems(recipe, schedule)] == codes


@pytest.mark.parametrize("config", ["gone.json", "r.yaml", [], {"split_batches": "true"}, None])
def test_an_odd_accelerator_config_splits_nothing(config):
    recipe = Recipe(Path("r.yaml"), {EACH: 8, "accelerator_config": config}, {})
    assert schedule_of(recipe, 80, 2).batch == 16
