"""Contents of an output_dir: complete and incomplete checkpoints, the run that made them, the lock.

The trainer writes trainer_state.json last, but not everything before it is synced, so each file is checked.
Two runs are the same if the `inputs` in training.json are equal. Versions, times and hardware do not count.
"""

import itertools
import platform
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tuneyard.core.datasets.compiled import MANIFEST
from tuneyard.core.documents import is_number, read_yaml
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import files_of, names_folder, read_object, sha256, versions
from tuneyard.core.files.bounded_reading import read_text, refuse_pipe
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.message import _, joined, relative, typed, with_texts
from tuneyard.core.language.messages import say
from tuneyard.core.text.secrets import public_settings
from tuneyard.core.training.parent_adapters import ADAPTERS, adapter_hashes
from tuneyard.core.training.training_run import (
    CHECKPOINT,
    STARTED,
    TRAINING,
    checkpoint_folders,
    model_sha256,
)
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.data import dataset_dir, locate
from tuneyard.recipes.rules.starting_weights import check_weights

STATE = "trainer_state.json"
EFFECTIVE = "recipe.yaml"  # the recipe with what was added to it, as LLaMA-Factory trains it
STATE_FILES = ("optimizer.pt", "scheduler.pt")
PICKLED = ("adapter_model.bin", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weights of a checkpoint in PyTorch's own form, which are not opened."""
PACKAGES = (
    "llamafactory", "torch", "transformers", "peft", "accelerate", "datasets", "deepspeed", "bitsandbytes",
)  # fmt: skip
# Settings that change what is shown or kept, or how fast, and not what is learned.
INCIDENTAL = {
    "bf16_full_eval", "dataloader_num_workers", "dataloader_pin_memory", "ddp_timeout", "disable_tqdm",
    "include_num_input_tokens_seen", "log_level", "logging_dir", "logging_first_step", "logging_steps",
    "logging_strategy", "output_dir", "overwrite_cache", "overwrite_output_dir", "plot_loss",
    "preprocessing_num_workers", "preprocessing_batch_size", "project", "report_to", "resume_from_checkpoint",
    "run_name", "save_steps", "save_total_limit", "use_cpu",
}  # fmt: skip
FOREIGN = _("not started by `tuneyard recipe train`")
MARKS = ("checkpoint-*", "*.safetensors", "*.bin", "trainer_*.json*", STARTED, TRAINING)
"""Names in a folder that a training wrote to, as glob patterns."""


def checkpoints(output_dir: Path) -> dict[Path, str]:
    """Reason why each folder `checkpoint-STEP` cannot be resumed from, or "", the newest first."""
    return {path: find_flaw(path) for path in checkpoint_folders(output_dir)}


def find_flaw(folder: Path, *, needs_optimizer: bool = True) -> str:
    """Reason why training cannot resume from a checkpoint folder, or "".

    transformers resumes without optimizer and scheduler, too, and begins both again. Without
    `needs_optimizer` that is no flaw.
    """
    name = CHECKPOINT.fullmatch(folder.name)
    try:
        step = read_object(folder / STATE).get("global_step")
        if name and step != int(name[1]):  # training would resume at that step
            return _(
                "trainer_state.json: found global_step {step}, expected {expected}",
                step=show_value(step),
                expected=name[1],
            )
        if not any((folder / weights).is_file() for weights in PICKLED):
            check_weights(folder)
        missing = [] if needs_optimizer else missing_state(folder)
        for path in _torch_files(folder):
            if path.name in missing:
                continue
            refuse_pipe(path)
            try:  # a zip archive, its directory last; nothing is unpickled
                zipfile.ZipFile(path).close()
            except zipfile.BadZipFile:
                return _("{name} is cut off ({size} bytes)", name=path.name, size=path.stat().st_size)
    except FileNotFoundError as error:
        return _("{path} is missing", path=Path(error.filename).name)
    except ContentError as error:
        return _within(folder, error)
    except (OSError, ValueError, TypeError) as error:  # a folder for a file, bytes that are no text
        return _("cannot be read: {error}", error=error)
    return ""


def _within(folder: Path, error: ContentError) -> str:
    """The message of an error about a file of a folder, with the file's name alone."""
    return with_texts(
        error.message, lambda text: text.removeprefix(f"{folder}/").removeprefix(f"{relative(folder)}/")
    )


def missing_state(folder: Path) -> list[str]:
    """Files of optimizer and scheduler that a checkpoint lacks. One of DeepSpeed has them in other files."""
    return [name for name in STATE_FILES if not (folder / name).exists()]


def _torch_files(folder: Path) -> Iterator[Path]:
    """Yield the torch.save files that a training resumes from. `ContentError` if a rank has none."""
    latest = folder / "latest"
    if latest.is_file():
        name = read_text(latest).strip()
        if not names_folder(name) or not name.isprintable():
            raise ContentError(
                _(
                    "{latest}: found {name}, expected the name of a folder in it",
                    latest=latest,
                    name=show_value(name),
                )
            )
        states = folder / name
        ranks = max(1, len(list(folder.glob("rng_state_*.pth"))))
        count = len(list(states.glob("*_optim_states.pt")))
        if count != ranks:
            raise ContentError(
                _(
                    "{name}: optimizer states of {count} ranks, expected {number}",
                    name=states.name,
                    count=count,
                    number=ranks,
                )
            )
        yield from states.glob("*.pt")
    elif any(folder.glob("global_step*")):
        raise ContentError(_("latest is missing (DeepSpeed)"))
    else:
        yield folder / "optimizer.pt"
        yield folder / "scheduler.pt"  # without it, the learning rate starts again
    yield from folder.glob("rng_state*.pth")


def resume_point(output_dir: Path) -> Path | None:
    """Newest complete checkpoint. Incomplete ones are renamed, so that LLaMA-Factory does not find them."""
    newest = None
    for path, flaw in checkpoints(output_dir).items():
        if flaw:
            say(_("{path}: skipped, {flaw}", path=path, flaw=flaw))
            set_aside(path, f"incomplete-{path.name}")
        elif newest is None:
            newest = path
    if newest:
        step = newest.name.removeprefix("checkpoint-")
        if is_past_last_step(newest):
            say(
                _(
                    "{path}: saved after the last step, {step}: no step is left to train",
                    path=newest,
                    step=step,
                )
            )
        else:
            say(_("{path}: resuming after step {step}", path=newest, step=step))
    return newest


def is_past_last_step(checkpoint: Path) -> bool:
    """True for a checkpoint that was saved at the last step of its training, or after it."""
    state = read_object(checkpoint / STATE)
    step, last_step = state.get("global_step"), state.get("max_steps")
    return is_number(step) and is_number(last_step) and 0 < last_step <= step


def has_results(recipe: Recipe) -> bool:
    """True if LLaMA-Factory has written all files of the recipe's training, so that only ours are missing.

    It writes the model, train_results.json and trainer_state.json in this order, then the figures of an
    evaluation and of predictions.
    """
    settings, output_dir = recipe.settings, recipe.output_dir
    if settings.get("push_to_hub") is True:  # that comes last, and leaves nothing here
        return False
    names = [STATE, "train_results.json", "all_results.json"]
    if settings.get("do_eval") is True or settings.get("eval_strategy", "no") != "no":
        names.append("eval_results.json")
    if settings.get("do_predict") is True:
        names.append("predict_results.json")
    if not all((output_dir / name).is_file() for name in names):
        return False
    return not find_flaw(output_dir, needs_optimizer=False)


def facts_of(added: Mapping[str, object], started: datetime, seconds: float) -> dict[str, object]:
    """Facts of a training for training.json: the settings that were added, its begin and its duration."""
    return {
        "added": dict(added),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }


def facts_of_ended_training(recipe: Recipe) -> dict[str, object]:
    """The same of a training whose command was killed, by the times of the files that it left."""
    output_dir = recipe.output_dir
    trained = recipe.settings
    if (output_dir / EFFECTIVE).is_file():
        content = read_yaml(output_dir / EFFECTIVE, "recipe").value
        if isinstance(content, dict):
            trained = public_settings(content)
    missing = object()
    added = {key: value for key, value in trained.items() if recipe.settings.get(key, missing) != value}
    begin = (output_dir / STARTED).stat().st_mtime
    end = (output_dir / STATE).stat().st_mtime
    return facts_of(added, datetime.fromtimestamp(begin, UTC), max(0, end - begin))


def command_to_resume(recipe: Recipe) -> str:
    """The command that continues a run of `llamafactory-cli train`, "" if no checkpoint of it is complete.

    What it was trained on is not recorded, so `tuneyard recipe train` does not take it for its own.
    """
    for path, flaw in checkpoints(recipe.output_dir).items():
        if not flaw:
            options = [*recipe.overrides, "overwrite_output_dir=false", f"resume_from_checkpoint={path}"]
            return typed(["llamafactory-cli", "train", str(recipe.path), *options])
    return ""


def set_aside(path: Path, name: str = "") -> Path:
    """Rename a folder to `name`, or to the first free `NAME.1`, `NAME.2`, …, and return the new path."""
    target = path.with_name(name or path.name)
    free = target
    for number in itertools.count(1):
        if not free.exists():
            break
        free = target.with_name(f"{target.name}.{number}")
    return path.rename(free)


def changed_inputs(output_dir: Path, inputs: dict[str, object]) -> str:
    """Describe how the run in a folder differs from one with these inputs; "" for the same run or none."""
    if not any(any(output_dir.glob(mark)) for mark in MARKS):
        return ""
    if not (output_dir / STARTED).is_file():
        return FOREIGN
    try:
        started = read_object(output_dir / STARTED)
    except ContentError as error:
        return _("its {error}", error=_within(output_dir, error))
    differences: list[str] = []
    before, after = started.get("settings"), inputs.get("settings")
    if isinstance(before, dict) and isinstance(after, dict):
        before = public_settings(before)  # an older record may have secrets
        changed = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
        unset = _("unset")
        for key in changed:
            old, new = before.get(key, unset), after.get(key, unset)
            differences.append(_("{key} {before} → {after}", key=key, before=old, after=new))
    parts = ["data", "model", "weights"]
    if ADAPTERS in started and ADAPTERS in inputs:  # earlier versions did not record them
        parts.append(ADAPTERS)
    differences += [part for part in parts if _hashes(started.get(part)) != _hashes(inputs.get(part))]
    names = joined(differences[:3])
    if len(differences) > 3:
        return _("{names} and {number} more", names=names, number=len(differences) - 3)
    return names


def changed_world_size(output_dir: Path, world: dict[str, object]) -> str:
    """Describe the world sizes of a folder's run and of this one; "" if the run can resume or has none."""
    finished = (output_dir / TRAINING).is_file()
    if not finished and all(checkpoints(output_dir).values()):
        return ""
    record = read_object(output_dir / (TRAINING if finished else STARTED))
    if record.get("world_size") == world["world_size"]:
        return ""
    return _("{before} → {after}", before=_world_size(record), after=_world_size(world))


def _world_size(record: Mapping[str, object]) -> str:
    return _(
        "world size {processes} (global batch {rows})",
        processes=record.get("world_size"),
        rows=record.get("global_batch"),
    )


def _hashes(part: object) -> object:
    """Parts of an input that decide: names and content hashes, not the paths and versions of compile."""
    if isinstance(part, list):
        return [_hashes(item) for item in part]
    if isinstance(part, dict):
        return {key: part[key] for key in ("dataset", "name", "sha256") if key in part}
    return part


def inputs_of(recipe: Recipe, weights: Path | None) -> dict[str, object]:
    """Inputs that decide the result of a recipe: settings, data, model, weights, each with its hash."""
    model = recipe.text("model_name_or_path")
    model_hash = None  # for a hub id
    if Path(model).is_dir():
        model_hash = model_sha256(Path(model))
    inputs: dict[str, object] = {
        "settings": {key: recipe.settings[key] for key in sorted(recipe.settings) if key not in INCIDENTAL},
        "data": [_data(name, dataset_dir(recipe)) for name in recipe.datasets],
        "model": {"name": model, "sha256": model_hash},
        "weights": None if weights is None else {"file": str(weights), "sha256": sha256(weights)},
    }
    adapters = adapter_hashes(recipe.settings)
    if adapters:
        inputs[ADAPTERS] = adapters
    return inputs


def _data(name: str, folder: str) -> dict[str, object]:
    _entry, path = locate(name, folder)
    if isinstance(path, str):  # on a hub, made by a script, in a cloud: nothing here to hash
        return {"dataset": name, "file": path, "sha256": None, "manifest_sha256": None}
    manifest = path.parent / MANIFEST
    return {
        "dataset": name,
        "file": str(path),
        "sha256": sha256(*files_of(path)),
        "manifest_sha256": sha256(manifest) if manifest.is_file() else None,
    }


def training_record(recipe: Recipe, inputs: dict[str, object], facts: dict[str, object]) -> dict[str, object]:
    """Content of training.json: the inputs, the facts of this run, versions, commit and result."""
    results = recipe.output_dir / "all_results.json"
    return {
        "recipe": str(recipe.path),
        "recipe_sha256": sha256(recipe.path),
        "overrides": list(recipe.overrides),
        "inputs": inputs,
        **facts,
        "result": read_object(results) if results.is_file() else {},
        "versions": {"python": platform.python_version(), **versions(*PACKAGES)},
        "tuneyard": version(),
    }
