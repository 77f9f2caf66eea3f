"""The steps of a training: rows, batch, epochs and warm-up, as transformers' Trainer counts them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tuneyard.core.errors import ContentError, Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, counted, ngettext
from tuneyard.recipes.recipe import Recipe

NOTHING_TO_TRAIN = ProblemCode("E307", _("`val_size` leaves no rows to train on"), _("Lower `val_size`."))
NEVER_SAVED = ProblemCode(
    "W330", _("saves or evaluations that never happen"), _("Lower `save_steps` or `eval_steps`.")
)
ENDS_EARLY = ProblemCode(
    "N330", _("`max_steps` ends the training before `num_train_epochs`"), _("Leave `max_steps` out.")
)
ENDLESS_WARMUP = ProblemCode("W331", _("a warm-up that never ends"), _("Lower `warmup_steps`."))
LARGE_STEP = ProblemCode(
    "W332", _("a step larger than the data"), _("Lower the batch or the gradient accumulation.")
)
DEPRECATED_WARMUP = ProblemCode("W333", _("`warmup_ratio` is deprecated"), _("Write `warmup_steps`."))
STOPS_LATE = ProblemCode(
    "E337",
    _("settings at which training stops once the model is loaded"),
    _("Change the setting in the message."),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The course of a training: rows and batch of one step, steps of an epoch and in all, warm-up steps.

    Each process puts `accumulated` micro batches into a step. A row of a `packed` training is a block of
    several rows of the dataset.
    """

    rows: int
    world_size: int
    batch: int
    accumulated: int
    steps_per_epoch: int
    steps: int
    warmup: int
    packed: bool = False

    @property
    def world(self) -> dict[str, object]:
        """Processes and rows of a step, for training.json."""
        return {"world_size": self.world_size, "global_batch": self.batch}

    @property
    def lacks_rows(self) -> bool:
        """True if a step takes more rows than there are."""
        return 0 < self.rows < self.batch

    def line(self) -> str:
        """One line: `1200 rows, batch 16, 75 steps an epoch, 75 in all`."""
        rows = counted(self.rows, "row", "rows")
        if self.packed:
            rows = counted(self.rows, "packed block", "packed blocks")
        line = ngettext(
            "{rows}, batch {batch}, {number:,} step an epoch, {steps:,} in all",
            "{rows}, batch {batch}, {number:,} steps an epoch, {steps:,} in all",
            self.steps_per_epoch,
            rows=rows,
            batch=self.batch,
            number=self.steps_per_epoch,
            steps=self.steps,
        )
        if not self.steps or not self.warmup:
            return line
        return _("{schedule}, warm-up {share:.0%}", schedule=line, share=self.warmup / self.steps)


def schedule_of(recipe: Recipe, rows: int, world_size: int) -> Schedule:
    """Schedule of transformers' Trainer on `rows` rows or packed blocks."""
    each = int(recipe.number("per_device_train_batch_size", 8))
    together = each * world_size
    if splits_batches(recipe):
        together = each
    batches = math.ceil(rows / max(1, together))
    if recipe.settings.get("dataloader_drop_last") is True:
        batches = rows // max(1, together)
    accumulated = int(recipe.number("gradient_accumulation_steps", 1))
    steps_per_epoch = max(1, math.ceil(batches / max(1, accumulated)))
    limit = int(recipe.number("max_steps", -1))
    epochs = recipe.number("num_train_epochs", 3)
    steps = limit if limit > 0 else math.ceil(epochs * steps_per_epoch)
    warmup = recipe.number("warmup_steps", 0) or recipe.number("warmup_ratio", 0)
    warmup = math.ceil(steps * warmup) if warmup < 1 else int(warmup)
    batch = together * accumulated
    return Schedule(rows, world_size, batch, accumulated, steps_per_epoch, steps, warmup, packs(recipe))


def splits_batches(recipe: Recipe) -> bool:
    """True if all processes share a batch of `per_device_train_batch_size` (accelerate's `split_batches`).

    `accelerator_config` is an object, or the path of a JSON file.
    """
    try:
        config = recipe.json_setting("accelerator_config")
    except (ContentError, OSError):
        return False
    return config.get("split_batches") is True


def packs(recipe: Recipe) -> bool:
    """True if rows are packed into blocks of cutoff_len, the default of stage pt; only pt and sft pack."""
    stage = recipe.stage
    packing = recipe.settings.get("packing") or recipe.settings.get("neat_packing")
    if stage == "pt" and recipe.settings.get("packing") is None:
        return True
    return bool(packing) and stage in ("pt", "sft")


def packed_batches(rows: int, workers: int, batch: int) -> list[int]:
    """The numbers of rows that LLaMA-Factory packs at a time.

    Each of the `workers` gets an equal share of the rows and packs `batch` of them at a time. No block goes
    over from one batch to the next.

    >>> packed_batches(2500, 2, 1000)
    [1000, 250, 1000, 250]
    """
    workers = max(1, min(workers, rows))
    sizes = []
    for worker in range(workers):
        share = rows // workers
        if worker < rows % workers:
            share += 1
        sizes += [batch] * (share // batch)
        if share % batch:
            sizes.append(share % batch)
    return sizes


def training_rows(recipe: Recipe, datasets: Iterable[int]) -> int:
    """Rows that are trained of datasets with so many rows each: all but `held_out_rows`."""
    counts = list(datasets)
    return max(0, _drawn_rows(recipe, counts) - held_out_rows(recipe, counts))


def held_out_rows(recipe: Recipe, datasets: Iterable[int]) -> int:
    """Rows that `val_size` (a share below 1, or a number) holds out of datasets with so many rows each."""
    held_out = recipe.number("val_size", 0)
    if held_out < 1:
        held_out = math.ceil(_drawn_rows(recipe, datasets) * held_out)
    return int(held_out)


def _drawn_rows(recipe: Recipe, datasets: Iterable[int]) -> int:
    """Rows of all datasets; `max_samples` is the most of each."""
    limit = recipe.number("max_samples", math.inf)
    return int(sum(min(count, limit) for count in datasets))


def schedule_problems(recipe: Recipe, schedule: Schedule) -> Iterator[Problem]:
    """Report events that a training of this length never reaches: saves, evaluations, the end of warm-up."""
    settings = recipe.settings
    saves = settings.get("save_strategy", "steps") == "steps" and settings.get("save_steps")
    evaluates = settings.get("eval_steps") or settings.get("logging_steps", 500)
    evaluates = settings.get("eval_strategy") == "steps" and evaluates
    never = {"save_steps": _("only the end is saved"), "eval_steps": _("it is never evaluated")}
    for key, value in {"save_steps": saves, "eval_steps": evaluates}.items():
        if isinstance(value, int) and value > schedule.steps:
            message = ngettext(
                "is {value}, but the training ends after {number:,} step",
                "is {value}, but the training ends after {number:,} steps",
                schedule.steps,
                value=value,
                number=schedule.steps,
            )
            yield recipe.problem(NEVER_SAVED, key, message, never[key])
    if schedule.warmup >= schedule.steps:
        message = _(
            "{warmup} steps of {steps}: the full learning rate is never reached",
            warmup=schedule.warmup,
            steps=schedule.steps,
        )
        yield recipe.problem(ENDLESS_WARMUP, "warmup_steps", message)
    if not schedule.rows and settings.get("val_size"):
        message = _("takes every row, found {share}: none is left to train on", share=settings["val_size"])
        yield recipe.setting_problem(NOTHING_TO_TRAIN, "val_size", message)
    if schedule.lacks_rows:
        message = _(
            "a step takes {batch} rows, the dataset has {rows}: take less",
            batch=schedule.batch,
            rows=schedule.rows,
        )
        if schedule.packed:
            message = _(
                "a step takes {batch} packed blocks, the dataset has {blocks}: take less",
                batch=schedule.batch,
                blocks=schedule.rows,
            )
        yield recipe.problem(LARGE_STEP, "per_device_train_batch_size", message)
    limit, epochs = recipe.number("max_steps", -1), recipe.number("num_train_epochs", 0)
    ends_early = 0 < limit < epochs * schedule.steps_per_epoch and schedule.rows
    if ends_early and not settings.get("streaming") and not recipe.is_overridden("max_steps"):
        share = limit / schedule.steps_per_epoch
        message = _(
            "ends the training after {share:.2g} of num_train_epochs: {epochs:g} epochs",
            share=share,
            epochs=epochs,
        )
        yield recipe.problem(ENDS_EARLY, "max_steps", message)
    each, processes = int(recipe.number("per_device_train_batch_size", 8)), schedule.world_size
    if splits_batches(recipe) and each % processes:
        message = _(
            "{rows} cannot be split among {processes} processes (split_batches): training stops",
            rows=each,
            processes=processes,
        )
        fix = _("a multiple of {processes}", processes=processes)
        yield recipe.problem(STOPS_LATE, "per_device_train_batch_size", message, fix)
    if "warmup_ratio" in settings:
        hint = _(
            "warmup_steps: {share} (a share below 1 is taken too)",
            share=settings["warmup_ratio"],
        )
        yield recipe.problem(DEPRECATED_WARMUP, "warmup_ratio", _("is deprecated in transformers 5"), hint)
