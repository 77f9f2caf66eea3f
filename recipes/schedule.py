"""How many steps a recipe takes, worked out as the trainer does, and settings that never come into effect."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from core.errors import Problem, counted
from recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Schedule:
    """The course of a training: rows and batch of one step, steps of an epoch and in all, warm-up steps."""

    rows: int
    world_size: int
    batch: int
    steps_per_epoch: int
    steps: int
    warmup: int

    @property
    def world(self) -> dict[str, object]:
        """Return over how many processes and rows a step goes, as run.json has it."""
        return {"world_size": self.world_size, "global_batch": self.batch}

    def line(self) -> str:
        """Return the schedule in one line, e.g. `1200 rows, batch 16, 75 steps an epoch, 75 in all`."""
        steps = f"{counted(self.steps_per_epoch, 'step')} an epoch, {self.steps} in all"
        share = f", warm-up {self.warmup / self.steps:.0%}" if self.steps and self.warmup else ""
        return f"{counted(self.rows, 'row')}, batch {self.batch}, {steps}{share}"


def schedule_of(recipe: Recipe, rows: int, world_size: int) -> Schedule:
    """Return the schedule on `rows` training rows (or packed blocks), as transformers' Trainer has it."""
    held_out = recipe.number("val_size", 0)  # a share below 1, or a number of rows
    rows = max(0, rows - (math.ceil(rows * held_out) if held_out < 1 else int(held_out)))
    each = int(recipe.number("per_device_train_batch_size", 8))
    batches = math.ceil(rows / max(1, each * world_size))
    steps_per_epoch = max(1, math.ceil(batches / max(1, gathered(recipe))))
    limit = int(recipe.number("max_steps", -1))
    epochs = recipe.number("num_train_epochs", 3)
    steps = limit if limit > 0 else math.ceil(epochs * steps_per_epoch)
    warmup = recipe.number("warmup_steps", 0) or recipe.number("warmup_ratio", 0)
    warmup = math.ceil(steps * warmup) if warmup < 1 else int(warmup)
    batch = each * gathered(recipe) * world_size
    return Schedule(rows, world_size, batch, steps_per_epoch, steps, warmup)


def gathered(recipe: Recipe) -> int:
    """Return the micro batches of one step of each process."""
    return int(recipe.number("gradient_accumulation_steps", 1))


def schedule_problems(recipe: Recipe, schedule: Schedule) -> Iterator[Problem]:
    """Yield what never happens in a training of this length: saves, evaluations, the end of the warm-up."""
    settings = recipe.settings
    saves = settings.get("save_strategy", "steps") == "steps" and settings.get("save_steps")
    evaluates = settings.get("eval_steps") or settings.get("logging_steps", 500)
    evaluates = settings.get("eval_strategy") == "steps" and evaluates
    never = {"save_steps": "only the end is saved", "eval_steps": "it is never evaluated"}
    for key, value in {"save_steps": saves, "eval_steps": evaluates}.items():
        if isinstance(value, int) and value > schedule.steps:
            message = f"is {value}, but the training ends after {counted(schedule.steps, 'step')}"
            yield recipe.problem("W330", key, message, never[key])
    if schedule.warmup >= schedule.steps:
        message = f"{schedule.warmup} steps of {schedule.steps}: the full learning rate is never reached"
        yield recipe.problem("W331", "warmup_steps", message)
    if not schedule.rows and settings.get("val_size"):
        message = f"takes every row, found {settings['val_size']}: none is left to train on"
        yield recipe.problem("E307", "val_size", message)
    if schedule.rows and schedule.batch > schedule.rows:
        message = f"a step takes {schedule.batch} rows, the dataset has {schedule.rows}"
        yield recipe.problem("W332", "per_device_train_batch_size", message)
    if "warmup_ratio" in settings:
        hint = f"warmup_steps: {settings['warmup_ratio']} (a share below 1 is taken too)"
        yield recipe.problem("W333", "warmup_ratio", "is deprecated in transformers 5", hint)
