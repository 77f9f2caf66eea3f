"""Numbers that a setting can hold: a learning rate of -1 or .nan trains for hours and teaches nothing.

LLaMA-Factory takes them without a word; the bounds are those of the arguments' own documentation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from core.errors import Problem, show_value
from recipes.recipe import Recipe

LARGEST = 2.0**53  # above it not every whole number is a float; no step, rank or rate is as large


@dataclass(frozen=True, slots=True)
class Range:
    """From `low` (without it where `above`) to `high`."""

    low: float
    high: float = LARGEST
    above: bool = False

    def holds(self, value: object) -> bool:
        """Return whether a number lies inside; NaN, infinities and what is no number never do."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def words(self) -> str:
        """Return the range in words, e.g. `a number above 0` or `a number from 0 to 1`."""
        start = f"above {self.low:g}" if self.above else f"from {self.low:g}"
        return f"a number {start}" + (f" to {self.high:g}" if self.high < LARGEST else "")


POSITIVE, COUNT, SHARE = Range(0, above=True), Range(1), Range(0, 1)
RANGES = {
    "learning_rate": POSITIVE, "num_train_epochs": POSITIVE, "ddp_timeout": POSITIVE,
    "save_steps": POSITIVE, "logging_steps": POSITIVE, "eval_steps": Range(0),
    "per_device_train_batch_size": COUNT, "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT, "cutoff_len": COUNT, "lora_rank": COUNT, "lora_alpha": COUNT,
    "save_total_limit": COUNT, "preprocessing_num_workers": COUNT, "max_samples": COUNT,
    "max_steps": Range(-1),
    "lora_dropout": SHARE, "warmup_ratio": SHARE, "adam_beta1": SHARE, "adam_beta2": SHARE,
    "label_smoothing_factor": SHARE,
    "weight_decay": Range(0), "warmup_steps": Range(0), "max_grad_norm": Range(0), "val_size": Range(0),
    "adam_epsilon": Range(0), "seed": Range(0, 2**32 - 1),
}  # fmt: skip


def range_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield the numbers of a recipe that its settings cannot hold."""
    for key, wanted in RANGES.items():
        value = recipe.settings.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and not wanted.holds(value):
            message = f"found {show_value(value)}, expected {wanted.words()}"
            yield recipe.problem("E313", key, message)
