"""The inputs of a result by hash, by which a command finds out whether the result is still current.

`merge`, `fuse`, `extract`, `rename` and `export` record two keys. `inputs` has the options by value and each
folder with the SHA-256 of the files that decide the bytes of the result. `outputs` has the SHA-256 of the
files that were written. `state_of` compares both with the files of now.

A path is a name and no input: a result stays current if its folders move or get another name. So an adapter
is looked for by its files first, then by its name. Versions, times, `--force` and `--same-base` decide no
bytes, and are not recorded. The weights of a base are hashed like all other files: a process reads each once,
also for `check_base`, and nothing shorter than a hash shows that they are the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from tuneyard.adapters.model.adapter import Adapter, name_of
from tuneyard.adapters.model.provenance import Datasets
from tuneyard.adapters.model.weighted import Weighted
from tuneyard.adapters.write.carried_tokenizer import PROMPT_FILES
from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import ContentError
from tuneyard.core.execution.state import CURRENT, FileInput, Input, State, compare_inputs
from tuneyard.core.files import JsonObject, file_sha256, json_text, read_object, text_sha256
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import Message, PathText, _, joined
from tuneyard.core.weights.adapter_files import CONFIG
from tuneyard.core.weights.base_models import Base

Value = str | int | float | bool | None | list[str]
"""The value of an option."""
Hashes = dict[str, str]
"""SHA-256 by the name of a file."""
Role = Literal["adapter", "base", "model"]
WEIGHT = "weight"  # a value of an adapter
TRAINING_DATA = "training data"  # a value of an adapter: the hash of its list of datasets
TENSOR_NAMES = "tensor names"  # a value of a base: the hash of its list of tensors
TEMPLATES = "additional_chat_templates"
_SCHEMA = ROOT / "core/schemas/adapter_inputs.json"


class FolderInputs(TypedDict):
    """A folder that a result was made of. `values` belong to this folder alone, such as its weight."""

    role: Role
    name: str
    files: Hashes
    values: dict[str, Value]


class Inputs(TypedDict):
    """What a result was made of, as its record has it."""

    options: dict[str, Value]
    folders: list[FolderInputs]


@dataclass(frozen=True, slots=True)
class PresentInputs:
    """What a request names, as it is now. `places` are the paths of its folders, for messages."""

    inputs: Inputs
    places: Sequence[Path]


def weighted_inputs(item: Weighted[Adapter], datasets: Datasets) -> FolderInputs:
    """An adapter of a sum: weights, config, tokenizer and chat template, its weight and training data."""
    adapter = item.adapter
    weight = str(item.layers) if item.layers else item.weight
    values: dict[str, Value] = {WEIGHT: weight, TRAINING_DATA: text_sha256(json_text(datasets))}
    return folder_inputs("adapter", adapter.folder, adapter_files(adapter), values)


def adapter_files(adapter: Adapter) -> list[Path]:
    """The files of an adapter that decide what is made of it."""
    return [*adapter.files, adapter.folder / CONFIG, *prompt_files(adapter.folder)]


def model_files(model: Base) -> list[Path]:
    """Weights and config of a whole model."""
    shards = [tensor_file.path for tensor_file in model.shards.values()]
    return [model.folder / "config.json", *shards]


def prompt_files(folder: Path) -> list[Path]:
    """The files of tokenizer, chat template and end tokens that a folder has."""
    files = [folder / name for name in PROMPT_FILES if (folder / name).is_file()]
    return files + sorted((folder / TEMPLATES).glob("*.jinja"))


def folder_inputs(
    role: Role, folder: Path, files: Iterable[Path], values: Mapping[str, Value] | None = None
) -> FolderInputs:
    """A folder with the hashes of `files` in it."""
    return FolderInputs(role=role, name=name_of(folder), files=hashes_of(files), values=dict(values or {}))


def hashes_of(files: Iterable[Path]) -> Hashes:
    """The SHA-256 of files by their names, in the order of the names."""
    return {file.name: file_sha256(file) for file in sorted(set(files))}


def record_state(
    record_file: Path, command: str, folder: Path, present: Callable[[], PresentInputs]
) -> State:
    """Compare the record of a result with what is there now, which `present` hashes.

    `folder` has the written files. A result without a usable record is stale, with the reason as its change.
    """
    try:
        record = read_record(record_file)
    except ContentError:
        return State("stale", (_("{path} is damaged", path=record_file),))
    if record is None or record["command"] != command:
        return State("stale", (_("`tuneyard adapter {command}` did not write it", command=command),))
    if "inputs" not in record:
        return State("stale", (_("{path} of an earlier version has no inputs", path=record_file),))
    changes = [*changed_inputs(record["inputs"], present()), *changed_outputs(record["outputs"], folder)]
    if changes:
        return State("stale", tuple(changes))
    return CURRENT


def read_record(path: Path) -> JsonObject | None:
    """Read a record, None if there is none; `ContentError` if its command, inputs or outputs are damaged.

    Records of earlier versions have neither inputs nor outputs.
    """
    if not path.is_file():
        return None
    record: JsonObject = read_object(path)
    schema: JsonObject = read_object(_SCHEMA)
    if "inputs" not in record and "outputs" not in record:
        schema["required"] = ["command"]
    check_file(path, schema, record)
    return record


def changed_outputs(recorded: Hashes, folder: Path) -> list[Message]:
    """The written files that are gone, or that somebody has changed since."""
    changes = []
    for name, sha256 in recorded.items():
        file = folder / name
        if not file.is_file():
            changes.append(_("{name} is gone", name=file))
        elif file_sha256(file) != sha256:
            changes.append(_("{path} changed after it was written", path=file))
    return changes


def changed_inputs(recorded: Inputs, present: PresentInputs) -> list[Message]:
    """The inputs that differ. Messages name a folder of the record as the same folder of now."""
    now = present.inputs["folders"]
    partners = _partners(recorded["folders"], now)
    changes: list[Message] = []
    for number, folder in enumerate(recorded["folders"]):
        if number in partners:
            place = present.places[partners[number]]
            values = _values(folder, place)
            changes += compare_inputs(values, _values(now[partners[number]], place)).changes
        else:
            changes.append(_("{name} is gone", name=folder["name"]))
    for number, place in enumerate(present.places):
        if number not in partners.values():
            changes.append(_("{name} is new", name=place))
    changes += compare_inputs(recorded["options"], present.inputs["options"]).changes
    before = list(partners.values())
    if not changes and before != sorted(before):
        order = joined(str(present.places[number]) for number in before)
        places = joined(map(str, present.places))
        changes.append(_("the order of the adapters: {before} → {now}", before=order, now=places))
    return changes


def _partners(recorded: Sequence[FolderInputs], present: Sequence[FolderInputs]) -> dict[int, int]:
    """Each recorded folder with the folder of now that it is: {number: number}, in the order of the record.

    That is one of its role with the same files, otherwise with the same name. There is one base at most.
    """
    partners: dict[int, int] = {}
    for are_partners in (_have_same_files, _have_same_name):
        for number, folder in enumerate(recorded):
            if number in partners:
                continue
            for candidate, other in enumerate(present):
                is_free = candidate not in partners.values()
                if is_free and folder["role"] == other["role"] and are_partners(folder, other):
                    partners[number] = candidate
                    break
    return dict(sorted(partners.items()))


def _have_same_files(one: FolderInputs, other: FolderInputs) -> bool:
    return one["files"] == other["files"]


def _have_same_name(one: FolderInputs, other: FolderInputs) -> bool:
    return one["name"] == other["name"] or one["role"] != "adapter"


def _values(folder: FolderInputs, place: Path) -> dict[str, Input]:
    """Files and values of a folder by the names that a message gives them."""
    named: dict[str, Input] = {}
    for file, sha256 in folder["files"].items():
        named[PathText(place / file)] = FileInput(sha256=sha256)
    for name, value in folder["values"].items():
        if name == WEIGHT:
            named[_("weight of {place}", place=place)] = value
        elif name == TRAINING_DATA:
            named[_("training data of {place}", place=place)] = FileInput(sha256=str(value))
        elif name == TENSOR_NAMES:
            named[_("tensor names of {place}", place=place)] = FileInput(sha256=str(value))
        else:
            named[_("{name} of {place}", name=name, place=place)] = value
    return named
