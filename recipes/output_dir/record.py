"""The records that `recipe train` writes into an output_dir, and how far the training in one is.

Two runs are the same if the `inputs` in training.json are equal. Versions, times and hardware do not count.
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tuneyard.core.datasets import REGISTRY
from tuneyard.core.datasets.compiled import MANIFEST, manifest_beside, read_manifest
from tuneyard.core.datasets.kept import kept_datasets
from tuneyard.core.documents import read_yaml
from tuneyard.core.errors import ContentError
from tuneyard.core.execution.state import CURRENT, NEW, UNFINISHED, FileInput, Input, State, compare_inputs
from tuneyard.core.files import Fields, bundled, files_of, is_file, read_object, sha256, text_sha256, versions
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.message import Message, PathText, _, joined
from tuneyard.core.text.quoting import shell
from tuneyard.core.text.secrets import public_settings
from tuneyard.core.training.parent_adapters import ADAPTERS, adapter_hashes, weights_hash
from tuneyard.core.training.training_run import (
    STARTED,
    TRAINING,
    model_sha256,
)
from tuneyard.recipes.output_dir.checkpoints import STATE, checkpoints, command_to_resume, find_flaw, within
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.data import dataset_dir, locate

EFFECTIVE = "recipe.yaml"  # the recipe with what was added to it, as LLaMA-Factory trains it
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
SHA256, ENTRY = "sha256", "entry_sha256"
FILES = "files"
NAMING_FILES = ("deepspeed", "ref_model", "ref_model_adapters", "reward_model", "reward_model_adapters")
"""Settings next to the model and its adapters whose files decide a training."""
FOREIGN = _("not started by `tuneyard recipe train`")
MARKS = ("checkpoint-*", "*.safetensors", "*.bin", "trainer_*.json*", STARTED, TRAINING)
"""Names in a folder that a training wrote to, as glob patterns."""


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


def state_of_run(output_dir: Path, inputs: Mapping[str, object], world: Mapping[str, object]) -> State:
    """How far the training with these inputs is in a folder.

    `world` has the sizes of this training, {} if it runs on another machine. A training that Tuneyard did not
    start is another one.
    """
    if not has_training(output_dir):
        return NEW
    changes = input_changes(output_dir, inputs)
    if not changes and world:
        difference = changed_world_size(output_dir, world)
        changes = [difference] if difference else []
    if changes:
        return State("stale", tuple(changes))
    return CURRENT if (output_dir / TRAINING).is_file() else UNFINISHED


def has_training(output_dir: Path) -> bool:
    """True if a training wrote to a folder."""
    return any(any(output_dir.glob(mark)) for mark in MARKS)


def changed_inputs(output_dir: Path, inputs: Mapping[str, object]) -> Message:
    """Describe how the run in a folder differs from one with these inputs; "" for the same run or none."""
    differences = input_changes(output_dir, inputs)
    names = joined(differences[:3])
    if len(differences) > 3:
        return _("{names} and {number} more", names=names, number=len(differences) - 3)
    return names


def input_changes(output_dir: Path, inputs: Mapping[str, object]) -> list[Message]:
    """What differs between the run in a folder and one with these inputs; [] for the same run or none."""
    if not has_training(output_dir):
        return []
    if not (output_dir / STARTED).is_file():
        return [FOREIGN]
    try:
        started = read_object(output_dir / STARTED)
    except ContentError as error:
        return [_("its {error}", error=within(output_dir, error))]
    changes: list[Message] = []
    before, after = started.get("settings"), inputs.get("settings")
    if isinstance(before, dict) and isinstance(after, dict):
        before = public_settings(before)  # an older record may have secrets
        changed = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
        unset = _("unset")
        for key in changed:
            old, new = before.get(key, unset), after.get(key, unset)
            changes.append(_("{key} {before} → {after}", key=key, before=old, after=new))
    changes += _changed_datasets(_datasets(started), _datasets(inputs))
    entries, entries_before = _hashes_by_name(inputs, "data", ENTRY), _hashes_by_name(started, "data", ENTRY)
    for name, digest in entries.items():
        if entries_before.get(name, digest) != digest:
            changes.append(_("the entry of {name} in {registry} changed", name=name, registry=REGISTRY))
    files, files_before = _hashes_by_name(inputs, FILES, SHA256), _hashes_by_name(started, FILES, SHA256)
    for name, digest in files.items():
        if files_before.get(name, digest) != digest:
            changes.append(_("{name} changed", name=PathText(name)))
    parts = ["model", "weights"]
    if ADAPTERS in started and ADAPTERS in inputs:  # earlier versions did not record them
        parts.append(ADAPTERS)
    for part in parts:
        if _hashes(started.get(part)) != _hashes(inputs.get(part)):
            changes.append(_("{name} changed", name=part))
    return changes


def _hashes_by_name(inputs: Mapping[str, object], part: str, key: str) -> dict[str, str]:
    """One of the hashes in the entries of an input, by their names. Earlier versions did not record all."""
    entries = inputs.get(part)
    hashes = {}
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get(key), str):
            hashes[str(entry.get("dataset", entry.get("name")))] = entry[key]
    return hashes


def _changed_datasets(before: dict[str, FileInput], now: dict[str, FileInput]) -> Sequence[Message]:
    """The datasets that are new, gone, or changed. Rows are compared if both records have them."""
    recorded: dict[str, Input] = {}
    present: dict[str, Input] = {}
    for name, content in before.items():
        recorded[name] = content if "rows" in now.get(name, {}) else FileInput(sha256=content["sha256"])
    for name, content in now.items():
        present[name] = content if "rows" in before.get(name, {}) else FileInput(sha256=content["sha256"])
    return compare_inputs(recorded, present).changes


def _datasets(inputs: Mapping[str, object]) -> dict[str, FileInput]:
    """The hash of each dataset by name, with its rows if its compile counted them."""
    datasets: dict[str, FileInput] = {}
    for entry in _entries(inputs):
        content = FileInput(sha256=str(entry.get("sha256")))
        rows = entry.get("rows")
        if isinstance(rows, int):
            content["rows"] = rows
        datasets[str(entry.get("dataset"))] = content
    return datasets


def _entries(inputs: Mapping[str, object]) -> list[Fields]:
    """What is recorded of each dataset."""
    data = inputs.get("data")
    return [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []


def kept_rows(output_dir: Path, inputs: Mapping[str, object]) -> list[str]:
    """The earlier compiles that are kept and have the rows of a folder's run, where these changed."""
    now = _datasets(inputs)
    try:
        started = read_object(output_dir / STARTED)
    except ContentError:  # it is damaged, which is the difference
        return []
    references: dict[str, None] = {}
    for name, content in _datasets(started).items():
        if now.get(name) == content:
            continue
        for file in (entry.get("file") for entry in _entries(started) if entry.get("dataset") == name):
            path = Path(str(file))
            for kept in kept_datasets(path.parent.parent, path.parent.name):
                manifest = read_manifest(kept.folder)
                rows = manifest.files.get(path.name) if manifest else None
                if rows and rows.sha256 == content["sha256"]:
                    references[kept.reference] = None
    return list(references)


def how_to_go_on(recipe: Recipe, inputs: Mapping[str, object], fix: Message) -> Message:
    """The fix for an output_dir with another run, after the commands that go on with that run."""
    folder = recipe.output_dir
    if not (folder / STARTED).is_file():
        command = command_to_resume(recipe)
        return _("`{command}` continues it; {hint}", command=command, hint=fix) if command else fix
    earlier = kept_rows(folder, inputs)
    if not earlier:
        return fix
    commands = joined([f"`tuneyard data restore {shell(reference)}`" for reference in earlier])
    return _("{commands} brings its rows back; {hint}", commands=commands, hint=fix)


def changed_world_size(output_dir: Path, world: Mapping[str, object]) -> Message | None:
    """Describe the world sizes of a folder's run and of this one. None if the run can resume or has none."""
    finished = (output_dir / TRAINING).is_file()
    if not finished and all(checkpoints(output_dir).values()):
        return None
    record = read_object(output_dir / (TRAINING if finished else STARTED))
    if record.get("world_size") == world["world_size"]:
        return None
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
    files = list(_other_files(recipe))
    if files:
        inputs[FILES] = files
    return inputs


def _other_files(recipe: Recipe) -> Iterator[dict[str, str]]:
    """Yield the files and model folders that other settings name: that of DeepSpeed, the models of RLHF."""
    for key in NAMING_FILES:
        if not isinstance(recipe.settings.get(key), str | list):
            continue
        for name in recipe.names(key):
            path = bundled(Path(name))
            if is_file(path):
                yield {"name": name, SHA256: sha256(path)}
            elif is_file(path / "adapter_config.json"):
                yield {"name": name, SHA256: weights_hash(path)}
            elif is_file(path / "config.json"):
                yield {"name": name, SHA256: model_sha256(path)}


def _data(name: str, folder: str) -> dict[str, object]:
    entry, path = locate(name, folder)
    mapping = {key: value for key, value in sorted(entry.items()) if key != "file_name"}
    entry_hash = text_sha256(json.dumps(mapping, sort_keys=True))
    if isinstance(path, str):  # on a hub, made by a script, in a cloud: no file here to hash
        return {"dataset": name, "file": path, "sha256": None, "manifest_sha256": None, ENTRY: entry_hash}
    manifest = path.parent / MANIFEST
    data: dict[str, object] = {
        "dataset": name,
        "file": str(path),
        "sha256": sha256(*files_of(path)),
        "manifest_sha256": sha256(manifest) if manifest.is_file() else None,
        ENTRY: entry_hash,
    }
    compiled = manifest_beside(path)
    if compiled is not None and compiled[1].sha256 == data["sha256"]:
        data["rows"] = compiled[1].rows
    if isinstance(entry.get("num_samples"), int):
        data["num_samples"] = entry["num_samples"]
    return data


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
