"""Rules on the settings of a recipe that need no LLaMA-Factory. Codes and sources: docs/recipes.md.

What the trainer stops at or ignores was read in LLaMA-Factory 0.9.5 and transformers 5.6."""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from tuneyard.core.errors import ContentError, Problem, nearest, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import HUB_ID, existing, near_name
from tuneyard.core.installation.packages import install_command
from tuneyard.core.language.message import _, joined, marked, message_of
from tuneyard.core.llamafactory.prompt.token_weights import read_weights, weights_file
from tuneyard.core.llamafactory.stages import (
    TRAINING_STAGES,
    UNKNOWN_STAGE,
    WITHOUT_REFERENCE,
)
from tuneyard.core.text.quoting import shell
from tuneyard.core.text.secrets import VARIABLES
from tuneyard.core.training.metrics import UNKNOWN, metric_of
from tuneyard.recipes.machine.hardware import Gpu, Machine, cpu_computes_bf16, is_set, world_size
from tuneyard.recipes.recipe import (
    JSON_SETTINGS,
    MISSING_PACKAGE,
    MISSING_PATH,
    NOT_WRITABLE,
    SKIPPED_PACKAGE,
    MachineProblem,
    Recipe,
    RunProblem,
    expanded,
)
from tuneyard.recipes.recipe.data import NEVER_EVALUATED
from tuneyard.recipes.recipe.deepspeed_file import (
    NO_EFFECT,
    WRONG_SETTINGS_FILE,
    deepspeed_replaces,
    deepspeed_values,
)
from tuneyard.recipes.recipe.schedule import STOPS_LATE
from tuneyard.recipes.recipe.schema import UNKNOWN_CHOICE, known_keys, meant, setting_problems
from tuneyard.recipes.rules.stage_rules import learning_rate, packing, ppo, value_head

MISSING_KEY = ProblemCode("E304", _("a required key is missing"), _("Add it to the recipe."))
INCOMPLETE_MODEL = ProblemCode(
    "E306",
    _("an incomplete model folder"),
    _("Name a folder with a config.json, or download the missing files again."),
)
KEEPS_THE_WORST = ProblemCode(
    "E308",
    _("`load_best_model_at_end` would keep the worst checkpoint"),
    _("Set `greater_is_better` as the metric needs it."),
)
WRONG_PATH = ProblemCode("E311", _("a path that is missing, or has a space"), _("Correct the path."))
WRONG_PRECISION = ProblemCode(
    "E312", _("a precision that the target lacks"), _("Take the precision in the message.")
)
SLOW_PRECISION = ProblemCode(
    "W312", _("a precision that the target only imitates"), _("Take the precision in the message.")
)
BF16_ON_CPU = ProblemCode(
    "N312",
    _("what `bf16: true` needs on a CPU"),
    _("Train with `tuneyard recipe train`, which adds these settings."),
)
METRIC_NOT_COMPUTED = ProblemCode(
    "E314",
    _("a metric that no evaluation computes"),
    _("Take `eval_loss`, or switch on the evaluation that computes it."),
)
TOKENS_REPLACE_DATA = ProblemCode(
    "N338",
    _("tokens in `tokenized_path` replace dataset and template"),
    _("Name another folder after a change of these."),
)
OUTPUT_IS_INPUT = ProblemCode(
    "E341", _("an `output_dir` that holds the model, the data or the recipe"), _("Name another `output_dir`.")
)
WRONG_WEIGHTS = ProblemCode("E360", _("key-token weights that are wrong"), _("Correct the file."))
UNWEIGHTABLE = ProblemCode(
    "E361",
    _("a setting that does not go with key-token weights"),
    _("Leave the setting out, or train without weights."),
)
IGNORED_WEIGHTS = ProblemCode(
    "N362",
    _("key-token weights that plain `llamafactory-cli train` ignores"),
    _("Train with `tuneyard recipe train`."),
)
SECRET_IN_RECIPE = ProblemCode(
    "W364",
    _("a token in the recipe"),
    _("Take it out, and set the environment variable."),
    _("The training would write it into its files."),
)


REQUIRED = {
    "model_name_or_path": _("the model to train (a hub id or a folder)"),
    "output_dir": _("the folder to write, e.g. saves/NAME"),
    "dataset": _("the dataset to train on"),
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
AMPERE = 8  # the compute capability from which NVIDIA GPUs calculate in bfloat16
HOPPER = 9  # … from which all GPUs multiply in fp8
ADA = ("L4", "4090", "Ada")  # in names of GPUs of generation 8 that do, too
CHOOSE = _("choose another output_dir")
OR = _(" or ")
KEPT = ("model_name_or_path", "adapter_name_or_path", "dataset_dir")
"""The first and the last version of trl that LLaMA-Factory 0.9.5 takes for PPO (train/ppo/trainer.py)."""
# Schedulers with an argument that transformers needs and does not set, in lr_scheduler_kwargs.
SCHEDULERS = {
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps",),
}
"""Settings that are objects or files of objects."""
FSDP_OPTIONS = (
    "full_shard", "shard_grad_op", "no_shard", "hybrid_shard", "hybrid_shard_zero2", "offload", "auto_wrap",
)  # fmt: skip


def problems_of(recipe: Recipe, machine: Machine) -> list[Problem]:
    """Every problem of a recipe's settings on a machine."""
    rules = [
        setting_problems, _missing, _model, _evaluation, _packages, _deepspeed, _fsdp, _paths, _output_dir,
        _weights, _best, learning_rate, packing, ppo, value_head, _stops, deepspeed_values,
        deepspeed_replaces, _tokens, _no_effect, _secrets,
    ]  # fmt: skip
    problems: list[Problem] = []
    for rule in rules:
        problems += rule(recipe)
    problems += _hardware(recipe, machine.gpus)
    problems += _without_gpu(recipe, machine)
    return problems


def _missing(recipe: Recipe) -> Iterator[Problem]:
    works = [key for key in ("do_train", "do_eval", "do_predict") if recipe.settings.get(key) is True]
    for key, meaning in REQUIRED.items():
        evaluates = key == "dataset" and works and "do_train" not in works
        misspelt = any(meant(other, [key]) for other in recipe.settings if other not in known_keys())
        if not recipe.names(key) and not evaluates and not misspelt:
            yield recipe.setting_problem(
                MISSING_KEY, key, _("is missing, expected {meaning}", meaning=meaning)
            )
    if not works and not recipe.settings.get("tokenized_path"):  # which is written without a training
        yield recipe.setting_problem(
            MISSING_KEY, "do_train", _("is not true, so nothing would be trained"), "do_train: true"
        )


def _secrets(recipe: Recipe) -> Iterator[Problem]:
    """Yield the settings that hold secrets: LLaMA-Factory alone copies them into the files of a training."""
    for key in recipe.secrets:
        place = f"{recipe.path}:{recipe.lines[key]}" if key in recipe.lines else f"{recipe.path} (override)"
        variable = VARIABLES.get(key)
        message = _(
            "a secret, which a training copies into its files: `tuneyard recipe train` writes it nowhere"
        )
        hint = _("take it out, and log in with the service's own program: the training does not get it")
        if key == "om_hub_token":  # LLaMA-Factory reads it from the recipe alone, to load a dataset
            hint = _("take it out, download the dataset, and register its file: the training does not get it")
        if variable:
            message = _(
                "a secret, which a training copies into its files: `tuneyard recipe train` writes it "
                "nowhere, and hands it to the training as {variable}",
                variable=variable,
            )
            hint = _("take it out, and set it in the environment: export {variable}=…", variable=variable)
        yield Problem(SECRET_IN_RECIPE, place, message, key, hint)


def _model(recipe: Recipe) -> Iterator[Problem]:
    name = recipe.settings.get("model_name_or_path")
    if not isinstance(name, str) or not name:
        return
    folder, key = Path(name), "model_name_or_path"
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            yield recipe.setting_problem(
                INCOMPLETE_MODEL,
                key,
                _(
                    "{name} has no config.json: no model folder; name that of a whole model (for "
                    "an adapter its base here, and itself as adapter_name_or_path)",
                    name=name,
                ),
            )
    elif folder.is_absolute():
        yield recipe.problem(MISSING_PATH, key, _("{path}: no such folder", path=name), kind=MachineProblem)
    elif means_folder(name):
        hint = _("make it with `tuneyard recipe base`") if name == "models/demo-base" else near_name(folder)
        yield recipe.setting_problem(
            INCOMPLETE_MODEL,
            key,
            _("{name}: no such folder, and no hub id (owner/name) either", name=name),
            hint,
        )


def means_folder(name: str) -> bool:
    """True if a name of a model or adapter means a folder of this machine, and not the hub's `owner/name`."""
    is_hub_id = HUB_ID.fullmatch(name) and not name.startswith(("models/", "saves/"))
    return not is_hub_id or Path(name).parent.is_dir()


def _evaluation(recipe: Recipe) -> Iterator[Problem]:
    settings = recipe.settings
    never = not evaluates(recipe) and not settings.get("do_eval") and not settings.get("do_predict")
    keys = ("eval_dataset", "val_size", "load_best_model_at_end", "eval_steps")
    given = next((key for key in keys if settings.get(key)), "")
    if given and never:
        yield recipe.problem(
            NEVER_EVALUATED, given, _("is given, but nothing is evaluated"), "eval_strategy: steps"
        )


def _best(recipe: Recipe) -> Iterator[Problem]:
    """Refuse to keep the worst, and a figure that no evaluation computes: training ends at the first one."""
    key, computed = "metric_for_best_model", evaluated(recipe)
    name, highest = recipe.settings.get(key), recipe.settings.get("greater_is_better")
    by = str(name or "loss")
    if not isinstance(highest, bool):
        highest = not by.endswith("loss")  # what transformers takes
    kept = recipe.settings.get("load_best_model_at_end") is True and metric_of(by) is not UNKNOWN
    if kept and highest != metric_of(by).higher:
        template = marked("is true, which keeps the worst: {metric} ({unit}, lower is better)")
        if metric_of(by).higher:
            template = marked("is false, which keeps the worst: {metric} ({unit}, higher is better)")
        message = _(template, metric=by, unit=metric_of(by).unit)
        hint = f"greater_is_better: {not highest}".lower()
        yield recipe.setting_problem(KEEPS_THE_WORST, "greater_is_better", message, hint)
    if isinstance(name, str) and computed and f"eval_{name.removeprefix('eval_')}" not in computed:
        names = joined(figure for figure in computed if not figure.endswith(TIMES))
        yield recipe.setting_problem(
            METRIC_NOT_COMPUTED,
            key,
            _("found {name}, which no evaluation computes: {names}", name=show_value(name), names=names),
        )


def evaluates(recipe: Recipe) -> bool:
    """True if a recipe evaluates while it trains."""
    return recipe.settings.get("eval_strategy", "no") not in ("no", False)


def evaluated(recipe: Recipe) -> list[str]:
    """Metrics that the evaluations of a training compute. [] if it makes none."""
    settings, stage = recipe.settings, recipe.stage
    if not evaluates(recipe):
        return []
    computed = [*TIMES, "loss"]
    computed += TRAINING_STAGES.get(stage, UNKNOWN_STAGE).metrics
    if stage == "sft" and settings.get("predict_with_generate"):
        computed += GENERATED
    elif stage == "sft" and settings.get("compute_accuracy"):
        computed.append("accuracy")
    if settings.get("eval_on_each_dataset"):
        prefixes = [f"eval_{dataset}" for dataset in recipe.names("eval_dataset")]
    else:
        prefixes = ["eval"]
    return [f"{prefix}_{name}" for prefix in prefixes for name in computed]


def measured(recipe: Recipe) -> list[str]:
    """Metrics that a training writes in its evaluations and as it trains."""
    logged = TRAINING_STAGES.get(recipe.stage, UNKNOWN_STAGE).logged
    return [*evaluated(recipe), "train_loss", "loss", "grad_norm", "learning_rate", *logged]


def _packages(recipe: Recipe) -> Iterator[Problem]:
    needed = [(key, name) for key, name in PACKAGES.items() if recipe.settings.get(key)]
    if "8bit" in str(recipe.settings.get("optim", "")):
        needed.append(("optim", "bitsandbytes"))
    needed += [("report_to", tool) for tool in TRACKERS if tool in recipe.names("report_to")]
    if recipe.settings.get("flash_attn") == "fa2" and find_spec("flash_attn") is None:
        message = _("needs the package flash_attn, which is not installed: LLaMA-Factory trains without it")
        yield recipe.problem(
            SKIPPED_PACKAGE, "flash_attn", message, install_command("flash-attn"), kind=MachineProblem
        )
    for key, package in needed:
        if find_spec(package) is None:
            hint = install_command(package.replace("_", "-"))
            yield recipe.problem(
                MISSING_PACKAGE,
                key,
                _("needs the package {package}, which is not installed", package=package),
                hint,
                kind=MachineProblem,
            )


def _deepspeed(recipe: Recipe) -> Iterator[Problem]:
    """E310 for the files of JSON objects that are missing, or that transformers cannot read."""
    for key in JSON_SETTINGS:
        name = str(recipe.settings.get(key))
        try:
            recipe.json_setting(key)
            if key == "deepspeed":
                recipe.zero()
        except ContentError as error:
            yield recipe.setting_problem(WRONG_SETTINGS_FILE, key, message_of(error))
        except OSError:
            hint = near_name(Path(name))
            if key == "deepspeed":
                hint = _("{near}; recipes/deepspeed/z3.json and others are bundled", near=hint)
            yield recipe.setting_problem(
                WRONG_SETTINGS_FILE, key, _("{path}: file not found", path=name), hint
            )


def _fsdp(recipe: Recipe) -> Iterator[Problem]:
    """Refuse what transformers refuses in `fsdp` (`TrainingArguments._process_fsdp_args`)."""
    value = recipe.settings.get("fsdp")
    options = value.split() if isinstance(value, str) else value
    if not isinstance(options, list):
        return
    unknown = [option for option in options if option not in FSDP_OPTIONS]
    if unknown:
        message = _(
            "found {value}, expected some of {options}",
            value=show_value(unknown[0]),
            options=joined(FSDP_OPTIONS),
        )
        hint = nearest(str(unknown[0]), FSDP_OPTIONS)
        if "," in str(unknown[0]):
            hint = _("separate them by spaces")
        yield recipe.setting_problem(UNKNOWN_CHOICE, "fsdp", message, hint)
    elif set(options) == {"offload"}:
        message = _("offload works only next to full_shard or shard_grad_op")
        yield recipe.setting_problem(UNKNOWN_CHOICE, "fsdp", message, "fsdp: full_shard offload")
    elif {"full_shard", "shard_grad_op"} <= set(options):
        yield recipe.setting_problem(UNKNOWN_CHOICE, "fsdp", _("full_shard and shard_grad_op: choose one"))


def _paths(recipe: Recipe) -> Iterator[Problem]:
    """Refuse paths that LLaMA-Factory's launcher splits, and missing input files."""
    for key in ("output_dir", "resume_from_checkpoint"):
        value = recipe.settings.get(key)
        if isinstance(value, str) and (len(value.split()) > 1 or "${" in value or not value.isprintable()):
            message = _(
                "found {value}, expected no spaces, control characters or ${{…}}", value=show_value(value)
            )
            hint: str = _(
                "LLaMA-Factory's launcher splits its arguments at spaces, and fills in no "
                "variables: write the path itself"
            )
            yield recipe.setting_problem(WRONG_PATH, key, message, hint)
    value = recipe.settings.get("resume_from_checkpoint")
    if isinstance(value, str) and not Path(value).is_dir():
        hint = near_name(Path(value))
        yield recipe.setting_problem(
            WRONG_PATH, "resume_from_checkpoint", _("{path}: folder not found", path=value), hint
        )
    for name in recipe.names("media_dir"):
        if not expanded(name).exists():
            yield recipe.problem(
                MISSING_PATH, "media_dir", _("{path}: no such file or folder", path=name), kind=MachineProblem
            )


def _output_dir(recipe: Recipe) -> Iterator[Problem]:
    """Refuse a folder that cannot be written, or has files that the run needs and a rename would move."""
    out = recipe.settings.get("output_dir")
    if not isinstance(out, str) or not out.strip() or not out.isprintable():
        return
    folder, there = recipe.output_dir.resolve(), existing(recipe.output_dir)
    if there.is_file():
        yield recipe.problem(
            OUTPUT_IS_INPUT, "output_dir", _("{path} is a file, expected a folder", path=there), CHOOSE
        )
        return
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        message = _("{path} is no folder that can be written to", path=there)
        yield recipe.problem(NOT_WRITABLE, "output_dir", message, CHOOSE, kind=MachineProblem)
        return
    needed: dict[str, Path] = {_("the current folder"): Path(), _("the recipe"): recipe.path}
    for key in KEPT:
        for name in recipe.names(key):
            if name.isprintable():
                needed[key] = Path(name)
    for label, path in needed.items():
        if path.exists() and path.resolve().is_relative_to(folder):
            message = _(
                "{path} holds {needed}, so it cannot be a run's own",
                path=recipe.output_dir,
                needed=label,
            )
            yield recipe.problem(OUTPUT_IS_INPUT, "output_dir", message, CHOOSE)
            return


def _weights(recipe: Recipe) -> Iterator[Problem]:
    path = weights_file(recipe.path)
    if path is None:
        return
    try:
        read_weights(path)
    except ContentError as error:
        for line in str(error).splitlines():
            place, _colon, message = line.partition(": ")
            yield Problem(WRONG_WEIGHTS, place, message)
    message = _("plain `llamafactory-cli train` ignores these key-token weights")
    yield RunProblem(IGNORED_WEIGHTS, str(path), message, hint=_("train with `tuneyard recipe train`"))
    unweightable = [key for key in UNWEIGHTED if recipe.settings.get(key)]
    unweightable += ["stage"] * (recipe.stage != "sft") + ["USE_RAY"] * is_set("USE_RAY")
    for key in unweightable:
        message = _("does not go with key-token weights ({path}): not proved", path=path)
        hint = _(
            "change it, or train without weights: llamafactory-cli train {recipe}",
            recipe=shell(recipe.path),
        )
        yield recipe.problem(UNWEIGHTABLE, key, message, hint)


def _hardware(recipe: Recipe, gpus: Sequence[Gpu]) -> Iterator[Problem]:
    on_gpu = bool(gpus) and recipe.settings.get("use_cpu") is not True
    true = {key for key in ("bf16", "fp16", "pure_bf16") if recipe.settings.get(key) is True}
    if "pure_bf16" in true and not on_gpu:
        yield recipe.setting_problem(
            WRONG_PRECISION, "pure_bf16", _("never works without a GPU"), "bf16: true"
        )
    if "fp16" in true and not on_gpu:
        yield recipe.setting_problem(WRONG_PRECISION, "fp16", _("needs a GPU"), _("bf16: true works on CPUs"))
    if {"bf16", "fp16"} <= true:
        yield recipe.setting_problem(WRONG_PRECISION, "fp16", _("and bf16 are both true: choose one"))
    if "bf16" in true and on_gpu and any(gpu.generation < AMPERE for gpu in gpus):
        message = _("{name} has no bfloat16: PyTorch imitates it, many times slower", name=gpus[0].name)
        yield recipe.problem(SLOW_PRECISION, "bf16", message, "bf16=false fp16=true")
    without_fp8 = [gpu for gpu in gpus if gpu.generation < HOPPER and not any(map(gpu.name.count, ADA))]
    if recipe.settings.get("fp8") and on_gpu and without_fp8:
        message = _(
            "{name} has no fp8 matrix products in PyTorch: training stops at the first one", name=gpus[0].name
        )
        yield recipe.problem(
            SLOW_PRECISION, "fp8", message, _("--for 4xH100 if it is to train there, or fp8: false")
        )
    if recipe.settings.get("quantization_bit") and not on_gpu:
        message = _("on CPU: works, but many times slower than without; meant for a GPU")
        yield recipe.problem(SLOW_PRECISION, "quantization_bit", message)
    if not on_gpu and world_size(recipe, gpus) > 1 and recipe.zero_stage() == 3:
        message = _("ZeRO-3 on CPUs takes several processes for one when it loads the model: training stops")
        yield recipe.problem(
            STOPS_LATE, "deepspeed", message, _("deepspeed=recipes/deepspeed/z2.json, or GPUs")
        )


def _without_gpu(recipe: Recipe, machine: Machine) -> Iterator[Problem]:
    """Say what bf16 needs without a GPU: LLaMA-Factory stops there unless use_cpu is true.

    `recipe train` adds the settings itself (`cpu_settings`).
    """
    if machine.gpus or recipe.settings.get("bf16") is not True:
        return
    if recipe.settings.get("use_cpu") is False:
        message = _("without a GPU LLaMA-Factory stops at it, and use_cpu is false")
        yield recipe.setting_problem(WRONG_PRECISION, "bf16", message, "use_cpu: true")
        return
    missing = cpu_settings(recipe, computes_bf16=not machine.here or cpu_computes_bf16())
    if not missing:
        return
    settings = " ".join(f"{key}={str(value).lower()}" for key, value in missing.items())
    if "use_cpu" in missing:
        message = _("without a GPU `llamafactory-cli train` stops at it")
    else:
        message = _("this CPU has no bfloat16 arithmetic: training takes many times longer")
    hint = _(
        "`tuneyard recipe train` adds {settings}; for llamafactory-cli add it to the command",
        settings=settings,
    )
    yield recipe.problem(BF16_ON_CPU, "bf16", message, hint, RunProblem)


def cpu_settings(recipe: Recipe, *, computes_bf16: bool) -> dict[str, object]:
    """The settings that a recipe lacks to train on a CPU, which may have bfloat16 arithmetic."""
    missing: dict[str, object] = {}
    if "use_cpu" not in recipe.settings:
        missing["use_cpu"] = True
    if recipe.settings.get("bf16") is True and not computes_bf16:
        missing["bf16"] = False
    return missing


def _stops(recipe: Recipe) -> Iterator[Problem]:
    """Refuse settings at which the trainer stops once the model is loaded."""
    settings = recipe.settings
    if not recipe.trains:
        return
    keeps_best = settings.get("load_best_model_at_end") is True
    metric = settings.get("metric_for_best_model") or keeps_best
    if settings.get("early_stopping_steps") and not metric:
        message = _("needs a metric and evaluations: training stops when it begins")
        yield recipe.problem(STOPS_LATE, "early_stopping_steps", message, "load_best_model_at_end: true")
    shards = settings.get("deepspeed") or settings.get("fsdp")
    if settings.get("deepspeed") and settings.get("fsdp"):
        message = _("and deepspeed exclude each other: training stops once the model is loaded")
        yield recipe.problem(STOPS_LATE, "fsdp", message, _("choose one"))
    elif settings.get("save_only_model") and keeps_best and shards:
        message = _("leaves DeepSpeed and FSDP nothing to load the best checkpoint from")
        yield recipe.problem(STOPS_LATE, "save_only_model", message, "save_only_model: false")
    scheduler = settings.get("lr_scheduler_type")
    needed = SCHEDULERS.get(str(scheduler), ())
    arguments = settings.get("lr_scheduler_kwargs")
    named = arguments if isinstance(arguments, dict | str) else ()
    if needed and not any(name in named for name in needed):
        message = _(
            "{scheduler} needs {arguments}: training stops once the model is loaded",
            scheduler=scheduler,
            arguments=joined(needed, OR),
        )
        yield recipe.problem(
            STOPS_LATE, "lr_scheduler_type", message, f"lr_scheduler_kwargs: {{{needed[0]}: …}}"
        )


def _tokens(recipe: Recipe) -> Iterator[Problem]:
    """Note that tokens at `tokenized_path` replace the data."""
    folder = recipe.settings.get("tokenized_path")
    if not isinstance(folder, str) or not folder:
        return
    path = Path(folder)
    if path.is_dir() and any(path.iterdir()):
        message = _(
            "{folder} has tokens already: dataset, template and cutoff_len are not read", folder=folder
        )
        yield recipe.problem(
            TOKENS_REPLACE_DATA, "tokenized_path", message, _("name another folder after a change of these")
        )


def _no_effect(recipe: Recipe) -> Iterator[Problem]:
    """Warn about settings that are ignored."""
    settings, stage = recipe.settings, recipe.stage
    if settings.get("packing") and stage in ("rm", "dpo", "kto"):
        message = _("has no effect in stage {stage}: only pt and sft pack", stage=stage)
        yield recipe.problem(NO_EFFECT, "packing", message, _("leave it out"))
    loss = settings.get("pref_loss")
    if settings.get("ref_model") and stage == "dpo" and loss in WITHOUT_REFERENCE:
        yield recipe.problem(
            NO_EFFECT, "ref_model", _("has no effect: {loss} has no reference", loss=loss), _("leave it out")
        )
    checkpoints, disables = "gradient_checkpointing", "disable_gradient_checkpointing"
    if recipe.trains and settings.get(checkpoints) is False and settings.get(disables) is not True:
        message = _("false has no effect: LLaMA-Factory switches it on")
        yield recipe.problem(NO_EFFECT, checkpoints, message, f"{disables}: true")
    if recipe.trains and settings.get(checkpoints) is True and settings.get(disables) is True:
        message = _("true has no effect: {key}: true switches it on again", key=checkpoints)
        yield recipe.problem(NO_EFFECT, disables, message, _("leave out {key}", key=checkpoints))
    if settings.get("remove_unused_columns") is True:
        message = _("true has no effect: LLaMA-Factory sets it to false")
        yield recipe.problem(NO_EFFECT, "remove_unused_columns", message, _("leave it out"))
    for key in ("dataset", "eval_dataset"):
        names = recipe.names(key)
        repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if repeated:
            message = _("{names} is listed twice: LLaMA-Factory takes it once", names=joined(repeated))
            yield recipe.problem(
                NO_EFFECT, key, message, _('for more weight, "num_samples" in its registry entry')
            )
