"""Rules on the training method of a recipe: learning rate, PPO, value head, packing.

Codes and the sources of the learning rates: docs/recipes.md.
"""

from collections.abc import Iterator
from pathlib import Path

from tuneyard.core.errors import Problem
from tuneyard.core.files import versions
from tuneyard.core.training.training_stage import PREFERENCE_STAGES, TRAINING_STAGES
from tuneyard.recipes.recipe import Recipe

FAR = 10
"""A learning rate is far outside a range if it is so many times below or above it, or more."""
OTHER_RATES = ("use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon", "loraplus_lr_ratio")
ADAM = "adam"
VALUE_HEADS = ("value_head.safetensors", "value_head.bin")  # of LLaMA-Factory's reward models
PPO_TRL = ((0, 8, 6), (0, 9, 6))
"""The first and the last version of trl that LLaMA-Factory 0.9.5 takes for PPO (train/ppo/trainer.py)."""


def learning_rate(recipe: Recipe) -> Iterator[Problem]:
    """Warn about a learning rate far outside of the published range for the stage."""
    settings = recipe.settings
    stage, method = str(settings.get("stage", "sft")), settings.get("finetuning_type", "lora")
    rates = None
    if stage in TRAINING_STAGES:
        is_adapter = method in ("lora", "oft")
        rates = TRAINING_STAGES[stage].adapter_rates if is_adapter else TRAINING_STAGES[stage].weight_rates
    rate = recipe.number("learning_rate", 0)
    uses_other_optimizer = ADAM not in str(settings.get("optim", ADAM)) or any(map(settings.get, OTHER_RATES))
    if rates is None or rate <= 0 or uses_other_optimizer:
        return
    low, high = rates
    if low / FAR < rate < high * FAR:
        return
    side, effect = "below", "hardly anything is learned"
    if rate > high:
        side, effect = "above", "training may diverge"
    usual = f"the usual {low:g} to {high:g} of stage {stage} with finetuning_type {method}"
    message = f"{rate:g} is far {side} {usual}: {effect}"
    yield recipe.problem("W357", "learning_rate", message)


def packing(recipe: Recipe) -> Iterator[Problem]:
    """Note that packed examples see each other."""
    settings = recipe.settings
    if settings.get("stage", "sft") == "sft" and settings.get("packing") and not settings.get("neat_packing"):
        message = "examples in a block see the ones before them"
        yield recipe.problem("N359", "packing", message, "neat_packing: true keeps them apart")


def ppo(recipe: Recipe) -> Iterator[Problem]:
    """Refuse PPO with a trl that LLaMA-Factory's PPO trainer refuses, after it has loaded three models."""
    installed = versions("trl").get("trl", "")
    numbers = _numbers(installed)
    if recipe.settings.get("stage") != "ppo" or not numbers or PPO_TRL[0] <= numbers <= PPO_TRL[1]:
        return
    first, last = (".".join(map(str, version)) for version in PPO_TRL)
    message = (
        f"LLaMA-Factory 0.9.5 needs trl {first} to {last} for PPO, and 0.18 or newer for everything else "
        f"(installed: {installed}): training stops once the models are loaded"
    )
    fix = f"train preferences with stage: {' or '.join(PREFERENCE_STAGES)}"
    yield recipe.problem("E334", "stage", message, fix)


def _numbers(version: str) -> tuple[int, ...]:
    """Numbers of a version: 1.2.2 → (1, 2, 2); () if it has none."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def value_head(recipe: Recipe) -> Iterator[Problem]:
    """Refuse to judge answers by a reward model whose value head is missing: it would be a random one.

    A model or adapter on the hub is not looked into.
    """
    settings = recipe.settings
    if settings.get("stage") == "ppo" and settings.get("reward_model_type") != "api":
        adapters = recipe.names("reward_model_adapters")
        key = "reward_model_adapters" if adapters else "reward_model"
        folders = adapters or recipe.names("reward_model")
    elif settings.get("stage") == "rm" and not settings.get("do_train"):
        adapters = recipe.names("adapter_name_or_path")
        key = "adapter_name_or_path" if adapters else "model_name_or_path"
        folders = adapters or recipe.names("model_name_or_path")
    else:
        return
    folder = Path(folders[-1]).expanduser() if folders else None  # LLaMA-Factory reads the last one's
    if folder is None or not folder.is_dir() or any((folder / name).is_file() for name in VALUE_HEADS):
        return
    message = f"{folder} has no value head ({' or '.join(VALUE_HEADS)}): it is no reward model"
    yield recipe.problem("E335", key, message, "name a folder that stage: rm has written")
