"""Rules on what LLaMA-Factory's arguments accept and the trainer then stops at, ignores, or learns badly.

Each was read in LLaMA-Factory 0.9.5 and transformers 5.6; tests/examples/recipes/bad has an example.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuneyard.core.documents.schema_errors import is_number
from tuneyard.core.errors import ContentError, Problem, show_value
from tuneyard.core.files import read_object
from tuneyard.recipes.recipe import Recipe

# Schedulers with an argument that transformers needs and does not set, in lr_scheduler_kwargs.
SCHEDULERS = {
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps",),
}
REFERENCE_FREE = ("orpo", "simpo")
# Values of a DeepSpeed file that transformers compares, with the setting and its default.
DEEPSPEED_VALUES: dict[tuple[str, ...], tuple[str, object]] = {
    ("train_micro_batch_size_per_gpu",): ("per_device_train_batch_size", 8),
    ("gradient_accumulation_steps",): ("gradient_accumulation_steps", 1),
    ("gradient_clipping",): ("max_grad_norm", 1.0),
    ("optimizer", "params", "lr"): ("learning_rate", 5e-5),
    ("optimizer", "params", "eps"): ("adam_epsilon", 1e-8),
    ("optimizer", "params", "weight_decay"): ("weight_decay", 0.0),
    ("fp16", "enabled"): ("fp16", False),
    ("bf16", "enabled"): ("bf16", False),
}


def trainer_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield everything in this module that the settings alone show."""
    if recipe.settings.get("do_train") is True:
        yield from _stops(recipe)
        yield from _deepspeed_values(recipe)
    yield from _tokens(recipe)
    yield from _no_effect(recipe)


def _stops(recipe: Recipe) -> Iterator[Problem]:
    """Refuse settings at which the trainer stops once the model is loaded."""
    settings = recipe.settings
    keeps_best = settings.get("load_best_model_at_end") is True
    metric = settings.get("metric_for_best_model") or keeps_best
    if settings.get("early_stopping_steps") and not metric:
        message = "needs a metric and evaluations: training stops when it begins"
        yield recipe.problem("E337", "early_stopping_steps", message, "load_best_model_at_end: true")
    if settings.get("deepspeed") and settings.get("fsdp"):
        message = "and deepspeed exclude each other: training stops once the model is loaded"
        yield recipe.problem("E337", "fsdp", message, "choose one")
    elif (
        settings.get("save_only_model") and keeps_best and (settings.get("deepspeed") or settings.get("fsdp"))
    ):
        message = "leaves DeepSpeed and FSDP nothing to load the best checkpoint from"
        yield recipe.problem("E337", "save_only_model", message, "save_only_model: false")
    scheduler = settings.get("lr_scheduler_type")
    needed = SCHEDULERS.get(str(scheduler), ())
    arguments = settings.get("lr_scheduler_kwargs")
    named = arguments if isinstance(arguments, dict | str) else ()
    if needed and not any(name in named for name in needed):
        message = f"{scheduler} needs {' or '.join(needed)}: training stops once the model is loaded"
        yield recipe.problem("E337", "lr_scheduler_type", message, f"lr_scheduler_kwargs: {{{needed[0]}: …}}")


def _deepspeed_values(recipe: Recipe) -> Iterator[Problem]:
    """Refuse numbers in a DeepSpeed file that differ from the recipe's; transformers stops at them."""
    name = recipe.settings.get("deepspeed")
    if not isinstance(name, str):
        return
    content: Mapping[str, Any] = {}
    with contextlib.suppress(ContentError, OSError):  # E310 reports the file
        content = read_object(Path(name))
    for path, (key, default) in DEEPSPEED_VALUES.items():
        value: Any = content
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        expected = recipe.settings.get(key, default)
        is_fixed = isinstance(value, bool) or is_number(value)
        if is_fixed and value != expected:
            message = f"{name}: {'.'.join(path)} is {show_value(value)}, {key} is {show_value(expected)}"
            yield recipe.problem("E310", "deepspeed", message, f'write "auto" for {path[-1]}')


def _tokens(recipe: Recipe) -> Iterator[Problem]:
    """Note that tokens at `tokenized_path` replace the data."""
    folder = recipe.settings.get("tokenized_path")
    if not isinstance(folder, str) or not folder:
        return
    path = Path(folder)
    if path.is_dir() and any(path.iterdir()):
        message = f"{folder} has tokens already: dataset, template and cutoff_len are not read"
        yield recipe.problem("N338", "tokenized_path", message, "name another folder after a change of these")


def _no_effect(recipe: Recipe) -> Iterator[Problem]:
    """Warn about settings that are ignored."""
    settings, stage = recipe.settings, recipe.settings.get("stage", "sft")
    if settings.get("packing") and stage in ("rm", "dpo", "kto"):
        message = f"has no effect in stage {stage}: only pt and sft pack"
        yield recipe.problem("W338", "packing", message, "leave it out")
    loss = settings.get("pref_loss")
    if settings.get("ref_model") and stage == "dpo" and loss in REFERENCE_FREE:
        yield recipe.problem("W338", "ref_model", f"has no effect: {loss} has no reference", "leave it out")
    for key in ("dataset", "eval_dataset"):
        names = recipe.names(key)
        repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if repeated:
            message = f"{', '.join(repeated)} is listed twice: LLaMA-Factory takes it once"
            yield recipe.problem("W338", key, message, 'for more weight, "num_samples" in its registry entry')
