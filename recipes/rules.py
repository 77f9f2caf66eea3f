"""What can be wrong with the settings of a recipe, found without importing LLaMA-Factory.

Each rule yields problems; E… stops a training, W… is worth a look. docs/recipes.md lists the codes.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from core.errors import ContentError, Problem, nearest, show_value
from core.files import read_object
from recipes.hardware import Gpu
from recipes.keys import known_keys, known_templates
from recipes.paths import path_problems
from recipes.ranges import range_problems
from recipes.recipe import Recipe
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
    "predict_with_generate": "rouge_chinese",
}
UNWEIGHTED = (
    "packing", "neat_packing", "use_dft_loss", "use_eaft_loss", "use_asft_loss", "label_smoothing_factor",
    "use_unsloth", "enable_liger_kernel", "predict_with_generate", "use_hyper_parallel",
)  # fmt: skip
LISTS = {  # LLaMA-Factory splits these texts at commas and takes lists as well
    "adapter_name_or_path", "additional_target", "apollo_target", "dataset", "eval_dataset",
    "freeze_extra_modules", "freeze_trainable_modules", "galore_target", "interleave_probs", "lora_target",
    "oft_target",
}  # fmt: skip
TRACKERS = {
    "all", "none", "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "mlflow",
    "neptune", "swanlab", "tensorboard", "trackio", "wandb",
}  # fmt: skip
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
KINDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text"}
AMPERE = 8  # the compute capability from which NVIDIA GPUs calculate in bfloat16


def problems_of(recipe: Recipe, gpus: Sequence[Gpu]) -> list[Problem]:
    """Return everything wrong with a recipe's settings on a machine with these GPUs."""
    rules: list[Callable[[Recipe], Iterator[Problem]]] = [
        _keys, _values, range_problems, _missing, _template, _model, _schedule, _packages, _deepspeed,
        path_problems, _weights,
    ]  # fmt: skip
    found = [problem for rule in rules for problem in rule(recipe)]
    return found + list(_hardware(recipe, gpus))


def _problem(recipe: Recipe, code: str, key: str, message: str, hint: str = "") -> Problem:
    return Problem(code, recipe.place(key), message, key, hint)


def _keys(recipe: Recipe) -> Iterator[Problem]:
    for key in (key for key in recipe.settings if key not in known_keys()):
        hint = nearest(key, known_keys()) or "LLaMA-Factory has no such setting"
        yield _problem(recipe, "E301", key, "unknown key", hint)


def _values(recipe: Recipe) -> Iterator[Problem]:
    for key, value in recipe.settings.items():
        about = known_keys().get(key, {})
        types, choices = about.get("types"), about.get("choices")
        if not isinstance(types, list) or value is None:
            continue
        if not _fits(value, types) and not (key in LISTS and isinstance(value, list)):
            no = value is False and isinstance(choices, list) and "no" in choices
            hint = 'YAML reads a bare no as false: write "no" in quotes' if no else ""
            wanted = " or ".join(KINDS.get(str(kind), str(kind)) for kind in types if kind != "null")
            yield _problem(recipe, "E302", key, f"found {show_value(value)}, expected {wanted}", hint)
        elif isinstance(choices, list) and isinstance(value, str) and value not in choices:
            shown = ", ".join(map(str, choices[:12])) + (", …" if len(choices) > 12 else "")
            message = f"found {show_value(value)}, expected one of {shown}"
            yield _problem(recipe, "E303", key, message, nearest(value, map(str, choices)))


def _fits(value: object, types: list[object]) -> bool:
    kind = {bool: "bool", int: "int", float: "float", str: "str", dict: "dict", list: "list"}.get(type(value))
    return kind in types or (kind == "int" and "float" in types) or "other" in types


def _missing(recipe: Recipe) -> Iterator[Problem]:
    for key, meaning in REQUIRED.items():
        if not recipe.names(key):
            yield _problem(recipe, "E304", key, f"is missing, expected {meaning}")
    if recipe.settings.get("do_train") is not True:
        yield _problem(
            recipe, "E304", "do_train", "is not true, so nothing would be trained", "do_train: true"
        )


def _template(recipe: Recipe) -> Iterator[Problem]:
    name = recipe.settings.get("template")
    if isinstance(name, str) and name not in known_templates():
        hint = nearest(name, known_templates())
        message = f"LLaMA-Factory has no template {show_value(name)}"
        yield _problem(recipe, "E305", "template", message, hint)


def _model(recipe: Recipe) -> Iterator[Problem]:
    name = recipe.settings.get("model_name_or_path")
    if not isinstance(name, str) or not name:
        return
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            yield _problem(
                recipe, "E306", "model_name_or_path", f"{name} has no config.json: no model folder"
            )
    elif (
        not HUB_ID.fullmatch(name)
        or name.startswith((".", "/", "~", "models/", "saves/"))
        or folder.parent.is_dir()
    ):
        hint = "make it with `python -m recipes base`" if name == "models/demo-base" else ""
        message = f"{name}: no such folder, and no hub id (owner/name) either"
        yield _problem(recipe, "E306", "model_name_or_path", message, hint)


def _schedule(recipe: Recipe) -> Iterator[Problem]:
    settings = recipe.settings
    evaluates = settings.get("eval_strategy", "no") not in ("no", False)
    has_rows = settings.get("eval_dataset") or settings.get("val_size")
    if evaluates and not has_rows:
        message = f"is {settings['eval_strategy']}, but there is nothing to evaluate"
        yield _problem(recipe, "E307", "eval_strategy", message, "name an eval_dataset, or give val_size")
    if has_rows and not evaluates and not settings.get("do_eval"):
        key = "eval_dataset" if settings.get("eval_dataset") else "val_size"
        yield _problem(recipe, "W307", key, "is given but never evaluated", "eval_strategy: steps")
    if settings.get("load_best_model_at_end") is True:
        yield from _best_at_end(recipe)


def _best_at_end(recipe: Recipe) -> Iterator[Problem]:
    settings = recipe.settings
    saves, evaluates = settings.get("save_strategy", "steps"), settings.get("eval_strategy", "no")
    key = "load_best_model_at_end"
    if saves != evaluates and saves != "best":
        message = f"needs equal strategies, found save_strategy {saves} and eval_strategy {evaluates}"
        yield _problem(recipe, "E308", key, message)
    every, judged = (
        settings.get("save_steps", 500),
        settings.get("eval_steps") or settings.get("logging_steps", 500),
    )
    if saves == "steps" and isinstance(every, int) and isinstance(judged, int) and judged and every % judged:
        message = f"needs save_steps to be a multiple of eval_steps, found {every} and {judged}"
        yield _problem(recipe, "E308", key, message)


def _packages(recipe: Recipe) -> Iterator[Problem]:
    wanted = {key: name for key, name in PACKAGES.items() if recipe.settings.get(key)}
    if "8bit" in str(recipe.settings.get("optim", "")):
        wanted["optim"] = "bitsandbytes"
    for tool in recipe.names("report_to"):
        if tool not in TRACKERS:
            message = f"found {show_value(tool)}, expected none, wandb, tensorboard or another tracker"
            yield _problem(recipe, "E303", "report_to", message, nearest(tool, TRACKERS))
        if tool in {"wandb", "tensorboard", "swanlab", "mlflow", "trackio"}:
            wanted["report_to"] = tool
    for key, package in wanted.items():
        if find_spec(package) is None:
            hint = f"pip install {package.replace('_', '-')}"
            yield _problem(recipe, "E309", key, f"needs the package {package}, which is not installed", hint)


def _deepspeed(recipe: Recipe) -> Iterator[Problem]:
    name = recipe.settings.get("deepspeed")
    if not isinstance(name, str):
        return
    if not Path(name).is_file():
        known = ", ".join(sorted(str(path) for path in Path("recipes/deepspeed").glob("*.json")))
        yield _problem(recipe, "E310", "deepspeed", f"{name}: file not found", f"there are {known}")
        return
    try:
        zero = read_object(Path(name)).get("zero_optimization", {})
    except ContentError as error:
        yield _problem(recipe, "E310", "deepspeed", str(error))
        return
    stage = zero.get("stage", 0) if isinstance(zero, dict) else zero
    if stage not in (0, 1, 2, 3):
        message = f"{name}: zero_optimization: found stage {show_value(stage)}, expected 0, 1, 2 or 3"
        yield _problem(recipe, "E310", "deepspeed", message)


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
    if os.environ.get("USE_RAY", "0").lower() in {"1", "true", "y"}:
        refused.append("USE_RAY")
    if _zero_stage(settings.get("deepspeed")) == 3:
        refused.append("deepspeed")
    for key in refused:
        message = f"does not go with key-token weights ({path}): not proved"
        hint = f"change it, or train without weights: llamafactory-cli train {recipe.path}"
        yield _problem(recipe, "E361", key, message, hint)


def _zero_stage(name: object) -> object:
    try:
        zero = read_object(Path(str(name))).get("zero_optimization")
    except (ContentError, OSError):
        return None
    return zero.get("stage") if isinstance(zero, dict) else None


def uses_torchrun(recipe: Recipe, gpus: Sequence[Gpu]) -> bool:
    """Return whether LLaMA-Factory trains this recipe under torchrun: DeepSpeed, several GPUs, forced."""
    forced = os.environ.get("FORCE_TORCHRUN", "0").lower() in {"1", "true", "y"}
    ray = os.environ.get("USE_RAY", "0").lower() in {"1", "true", "y"}
    return not ray and (forced or bool(recipe.settings.get("deepspeed")) or len(gpus) > 1)


def _hardware(recipe: Recipe, gpus: Sequence[Gpu]) -> Iterator[Problem]:
    settings = recipe.settings
    on_gpu = bool(gpus) and settings.get("use_cpu") is not True
    if settings.get("pure_bf16") is True and not on_gpu:
        yield _problem(recipe, "E312", "pure_bf16", "never works without a GPU", "bf16: true")
    if settings.get("fp16") is True and not on_gpu:
        yield _problem(recipe, "E312", "fp16", "needs a GPU, there is none here", "bf16: true works on CPUs")
    if settings.get("bf16") is True and settings.get("fp16") is True:
        yield _problem(recipe, "E312", "fp16", "and bf16 are both true: choose one")
    if settings.get("bf16") is True and on_gpu and any(gpu.generation < AMPERE for gpu in gpus):
        hint = "bf16=false fp16=true"
        yield _problem(recipe, "E312", "bf16", f"{gpus[0].name} has no bfloat16", hint)
    if settings.get("quantization_bit") and not on_gpu:
        message = "on CPU: works, but many times slower than without; meant for a GPU"
        yield _problem(recipe, "W312", "quantization_bit", message)


def world_size(recipe: Recipe, gpus: Sequence[Gpu]) -> int:
    """Return over how many processes a training here would spread (NNODES and NPROC_PER_NODE count)."""
    here = len(gpus) if gpus and recipe.settings.get("use_cpu") is not True else 1
    nodes, processes = os.environ.get("NNODES", "1"), os.environ.get("NPROC_PER_NODE", str(here))
    return max(1, int(nodes) if nodes.isdigit() else 1) * max(1, int(processes) if processes.isdigit() else 1)
