"""Rules on the settings of a recipe that need no LLaMA-Factory (codes: docs/recipes.md)."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from tuneyard.core.errors import ContentError, Problem, problems_of_file, show_value
from tuneyard.core.files import existing
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.installation.packages import install_command
from tuneyard.core.prompt.token_weights import read_weights, weights_file
from tuneyard.core.training.metrics import UNKNOWN, direction, metric_of
from tuneyard.core.training.training_stage import TRAINING_STAGES
from tuneyard.recipes.hardware import Gpu, Machine, is_set, world_size
from tuneyard.recipes.method_rules import learning_rate, packing, ppo, value_head
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.schema import known_keys, meant, setting_problems
from tuneyard.recipes.trainer_rules import trainer_problems

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
TRACKERS = ("wandb", "tensorboard", "swanlab", "mlflow", "trackio")  # report_to: packages of these names
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
AMPERE = 8  # the compute capability from which NVIDIA GPUs calculate in bfloat16
HOPPER = 9  # … from which all GPUs multiply in fp8
ADA = ("L4", "4090", "Ada")  # in names of GPUs of generation 8 that do, too
CHOOSE = "choose another output_dir"
KEPT = ("model_name_or_path", "adapter_name_or_path", "dataset_dir")


def problems_of(recipe: Recipe, machine: Machine) -> list[Problem]:
    """Every problem of a recipe's settings on a machine."""
    rules: list[Callable[[Recipe], Iterator[Problem]]] = [
        setting_problems, _missing, _model, _evaluation, _packages, _deepspeed, _paths, _output_dir, _weights,
        _best, learning_rate, packing, ppo, value_head, trainer_problems,
    ]  # fmt: skip
    problems: list[Problem] = []
    for rule in rules:
        problems += rule(recipe)
    problems += _hardware(recipe, machine.gpus)
    return problems


def _missing(recipe: Recipe) -> Iterator[Problem]:
    works = [key for key in ("do_train", "do_eval", "do_predict") if recipe.settings.get(key) is True]
    for key, meaning in REQUIRED.items():
        evaluates = key == "dataset" and works and "do_train" not in works
        misspelt = any(meant(other, [key]) for other in recipe.settings if other not in known_keys())
        if not recipe.names(key) and not evaluates and not misspelt:
            yield recipe.problem("E304", key, f"is missing, expected {meaning}")
    if not works and not recipe.settings.get("tokenized_path"):  # which is written without a training
        yield recipe.problem("E304", "do_train", "is not true, so nothing would be trained", "do_train: true")


def _model(recipe: Recipe) -> Iterator[Problem]:
    name = recipe.settings.get("model_name_or_path")
    if not isinstance(name, str) or not name:
        return
    folder, key = Path(name), "model_name_or_path"
    remote = HUB_ID.fullmatch(name) and not name.startswith((".", "~", "models/", "saves/"))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            yield recipe.problem("E306", key, f"{name} has no config.json: no model folder")
    elif folder.is_absolute():
        yield recipe.problem("E344", key, f"{name}: no such folder")
    elif not remote or folder.parent.is_dir():
        hint = "make it with `tuneyard recipe base`" if name == "models/demo-base" else ""
        yield recipe.problem("E306", key, f"{name}: no such folder, and no hub id (owner/name) either", hint)


def _evaluation(recipe: Recipe) -> Iterator[Problem]:
    settings = recipe.settings
    never = not evaluates(recipe) and not settings.get("do_eval") and not settings.get("do_predict")
    held_out = next((key for key in ("eval_dataset", "val_size") if settings.get(key)), "")
    if held_out and never:
        yield recipe.problem("W307", held_out, "is given but never evaluated", "eval_strategy: steps")


def _best(recipe: Recipe) -> Iterator[Problem]:
    """Refuse to keep the worst, and a figure that no evaluation computes: training ends at the first one."""
    key, computed = "metric_for_best_model", evaluated(recipe)
    name, highest = recipe.settings.get(key), recipe.settings.get("greater_is_better")
    by = str(name or "loss")
    if not isinstance(highest, bool):
        highest = not by.endswith("loss")  # what transformers takes
    kept = recipe.settings.get("load_best_model_at_end") is True and metric_of(by) is not UNKNOWN
    if kept and highest != metric_of(by).higher:
        message = f"is {str(highest).lower()}, which keeps the worst: {direction(by)}"
        hint = f"greater_is_better: {not highest}".lower()
        yield recipe.problem("E308", "greater_is_better", message, hint)
    if isinstance(name, str) and computed and f"eval_{name.removeprefix('eval_')}" not in computed:
        names = ", ".join(figure for figure in computed if not figure.endswith(TIMES))
        yield recipe.problem("E314", key, f"found {show_value(name)}, which no evaluation computes: {names}")


def evaluates(recipe: Recipe) -> bool:
    """True if a recipe evaluates while it trains."""
    return recipe.settings.get("eval_strategy", "no") not in ("no", False)


def evaluated(recipe: Recipe) -> list[str]:
    """Metrics that the evaluations of a training compute. [] if it makes none."""
    settings, stage = recipe.settings, str(recipe.settings.get("stage", "sft"))
    if not evaluates(recipe):
        return []
    computed = [*TIMES, "loss"]
    if stage in TRAINING_STAGES:
        computed += TRAINING_STAGES[stage].metrics
    if stage == "sft" and settings.get("predict_with_generate"):
        computed += GENERATED
    elif stage == "sft" and settings.get("compute_accuracy"):
        computed.append("accuracy")
    if settings.get("eval_on_each_dataset"):
        prefixes = [f"eval_{dataset}" for dataset in recipe.names("eval_dataset")]
    else:
        prefixes = ["eval"]
    metrics: list[str] = []
    for prefix in prefixes:
        metrics += [f"{prefix}_{name}" for name in computed]
    return metrics


def measured(recipe: Recipe) -> list[str]:
    """Metrics that a training writes in its evaluations and as it trains."""
    stage = str(recipe.settings.get("stage", "sft"))
    logged: Sequence[str] = ()
    if stage in TRAINING_STAGES:
        logged = TRAINING_STAGES[stage].logged
    return [*evaluated(recipe), "train_loss", "loss", "grad_norm", "learning_rate", *logged]


def _packages(recipe: Recipe) -> Iterator[Problem]:
    needed = [(key, name) for key, name in PACKAGES.items() if recipe.settings.get(key)]
    if "8bit" in str(recipe.settings.get("optim", "")):
        needed.append(("optim", "bitsandbytes"))
    needed += [("report_to", tool) for tool in TRACKERS if tool in recipe.names("report_to")]
    if recipe.settings.get("flash_attn") == "fa2" and find_spec("flash_attn") is None:
        message = "needs the package flash_attn, which is not installed: LLaMA-Factory trains without it"
        yield recipe.problem("W309", "flash_attn", message, install_command("flash-attn"))
    for key, package in needed:
        if find_spec(package) is None:
            hint = install_command(package.replace("_", "-"))
            yield recipe.problem("E309", key, f"needs the package {package}, which is not installed", hint)


def _deepspeed(recipe: Recipe) -> Iterator[Problem]:
    name, folder = recipe.settings.get("deepspeed"), "recipes/deepspeed"
    try:
        recipe.zero()
    except ContentError as error:
        yield recipe.problem("E310", "deepspeed", str(error))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        files = ", ".join(sorted(f"{folder}/{path.name}" for path in (ROOT / folder).glob("*.json")))
        yield recipe.problem("E310", "deepspeed", f"{name}: file not found", f"there are {files}")


def _paths(recipe: Recipe) -> Iterator[Problem]:
    """Refuse paths that LLaMA-Factory's launcher splits, and missing input files."""
    for key in ("output_dir", "resume_from_checkpoint"):
        value = recipe.settings.get(key)
        if isinstance(value, str) and len(value.split()) > 1:
            message = f"found {show_value(value)}: LLaMA-Factory's launcher splits its arguments at spaces"
            yield recipe.problem("E311", key, message, "choose a path without spaces")
        elif isinstance(value, str) and not value.isprintable():
            message = f"found {show_value(value)}, expected a path without control characters"
            yield recipe.problem("E311", key, message)
        elif isinstance(value, str) and "${" in value:
            message = f"found {show_value(value)}: LLaMA-Factory would make a folder of this name"
            yield recipe.problem("E311", key, message, "write the path itself")
    value = recipe.settings.get("resume_from_checkpoint")
    if isinstance(value, str) and not Path(value).is_dir():
        yield recipe.problem("E311", "resume_from_checkpoint", f"{value}: folder not found")
    for name in recipe.names("media_dir"):
        if not Path(name).expanduser().exists():
            yield recipe.problem("E344", "media_dir", f"{name}: no such file or folder")


def _output_dir(recipe: Recipe) -> Iterator[Problem]:
    """Refuse a folder that cannot be written, or has files that the run needs and a rename would move."""
    out = recipe.settings.get("output_dir")
    if not isinstance(out, str) or not out.strip() or not out.isprintable():
        return
    folder, there = recipe.output_dir.resolve(), existing(recipe.output_dir)
    if there.is_file():
        yield recipe.problem("E341", "output_dir", f"{there} is a file, expected a folder", CHOOSE)
        return
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        message = f"{there} is no folder that can be written to"
        yield recipe.problem("E343", "output_dir", message, CHOOSE)
        return
    needed = {"the current folder": Path(), "the recipe": recipe.path}
    for key in KEPT:
        for name in recipe.names(key):
            if name.isprintable():
                needed[key] = Path(name)
    for label, path in needed.items():
        if path.exists() and path.resolve().is_relative_to(folder):
            message = f"{recipe.output_dir} holds {label}, so it cannot be a run's own"
            yield recipe.problem("E341", "output_dir", message, CHOOSE)
            return


def _weights(recipe: Recipe) -> Iterator[Problem]:
    path = weights_file(recipe.path)
    if path is None:
        return
    try:
        read_weights(path)
    except ContentError as error:
        yield from problems_of_file(error, "E360", path)
    message = "plain `llamafactory-cli train` ignores these key-token weights"
    yield Problem("N362", str(path), message, hint="train with `tuneyard recipe train`")
    unweightable = [key for key in UNWEIGHTED if recipe.settings.get(key)]
    unweightable += ["stage"] * (recipe.settings.get("stage", "sft") != "sft") + ["USE_RAY"] * is_set(
        "USE_RAY"
    )
    if recipe.zero_stage() == 3:
        unweightable.append("deepspeed")
    for key in unweightable:
        message = f"does not go with key-token weights ({path}): not proved"
        hint = f"change it, or train without weights: llamafactory-cli train {recipe.path}"
        yield recipe.problem("E361", key, message, hint)


def _lacks_fp8(gpu: Gpu) -> bool:
    return gpu.generation < HOPPER and not any(mark in gpu.name for mark in ADA)


def _hardware(recipe: Recipe, gpus: Sequence[Gpu]) -> Iterator[Problem]:
    on_gpu = bool(gpus) and recipe.settings.get("use_cpu") is not True
    true = {key for key in ("bf16", "fp16", "pure_bf16") if recipe.settings.get(key) is True}
    if "pure_bf16" in true and not on_gpu:
        yield recipe.problem("E312", "pure_bf16", "never works without a GPU", "bf16: true")
    if "fp16" in true and not on_gpu:
        yield recipe.problem("E312", "fp16", "needs a GPU", "bf16: true works on CPUs")
    if {"bf16", "fp16"} <= true:
        yield recipe.problem("E312", "fp16", "and bf16 are both true: choose one")
    if "bf16" in true and on_gpu and any(gpu.generation < AMPERE for gpu in gpus):
        message = f"{gpus[0].name} has no bfloat16: PyTorch imitates it, many times slower"
        yield recipe.problem("W312", "bf16", message, "bf16=false fp16=true")
    if recipe.settings.get("fp8") and on_gpu and any(_lacks_fp8(gpu) for gpu in gpus):
        message = f"{gpus[0].name} has no fp8 matrix products in PyTorch: training stops at the first one"
        yield recipe.problem("W312", "fp8", message, "--for 4xH100 if it is to train there, or fp8: false")
    if recipe.settings.get("quantization_bit") and not on_gpu:
        message = "on CPU: works, but many times slower than without; meant for a GPU"
        yield recipe.problem("W312", "quantization_bit", message)
    if not on_gpu and world_size(recipe, gpus) > 1 and recipe.zero_stage() == 3:
        message = "ZeRO-3 on CPUs takes several processes for one when it loads the model: training stops"
        yield recipe.problem("E337", "deepspeed", message, "deepspeed=recipes/deepspeed/z2.json, or GPUs")
