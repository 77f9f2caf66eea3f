"""Rules of stages: learning rates, packing, what PPO needs, and judging by a reward model."""

from collections.abc import Iterator

from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import versions
from tuneyard.core.language.message import _, joined, marked
from tuneyard.core.llamafactory.stages import PREFERENCE_STAGES, TRAINING_STAGES, UNKNOWN_STAGE
from tuneyard.recipes.recipe import Recipe, expanded
from tuneyard.recipes.recipe.deepspeed_file import OTHER_RATES

NO_PPO = ProblemCode(
    "E334",
    _("stage `ppo`, which this LLaMA-Factory cannot start"),
    _("Train preferences with `dpo` or `kto`."),
)
NO_VALUE_HEAD = ProblemCode(
    "E335", _("a reward model without value head"), _("Name a model that `stage: rm` has written.")
)
UNUSUAL_RATE = ProblemCode(
    "W357", _("a learning rate far from the published ranges"), _("Look for a zero too many or too few.")
)
PACKED_TOGETHER = ProblemCode(
    "N359", _("packed examples that see each other"), _("Write `neat_packing: true`.")
)
FAR = 10
"""A learning rate is far outside a range if it is so many times below or above it, or more."""
ADAM = "adam"
VALUE_HEADS = ("value_head.safetensors", "value_head.bin")  # of LLaMA-Factory's reward models
PPO_TRL = "0.8.6", "0.9.6"


def learning_rate(recipe: Recipe) -> Iterator[Problem]:
    """Warn about a learning rate far outside of the published range for the stage."""
    settings, method = recipe.settings, recipe.method
    stage = TRAINING_STAGES.get(recipe.stage, UNKNOWN_STAGE)
    rates = stage.adapter_rates if method in ("lora", "oft") else stage.weight_rates
    rate = recipe.number("learning_rate", 0)
    uses_other_optimizer = ADAM not in str(settings.get("optim", ADAM)) or any(map(settings.get, OTHER_RATES))
    if rates is None or rate <= 0 or uses_other_optimizer:
        return
    low, high = rates
    if low / FAR < rate < high * FAR:
        return
    template = marked(
        "{rate:g} is far below the usual {low:g} to {high:g} of stage {stage} with finetuning_type {method}: "
        "hardly anything is learned"
    )
    if rate > high:
        template = marked(
            "{rate:g} is far above the usual {low:g} to {high:g} of stage {stage} with finetuning_type "
            "{method}: training may diverge"
        )
    message = _(template, rate=rate, low=low, high=high, stage=recipe.stage, method=method)
    yield recipe.problem(UNUSUAL_RATE, "learning_rate", message)


def packing(recipe: Recipe) -> Iterator[Problem]:
    """Note that packed examples see each other."""
    settings = recipe.settings
    if recipe.stage == "sft" and settings.get("packing") and not settings.get("neat_packing"):
        message = _("examples in a block see the ones before them")
        yield recipe.problem(PACKED_TOGETHER, "packing", message, _("neat_packing: true keeps them apart"))


def ppo(recipe: Recipe) -> Iterator[Problem]:
    """Refuse PPO with a trl that LLaMA-Factory's PPO trainer refuses, after it has loaded three models."""
    installed = versions("trl").get("trl")
    if recipe.stage != "ppo" or installed is None:
        return
    from packaging.version import Version

    first, last = PPO_TRL
    if Version(first) <= Version(installed) <= Version(last):
        return
    message = _(
        "LLaMA-Factory 0.9.5 needs trl {first} to {last} for PPO, and 0.18 or newer "
        "for everything else (installed: {installed}): training stops once the "
        "models are loaded",
        first=first,
        last=last,
        installed=installed,
    )
    fix = _("train preferences with stage: {stages}", stages=joined(PREFERENCE_STAGES, _(" or ")))
    yield recipe.problem(NO_PPO, "stage", message, fix)


def value_head(recipe: Recipe) -> Iterator[Problem]:
    """Refuse to judge answers by a reward model whose value head is missing: it would be a random one.

    A model or adapter on the hub is not looked into.
    """
    settings = recipe.settings
    if recipe.stage == "ppo" and settings.get("reward_model_type") != "api":
        key, adapter_key = "reward_model", "reward_model_adapters"
    elif recipe.stage == "rm" and not recipe.trains:
        key, adapter_key = "model_name_or_path", "adapter_name_or_path"
    else:
        return
    if recipe.names(adapter_key):
        key = adapter_key
    folders = recipe.names(key)
    folder = expanded(folders[-1]) if folders else None  # LLaMA-Factory reads the last one's
    if folder is None or not folder.is_dir() or any((folder / name).is_file() for name in VALUE_HEADS):
        return
    message = _(
        "{folder} has no value head ({value_heads}): it is no reward model",
        folder=folder,
        value_heads=joined(VALUE_HEADS, _(" or ")),
    )
    yield recipe.problem(NO_VALUE_HEAD, key, message, _("name a folder that stage: rm has written"))
