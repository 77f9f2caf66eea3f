"""Rules on the values of a recipe's DeepSpeed file: which contradict the recipe, and which replace it.

transformers' integrations/deepspeed.py decides; it was read in version 5.6.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuneyard.core.errors import ContentError, Problem, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, counted
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.schedule import STOPS_LATE, Schedule

WRONG_SETTINGS_FILE = ProblemCode(
    "E310",
    _("a DeepSpeed or JSON file that is missing, or contradicts the recipe"),
    _("Correct the path, or the value in the message."),
)
NO_EFFECT = ProblemCode(
    "W338", _("a setting without effect"), _("Leave it out, or change it as the message says.")
)


OTHER_RATES = ("use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon", "loraplus_lr_ratio")
# Values of a DeepSpeed file that transformers compares, with the setting and its default.
DEEPSPEED_VALUES: dict[tuple[str, ...], tuple[str, object]] = {
    ("train_micro_batch_size_per_gpu",): ("per_device_train_batch_size", 8),
    ("gradient_accumulation_steps",): ("gradient_accumulation_steps", 1),
    ("gradient_clipping",): ("max_grad_norm", 1.0),
    ("optimizer", "params", "lr"): ("learning_rate", 5e-5),
    ("optimizer", "params", "eps"): ("adam_epsilon", 1e-8),
    ("optimizer", "params", "weight_decay"): ("weight_decay", 0.0),
    ("scheduler", "params", "warmup_max_lr"): ("learning_rate", 5e-5),
    ("fp16", "enabled"): ("fp16", False),
    ("bf16", "enabled"): ("bf16", False),
}
# Schedulers of a DeepSpeed file, and the values of lr_scheduler_type that mean the same.
DEEPSPEED_SCHEDULERS = {
    "WarmupLR": ("constant_with_warmup",),
    "WarmupDecayLR": ("linear",),
    "WarmupCosineLR": ("cosine",),
}
# Its optimizers, and the values of optim that mean the same.
ADAMW = ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused")
DEEPSPEED_OPTIMIZERS = {"Adam": ADAMW, "AdamW": ADAMW, "Lion": ("lion_32bit",), "SGD": ("sgd",)}
# The section of a DeepSpeed file, the setting that it replaces, the default, and what means the same.
DEEPSPEED_SECTIONS: tuple[tuple[str, str, str, Mapping[str, tuple[str, ...]]], ...] = (
    ("optimizer", "optim", "adamw_torch", DEEPSPEED_OPTIMIZERS),
    ("scheduler", "lr_scheduler_type", "linear", DEEPSPEED_SCHEDULERS),
)


def deepspeed_values(recipe: Recipe) -> Iterator[Problem]:
    """Refuse values of a DeepSpeed file that differ from the recipe's; transformers stops at them."""
    name, content = _deepspeed_file(recipe)
    for path, (key, default) in DEEPSPEED_VALUES.items():
        expected = recipe.settings.get(key, default)
        if recipe.settings.get(f"{key}_full_eval") is True:  # of fp16 and bf16
            expected = True
        yield from _contradiction(recipe, name, content, path, expected, key)
    path = ("optimizer", "params", "betas")
    betas = [recipe.number(key, default) for key, default in (("adam_beta1", 0.9), ("adam_beta2", 0.999))]
    yield from _contradiction(recipe, name, content, path, betas, "adam_beta1, adam_beta2")


def deepspeed_steps(recipe: Recipe, schedule: Schedule) -> Iterator[Problem]:
    """Refuse steps and the batch of a DeepSpeed file that differ from those of the training.

    Source: `trainer_config_finalize` in transformers/integrations/deepspeed.py.
    """
    name, content = _deepspeed_file(recipe)
    processes = counted(schedule.world_size, "process", "processes")
    each = int(recipe.number("per_device_train_batch_size", 8))
    batch = each * schedule.world_size * schedule.accumulated
    step = _("a step of {processes}", processes=processes)
    yield from _contradiction(recipe, name, content, ("train_batch_size",), batch, step)
    if not schedule.rows and recipe.number("max_steps", -1) <= 0:
        return
    for key, steps, label in (
        ("total_num_steps", schedule.steps, _("the training of {processes}", processes=processes)),
        ("warmup_num_steps", schedule.warmup, _("its warm-up")),
    ):
        yield from _contradiction(recipe, name, content, ("scheduler", "params", key), steps, label)


def _contradiction(
    recipe: Recipe, name: str, content: Mapping[str, Any], path: Sequence[str], expected: object, label: str
) -> Iterator[Problem]:
    """E310 for a value of a DeepSpeed file that is not what transformers expects there (`label`)."""
    value = _value_at(content, path)
    if value is None or value == "auto" or value == expected:
        return
    message = _(
        "{file}: {key} is {value}, {label} is {expected}",
        file=name,
        key=".".join(path),
        value=show_value(value),
        label=label,
        expected=show_value(expected),
    )
    yield recipe.setting_problem(
        WRONG_SETTINGS_FILE, "deepspeed", message, _('write "auto" for {key}', key=path[-1])
    )


def _deepspeed_file(recipe: Recipe) -> tuple[str, Mapping[str, Any]]:
    """Name and content of the DeepSpeed file of a training, {} without one that can be read."""
    name = recipe.object_name("deepspeed")
    if not recipe.trains:
        return name, {}
    try:
        return name, recipe.json_setting("deepspeed")
    except (ContentError, OSError):  # E310 reports the file
        return name, {}


def deepspeed_replaces(recipe: Recipe) -> Iterator[Problem]:
    """Warn about an optimizer or scheduler in a DeepSpeed file: transformers takes it, not the recipe's.

    Source: `deepspeed_optim_sched` in transformers/integrations/deepspeed.py.
    """
    name, content = _deepspeed_file(recipe)
    for section, key, default, equal in DEEPSPEED_SECTIONS:
        if section not in content:
            continue
        value = content[section]
        kind = value.get("type") if isinstance(value, Mapping) else None
        same = equal.get(str(kind), ())
        replaced = _(
            "has no effect: {file} has the {section} {value}",
            file=name,
            section=section,
            value=show_value(kind),
        )
        fix = _('take "{section}" out of {file}', section=section, file=name)
        if section == "optimizer":
            for other in OTHER_RATES:
                if recipe.settings.get(other):
                    yield recipe.problem(NO_EFFECT, other, replaced, fix)
        if same:
            fix = _("{fix}, or write `{key}: {value}`", fix=fix, key=key, value=same[0])
        setting = recipe.settings.get(key)
        if not isinstance(setting, str):
            if default not in same:
                message = _(
                    "is not given, and its default {value} {replaced}", value=default, replaced=replaced
                )
                yield recipe.problem(NO_EFFECT, key, message, fix)
        elif setting not in same:
            yield recipe.problem(
                NO_EFFECT, key, _("{value} {replaced}", value=setting, replaced=replaced), fix
            )
    steps = _value_at(content, ("scheduler", "params", "warmup_num_steps"))
    warmup = recipe.number("warmup_steps", 0) or recipe.number("warmup_ratio", 0)
    if steps in ("auto", 0) and not warmup:
        message = _(
            "{file} has the scheduler's warmup_num_steps from the recipe, which has no "
            "warm-up: training stops once the model is loaded",
            file=name,
        )
        yield recipe.problem(STOPS_LATE, "deepspeed", message, _("write `warmup_steps: 0.03`"))


def _value_at(content: object, path: Sequence[str]) -> object:
    """The value below these keys of nested objects, None without one."""
    value = content
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
