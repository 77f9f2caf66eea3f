"""A checkpoint that a recipe names as `resume_from_checkpoint`, and what a training makes of it.

transformers 5.6 takes the steps of saving, evaluating and logging, the position in the data, the optimizer
and the scheduler from the checkpoint (`Trainer._init_training_state`, `_load_optimizer_and_scheduler`).
tests/integration/test_resume_explicit.py trains each case.
"""

import math
import pickletools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.documents import is_number
from tuneyard.core.errors import ContentError, Problem, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import read_object
from tuneyard.core.language.message import _, joined, marked
from tuneyard.core.training.training_run import checkpoint_folders
from tuneyard.recipes.output_dir.checkpoints import find_flaw, missing_state
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.schedule import Schedule
from tuneyard.recipes.rules.starting_weights import RESIZING

CANNOT_RESUME = ProblemCode(
    "E347",
    _("a checkpoint that cannot be resumed, or has no step left"),
    _("Change the setting in the message, or name another checkpoint."),
)
KEPT_BY_CHECKPOINT = ProblemCode(
    "W347",
    _("a setting of which resuming takes the checkpoint's value"),
    _("Write the checkpoint's value, or leave `resume_from_checkpoint` out."),
)


KEY = "resume_from_checkpoint"
LEAVE_OUT = _("leave out {key}", key=KEY)
ADAPTER_CONFIG = "adapter_config.json"
ADAPTERS = {"lora": "LORA", "oft": "OFT"}
"""PEFT's name of the adapter that a `finetuning_type` trains."""
LORA_RANK = 8
"""LLaMA-Factory's default of lora_rank; that of lora_alpha is twice the rank."""
# Settings that count steps, with the setting that decides whether they count, and its value then.
COUNTED = {
    "save_steps": ("save_strategy", "steps"),
    "eval_steps": ("eval_strategy", "no"),
    "logging_steps": ("logging_strategy", "steps"),
}
# Parts of the names of optimizers, and a setting that such an optimizer has for each group of parameters.
OPTIMIZER_KEYS = {"adamw": "betas", "sgd": "momentum", "adafactor": "beta1"}
# Settings whose value a resumed training takes from the optimizer's state: the key there, and the position.
KEPT_BY_OPTIMIZER = {
    "weight_decay": ("weight_decay", 0),
    "adam_beta1": ("betas", 0),
    "adam_beta2": ("betas", 1),
    "adam_epsilon": ("eps", 0),
}
PLAIN_GROUPS, LORAPLUS_GROUPS = 2, 4
"""Groups of parameters: with and without weight decay; LoRA+ has A, B and embeddings apart."""
OTHER_OPTIMIZERS = ("use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon")
LARGEST_STATE = 1 << 20  # bytes of a scheduler's state that are read


def why_not_resumed(recipe: Recipe) -> str:
    """Reason why LLaMA-Factory 0.9.5 cannot resume a training from its checkpoints, "" if it can."""
    if recipe.stage in ("rm", "ppo"):
        return _("LLaMA-Factory cannot load a checkpoint with a value head")
    if recipe.settings.get("pissa_convert") is True:
        # it saves the start of the conversion after it has loaded the checkpoint
        return _("pissa_convert would convert only the steps after the checkpoint")
    return ""


def resume_problems(recipe: Recipe, schedule: Schedule, world_size: int | None) -> Iterator[Problem]:
    """Yield why a named checkpoint cannot be resumed (E347), and what the training takes from it (W347).

    `world_size` is None if the training runs on another machine.
    """
    value = recipe.settings.get(KEY)
    if not recipe.trains or not value:
        return
    reason = why_not_resumed(recipe)
    if reason:
        yield recipe.problem(
            CANNOT_RESUME, KEY, _("{reason}: training stops, or begins again", reason=reason), LEAVE_OUT
        )
        return
    folder = _named_folder(recipe)
    if folder is None:
        if value is True and recipe.names("output_dir"):
            message = _(
                "true, and {folder} has no checkpoint: training stops once the model is loaded",
                folder=recipe.output_dir,
            )
            yield recipe.problem(CANNOT_RESUME, KEY, message, LEAVE_OUT)
        return
    flaw = find_flaw(folder, needs_optimizer=False)
    if flaw and not recipe.settings.get("fsdp"):
        message = _("{folder}: {flaw}: training stops once the model is loaded", folder=folder, flaw=flaw)
        yield recipe.problem(CANNOT_RESUME, KEY, message, _("name another checkpoint"))
        return
    yield from step_problems(recipe, schedule)
    yield from _optimizer_problems(recipe, folder)
    yield from kept_settings(recipe, folder, schedule)
    processes = max(1, len(list(folder.glob("rng_state_*.pth"))))
    if world_size is not None and processes != world_size:
        message = _(
            "{folder} was saved by {processes} processes, and {world_size} train here: "
            "rows are left out or trained twice",
            folder=folder,
            processes=processes,
            world_size=world_size,
        )
        yield recipe.problem(KEPT_BY_CHECKPOINT, KEY, message, _("take as many processes as then"))
    yield from _adapter_problems(recipe, folder)


def step_problems(recipe: Recipe, schedule: Schedule) -> Iterator[Problem]:
    """E347 for a checkpoint at the last step or after it. At most one step is trained, with a rate of 0."""
    folder = _named_folder(recipe)
    is_known = schedule.rows > 0 or recipe.number("max_steps", -1) > 0
    if folder is None or not is_known:
        return
    step = _state(folder).get("global_step")
    if not is_number(step) or step < schedule.steps:
        return
    message = _(
        "{folder} is at step {step}, and the training ends after step {steps}: no step is left",
        folder=folder,
        step=step,
        steps=schedule.steps,
    )
    fix = _("raise num_train_epochs or max_steps, or name an earlier checkpoint")
    yield recipe.problem(CANNOT_RESUME, KEY, message, fix)


def kept_settings(recipe: Recipe, folder: Path, schedule: Schedule) -> Iterator[Problem]:
    """W347 for settings of which a resumed training takes the value in trainer_state.json, and for the batch.

    The position in the data is counted in batches of the recipe, so another batch leaves out rows.
    """
    state = _state(folder)
    for key, (strategy, default) in COUNTED.items():
        value, saved = recipe.settings.get(key), state.get(key)
        if recipe.settings.get(strategy, default) != "steps" or not is_number(value) or not is_number(saved):
            continue
        steps: float = value
        if value < 1:  # a share of all steps
            steps = math.ceil(schedule.steps * value)
        if steps != saved:
            message = _(
                "{value} has no effect: the training goes on with {saved}, as in {folder}",
                value=show_value(value),
                saved=saved,
                folder=folder,
            )
            yield recipe.problem(KEPT_BY_CHECKPOINT, key, message, f"{key}: {saved}")
    key = "per_device_train_batch_size"
    batch, saved = int(recipe.number(key, 8)), state.get("train_batch_size")
    if is_number(saved) and saved != batch and not recipe.settings.get("auto_find_batch_size"):
        message = _(
            "{batch}, and {folder} was trained with {saved}: rows are left out or trained twice",
            batch=batch,
            folder=folder,
            saved=saved,
        )
        yield recipe.problem(KEPT_BY_CHECKPOINT, key, message, f"{key}: {saved}")


def _state(folder: Path) -> Mapping[str, object]:
    """The trainer's state, {} if it cannot be read: that is a flaw of the checkpoint."""
    try:
        return read_object(folder / "trainer_state.json")
    except (ContentError, OSError):
        return {}


def target_problems(recipe: Recipe, linear: Sequence[str]) -> Iterator[Problem]:
    """E347 if `lora_target: all` adapts other layers than the checkpoint. `linear` are the model's."""
    if "all" in recipe.names("lora_target") or "lora_target" not in recipe.settings:
        yield from _other_layers(recipe, set(linear))


def _named_folder(recipe: Recipe) -> Path | None:
    """The folder of the checkpoint. With `true` it is the newest one in output_dir, as in transformers.

    None without such a folder, or if nothing is trained.
    """
    value = recipe.settings.get(KEY)
    if not recipe.trains or not value:
        return None
    if isinstance(value, str):
        folder = Path(value)
        return folder if folder.is_dir() else None  # E311 reports it
    if not recipe.names("output_dir"):  # E304 reports it
        return None
    return next(iter(checkpoint_folders(recipe.output_dir)), None)


def _optimizer_problems(recipe: Recipe, folder: Path) -> Iterator[Problem]:
    """Yield that optimizer and scheduler begin again, or that the checkpoint's learning rate is kept."""
    saved_by_deepspeed = (folder / "latest").is_file()
    if recipe.settings.get("deepspeed"):
        if not saved_by_deepspeed:
            message = _(
                "{folder} was not saved by DeepSpeed: training stops once the model is loaded", folder=folder
            )
            yield recipe.problem(
                CANNOT_RESUME, KEY, message, _("leave out deepspeed, or name another checkpoint")
            )
        return
    missing = missing_state(folder)
    if missing:
        files = joined(missing, _(" and no "))
        message = _(
            "{folder} has no {files}: optimizer and learning rate start again, at the checkpoint's step",
            folder=folder,
            files=files,
        )
        fix = _("name a checkpoint that was saved without save_only_model")
        yield recipe.problem(KEPT_BY_CHECKPOINT, KEY, message, fix)
        return
    rates = saved_rates(folder / "scheduler.pt")
    rate = recipe.settings.get("learning_rate")
    if is_number(rate) and rates and not any(math.isclose(rate, saved) for saved in rates):
        message = _(
            "{rate:g} has no effect: the training goes on with that of {folder}, {saved_rates}",
            rate=rate,
            folder=folder,
            saved_rates=joined(f"{saved:g}" for saved in rates),
        )
        yield recipe.problem(KEPT_BY_CHECKPOINT, "learning_rate", message, f"learning_rate: {rates[0]:g}")
    yield from _other_optimizer(recipe, folder, saved_group(folder / "optimizer.pt"))


def _other_optimizer(recipe: Recipe, folder: Path, saved: "OptimizerGroup | None") -> Iterator[Problem]:
    """E347 for another optimizer than the checkpoint's, W347 for values that it keeps from there."""
    if saved is None or any(recipe.settings.get(key) for key in OTHER_OPTIMIZERS):
        return
    optimizer = str(recipe.settings.get("optim", "adamw"))
    for name, key in OPTIMIZER_KEYS.items():
        if name in optimizer and key not in saved.values:
            message = _(
                "{optimizer}, and {folder} has the state of another optimizer: training stops",
                optimizer=optimizer,
                folder=folder,
            )
            yield recipe.problem(
                CANNOT_RESUME,
                "optim",
                message,
                _("take that of the checkpoint, or leave out {key}", key=KEY),
            )
            return
    ratio = "loraplus_lr_ratio"
    groups = LORAPLUS_GROUPS if recipe.settings.get(ratio) else PLAIN_GROUPS
    if saved.groups in (LORAPLUS_GROUPS, PLAIN_GROUPS) and saved.groups != groups:
        template = marked("{folder} was trained with {key}: training stops once the model is loaded")
        if recipe.settings.get(ratio):
            template = marked("{folder} was trained without {key}: training stops once the model is loaded")
        message = _(template, folder=folder, key=ratio)
        yield recipe.problem(CANNOT_RESUME, ratio, message, LEAVE_OUT)
    for setting, (key, position) in KEPT_BY_OPTIMIZER.items():
        value, values = recipe.settings.get(setting), saved.values.get(key, ())
        if is_number(value) and len(values) > position and not math.isclose(value, values[position]):
            message = _(
                "{value:g} has no effect: the training goes on with that of {folder}, {saved:g}",
                value=value,
                folder=folder,
                saved=values[position],
            )
            yield recipe.problem(KEPT_BY_CHECKPOINT, setting, message, f"{setting}: {values[position]:g}")


class OptimizerGroup(NamedTuple):
    """The numbers of an optimizer's first group of parameters by their keys, and how many groups it has."""

    values: Mapping[str, Sequence[float]]
    groups: int


def saved_group(optimizer: Path) -> OptimizerGroup | None:
    """The settings in an optimizer's state, None if they are not found. Nothing is unpickled."""
    content = _pickle_of(optimizer)
    values: dict[str, list[float]] = {}
    texts: dict[int, str] = {}  # by their number in the pickle, by which they come again
    numbers: list[float] = []
    last_text = ""
    count = 0
    is_inside = False
    try:
        for opcode, argument, _position in pickletools.genops(content):
            text = ""
            if opcode.name in ("BINUNICODE", "SHORT_BINUNICODE"):
                text = last_text = str(argument)
            elif opcode.name in ("BINPUT", "LONG_BINPUT") and last_text:
                texts[int(argument or 0)], last_text = last_text, ""
            elif opcode.name in ("BINGET", "LONG_BINGET"):
                text = texts.get(int(argument or 0), "")
            elif opcode.name in ("BINFLOAT", "BININT", "BININT1", "BININT2") and is_inside:
                numbers.append(float(argument or 0))
            else:
                last_text = ""
            if text == "param_groups":
                is_inside = True
            elif text and is_inside:
                count += text == "params"
                numbers = []
                values.setdefault(text, numbers)
    except ValueError:  # no pickle
        return None
    return OptimizerGroup(values, count) if count else None


def saved_rates(scheduler: Path) -> list[float]:
    """The learning rates in a scheduler's state, [] if there are none. Nothing is unpickled."""
    rates: list[float] = []
    content = _pickle_of(scheduler)
    is_inside = False
    try:
        for opcode, argument, _position in pickletools.genops(content):
            if argument == "base_lrs":
                is_inside = True
            elif is_inside and opcode.name == "BINFLOAT" and isinstance(argument, float):
                rates.append(argument)
            elif is_inside and opcode.name in ("APPEND", "APPENDS"):
                break
    except ValueError:  # no pickle
        return []
    return list(dict.fromkeys(rates))


def _pickle_of(state: Path) -> bytes:
    """The pickle in a file of torch, b"" without one, or if it is too large to be read."""
    if not zipfile.is_zipfile(state):
        return b""
    with zipfile.ZipFile(state) as archive:
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(names) != 1 or archive.getinfo(names[0]).file_size > LARGEST_STATE:
            return b""
        return archive.read(names[0])


def _adapter_problems(recipe: Recipe, folder: Path) -> Iterator[Problem]:
    """Yield what differs between the recipe's adapter and that of the checkpoint."""
    config_path = folder / ADAPTER_CONFIG
    kind = ADAPTERS.get(recipe.method)
    if not config_path.is_file():
        if kind:
            message = _(
                "{folder} has no adapter: none of its weights are loaded, and training stops", folder=folder
            )
            fix = _("finetuning_type: full, or leave out {key} and name it as model_name_or_path", key=KEY)
            yield recipe.problem(CANNOT_RESUME, KEY, message, fix)
        return
    if not kind:
        message = _(
            "{folder} has an adapter, and finetuning_type is {method}: training stops",
            folder=folder,
            method=recipe.method,
        )
        yield recipe.problem(CANNOT_RESUME, KEY, message, "finetuning_type: lora")
        return
    try:
        config = read_object(config_path)
    except ContentError as error:
        yield recipe.problem(
            CANNOT_RESUME, KEY, _("{error}: training stops", error=error), _("name another checkpoint")
        )
        return
    saved_kind = config.get("peft_type")
    if saved_kind != kind:
        message = _(
            "{folder} has an adapter of type {type}, expected {expected}: training stops",
            folder=folder,
            type=show_value(saved_kind),
            expected=kind,
        )
        yield recipe.problem(CANNOT_RESUME, KEY, message, _("name a checkpoint of this finetuning_type"))
        return
    if recipe.method == "lora" and not recipe.names("adapter_name_or_path"):
        yield from _lora_problems(recipe, folder, config)


def _lora_problems(recipe: Recipe, folder: Path, config: Mapping[str, object]) -> Iterator[Problem]:
    rank = recipe.number("lora_rank", LORA_RANK)
    for code, key, name, value in (
        (CANNOT_RESUME, "lora_rank", "r", rank),
        (CANNOT_RESUME, "use_dora", "use_dora", bool(recipe.settings.get("use_dora"))),
        (KEPT_BY_CHECKPOINT, "lora_alpha", "lora_alpha", recipe.number("lora_alpha", 2 * rank)),
        (KEPT_BY_CHECKPOINT, "use_rslora", "use_rslora", bool(recipe.settings.get("use_rslora"))),
    ):
        saved = config.get(name)
        if saved is None or saved == value:
            continue
        if code == CANNOT_RESUME:
            message = _(
                "{folder} has {key} {saved}, the recipe {value}: training stops once the model is loaded",
                folder=folder,
                key=name,
                saved=_plain(saved),
                value=_plain(value),
            )
        else:
            message = _(
                "{folder} was trained with {key} {saved}, the recipe has {value}: the "
                "adapter is scaled by another factor",
                folder=folder,
                key=name,
                saved=_plain(saved),
                value=_plain(value),
            )
        yield recipe.problem(code, key, message, f"{key}: {_plain(saved)}")
    modules: set[str] = set(recipe.names("additional_target"))
    listed = config.get("modules_to_save")
    saved_modules = listed if isinstance(listed, list) else []
    may_add_modules = any(recipe.settings.get(key) for key in RESIZING)  # LLaMA-Factory then adds embeddings
    if (modules or not may_add_modules) and modules != set(map(str, saved_modules)):
        saved_text = ",".join(sorted(map(str, saved_modules)))
        message = _(
            "{folder} trains {saved_modules}, the recipe {modules}: training stops once the model is loaded",
            folder=folder,
            saved_modules=saved_text or _("no further modules"),
            modules=",".join(sorted(modules)) or _("none"),
        )
        fix = f"additional_target: {saved_text}" if saved_text else "leave out additional_target"
        yield recipe.problem(CANNOT_RESUME, "additional_target", message, fix)
    names = set(recipe.names("lora_target"))
    if names and "all" not in names:
        yield from _other_layers(recipe, names)


def _other_layers(recipe: Recipe, names: set[str]) -> Iterator[Problem]:
    """E347 if the checkpoint's adapter is on other layers than `names`."""
    folder = _named_folder(recipe)
    path = folder / ADAPTER_CONFIG if folder else None
    if path is None or not names or recipe.method != "lora" or recipe.names("adapter_name_or_path"):
        return
    try:
        saved = read_object(path).get("target_modules")
    except (ContentError, OSError):
        return
    if not isinstance(saved, list) or set(map(str, saved)) == names:
        return  # a text is a pattern of paths
    layers = joined(sorted(map(str, saved)))
    message = _(
        "{folder} adapts {layers}, the recipe {names}: training stops once the model "
        "is loaded, or begins the other layers anew",
        folder=folder,
        layers=layers,
        names=joined(sorted(names)),
    )
    yield recipe.problem(CANNOT_RESUME, "lora_target", message, f"lora_target: {layers.replace(' ', '')}")


def _plain(value: object) -> str:
    """A value as YAML has it: `true`, `8`."""
    if isinstance(value, bool):
        return str(value).lower()
    if is_number(value):
        return f"{value:g}"
    return show_value(value)
