"""What can be wrong with the settings of a recipe, found without importing LLaMA-Factory.

Each rule yields problems; E… stops a training, W… is worth a look. docs/recipes.md lists the codes.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from core.checkout import ROOT
from core.errors import ContentError, Problem, show_value
from core.metrics import UNKNOWN, direction, metric_of
from recipes.hardware import Gpu, Machine
from recipes.paths import path_problems
from recipes.recipe import Recipe
from recipes.schema import setting_problems
from recipes.token_weights import read_weights, weights_file

REQUIRED = {
    "model_name_or_path": "the model to train (a hub id or a folder)",
    "output_dir": "the folder to write, e.g. saves/NAME",
    "dataset": "the dataset to train on",
}
PACKAGES = {
    "quantization_bit": "bitsandbytes",
    "deepspeed": "deepspeed",
    "use_unsloth": "unsloth",
    "enable_liger_kernel": "liger_kernel",
    "use_swanlab": "swanlab",
    "use_galore": "galore_torch",
    "use_apollo": "apollo_torch",
    "use_badam": "badam",
    "use_adam_mini": "adam_mini",
    "predict_with_generate": "rouge_chinese",
}
UNWEIGHTED = (
    "packing", "neat_packing", "use_dft_loss", "use_eaft_loss", "use_asft_loss", "label_smoothing_factor",
    "use_unsloth", "enable_liger_kernel", "predict_with_generate", "use_hyper_parallel",
)  # fmt: skip
TIMES = ("runtime", "samples_per_second", "steps_per_second")
GENERATED = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")
PREFERRED = tuple(
    f"{what}/{one}" for what in ("rewards", "logps", "logits") for one in ("chosen", "rejected")
)
METRICS = {  # what LLaMA-Factory's trainers compute beside the loss
    "rm": ("accuracy",),
    "dpo": (*PREFERRED, "rewards/accuracies", "rewards/margins", "sft_loss", "odds_ratio_loss"),
    "kto": (*PREFERRED, "rewards/margins"),
}
LOGGED = {**METRICS, "rm": (), "ppo": ("reward",)}  # what they write as they train
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
AMPERE = 8  # the compute capability from which NVIDIA GPUs calculate in bfloat16


def problems_of(recipe: Recipe, machine: Machine) -> list[Problem]:
    """Return everything wrong with a recipe's settings on a machine."""
    rules: list[Callable[[Recipe], Iterator[Problem]]] = [
        setting_problems, _missing, _model, _schedule, _packages, _deepspeed, path_problems, _weights,
        _metric,
    ]  # fmt: skip
    found = [problem for rule in rules for problem in rule(recipe)]
    return found + list(_hardware(recipe, machine.gpus))


def _missing(recipe: Recipe) -> Iterator[Problem]:
    works = [key for key in ("do_train", "do_eval", "do_predict") if recipe.settings.get(key) is True]
    idle = not works and not recipe.settings.get("tokenized_path")  # which is written without a training
    for key, meaning in REQUIRED.items():
        evaluates = key == "dataset" and works and "do_train" not in works
        if not recipe.names(key) and not evaluates:
            yield recipe.problem("E304", key, f"is missing, expected {meaning}")
    if idle:
        message = "is not true, so nothing would be trained"
        yield recipe.problem("E304", "do_train", message, "do_train: true")


def _model(recipe: Recipe) -> Iterator[Problem]:
    name = recipe.settings.get("model_name_or_path")
    if not isinstance(name, str) or not name:
        return
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            yield recipe.problem("E306", "model_name_or_path", f"{name} has no config.json: no model folder")
    elif folder.is_absolute():
        yield recipe.problem("E344", "model_name_or_path", f"{name}: no such folder")
    elif (
        not HUB_ID.fullmatch(name)
        or name.startswith((".", "~", "models/", "saves/"))
        or folder.parent.is_dir()
    ):
        hint = "make it with `python -m recipes base`" if name == "models/demo-base" else ""
        message = f"{name}: no such folder, and no hub id (owner/name) either"
        yield recipe.problem("E306", "model_name_or_path", message, hint)


def _schedule(recipe: Recipe) -> Iterator[Problem]:
    settings = recipe.settings
    evaluates = settings.get("eval_strategy", "no") not in ("no", False)
    has_rows = settings.get("eval_dataset") or settings.get("val_size")
    if has_rows and not evaluates and not settings.get("do_eval") and not settings.get("do_predict"):
        key = "eval_dataset" if settings.get("eval_dataset") else "val_size"
        yield recipe.problem("W307", key, "is given but never evaluated", "eval_strategy: steps")
    if settings.get("load_best_model_at_end") is True:
        yield from _best_at_end(recipe)


def _best_at_end(recipe: Recipe) -> Iterator[Problem]:
    settings = recipe.settings
    name, highest = str(settings.get("metric_for_best_model") or "loss"), settings.get("greater_is_better")
    if not isinstance(highest, bool):
        highest = not name.endswith("loss")  # what transformers takes
    if metric_of(name) is not UNKNOWN and highest != metric_of(name).higher:
        message = f"is {str(highest).lower()}, which keeps the worst: {direction(name)}"
        yield recipe.problem(
            "E308", "greater_is_better", message, f"greater_is_better: {not highest}".lower()
        )


def _metric(recipe: Recipe) -> Iterator[Problem]:
    """Refuse a metric to choose by that no evaluation of this recipe computes: it ends at the first one."""
    key, computed = "metric_for_best_model", evaluated(recipe)
    name = recipe.settings.get(key)
    if isinstance(name, str) and computed and f"eval_{name.removeprefix('eval_')}" not in computed:
        known = ", ".join(one for one in computed if not one.endswith(TIMES))
        yield recipe.problem("E314", key, f"found {show_value(name)}, which no evaluation computes: {known}")


def evaluated(recipe: Recipe) -> list[str]:
    """Return the figures that the evaluations of a training compute, [] where it makes none."""
    settings, stage = recipe.settings, str(recipe.settings.get("stage", "sft"))
    if settings.get("eval_strategy", "no") in ("no", False):
        return []
    computed = [*TIMES, "loss", *METRICS.get(stage, ())]
    if stage == "sft" and settings.get("predict_with_generate"):
        computed += GENERATED
    elif stage == "sft" and settings.get("compute_accuracy"):
        computed.append("accuracy")
    if settings.get("eval_on_each_dataset"):
        computed = [f"{dataset}_{one}" for dataset in recipe.names("eval_dataset") for one in computed]
    return [f"eval_{one}" for one in computed]


def measured(recipe: Recipe) -> list[str]:
    """Return the figures that a training writes of itself: by its evaluations and as it trains."""
    logged = LOGGED.get(str(recipe.settings.get("stage", "sft")), ())
    return [*evaluated(recipe), "train_loss", "loss", "grad_norm", "learning_rate", *logged]


def _packages(recipe: Recipe) -> Iterator[Problem]:
    wanted = {key: name for key, name in PACKAGES.items() if recipe.settings.get(key)}
    if "8bit" in str(recipe.settings.get("optim", "")):
        wanted["optim"] = "bitsandbytes"
    for tool in recipe.names("report_to"):
        if tool in {"wandb", "tensorboard", "swanlab", "mlflow", "trackio"}:
            wanted["report_to"] = tool
    for key, package in wanted.items():
        if find_spec(package) is None:
            hint = f"pip install {package.replace('_', '-')}"
            yield recipe.problem("E309", key, f"needs the package {package}, which is not installed", hint)


def _deepspeed(recipe: Recipe) -> Iterator[Problem]:
    name = recipe.settings.get("deepspeed")
    if not isinstance(name, str):
        return
    if not Path(name).is_file():
        known = ", ".join(
            sorted(f"recipes/deepspeed/{path.name}" for path in (ROOT / "recipes/deepspeed").glob("*.json"))
        )
        yield recipe.problem("E310", "deepspeed", f"{name}: file not found", f"there are {known}")
        return
    try:
        recipe.zero()
    except ContentError as error:
        yield recipe.problem("E310", "deepspeed", str(error))


def _weights(recipe: Recipe) -> Iterator[Problem]:
    """Refuse key-token weights where their loss has not been proved."""
    path = weights_file(recipe.path)
    if path is None:
        return
    try:
        read_weights(path)
    except ContentError as error:
        yield Problem("E360", str(path), str(error).removeprefix(f"{path}: "))
    settings = recipe.settings
    refused = [key for key in UNWEIGHTED if settings.get(key)]
    if settings.get("stage", "sft") != "sft":
        refused.append("stage")
    if _under_ray():
        refused.append("USE_RAY")
    with contextlib.suppress(ContentError, OSError):  # E310 says so
        refused += ["deepspeed"] * (recipe.zero().get("stage") == 3)
    for key in refused:
        message = f"does not go with key-token weights ({path}): not proved"
        hint = f"change it, or train without weights: llamafactory-cli train {recipe.path}"
        yield recipe.problem("E361", key, message, hint)


def _under_ray() -> bool:
    return os.environ.get("USE_RAY", "0").lower() in {"1", "true", "y"}


def uses_torchrun(recipe: Recipe, gpus: Sequence[Gpu]) -> bool:
    """Return whether LLaMA-Factory trains this recipe under torchrun: DeepSpeed, several GPUs, forced."""
    forced = os.environ.get("FORCE_TORCHRUN", "0").lower() in {"1", "true", "y"}
    return not _under_ray() and (forced or bool(recipe.settings.get("deepspeed")) or len(gpus) > 1)


def _hardware(recipe: Recipe, gpus: Sequence[Gpu]) -> Iterator[Problem]:
    settings = recipe.settings
    on_gpu = bool(gpus) and settings.get("use_cpu") is not True
    if settings.get("pure_bf16") is True and not on_gpu:
        yield recipe.problem("E312", "pure_bf16", "never works without a GPU", "bf16: true")
    if settings.get("fp16") is True and not on_gpu:
        yield recipe.problem("E312", "fp16", "needs a GPU", "bf16: true works on CPUs")
    if settings.get("bf16") is True and settings.get("fp16") is True:
        yield recipe.problem("E312", "fp16", "and bf16 are both true: choose one")
    if settings.get("bf16") is True and on_gpu and any(gpu.generation < AMPERE for gpu in gpus):
        message = f"{gpus[0].name} has no bfloat16: PyTorch imitates it, many times slower"
        yield recipe.problem("W312", "bf16", message, "bf16=false fp16=true")
    if settings.get("quantization_bit") and not on_gpu:
        message = "on CPU: works, but many times slower than without; meant for a GPU"
        yield recipe.problem("W312", "quantization_bit", message)


def world_size(recipe: Recipe, gpus: Sequence[Gpu]) -> int:
    """Return over how many processes a training spreads (under torchrun NNODES and NPROC_PER_NODE count)."""
    if not uses_torchrun(recipe, gpus):
        return _count(recipe.settings.get("ray_num_workers")) if _under_ray() else 1
    here = len(gpus) if gpus and recipe.settings.get("use_cpu") is not True else 1
    return _count(os.environ.get("NNODES")) * _count(os.environ.get("NPROC_PER_NODE") or here)


def _count(value: object) -> int:
    """Return a number of processes, 1 where it is none."""
    return max(1, int(str(value))) if str(value).isdigit() else 1
