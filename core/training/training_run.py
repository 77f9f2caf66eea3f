"""Records next to weights, of the training or the merge that made them, and the hash of a base model."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tuneyard.core.documents import read_yaml
from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import unexpected
from tuneyard.core.files import JsonObject, are_texts, files_sha256, read_object
from tuneyard.core.files.bounded_reading import open_regular
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _
from tuneyard.core.records.training_record import TrainedDataset
from tuneyard.core.text.secrets import public_settings

TRAINING = "training.json"  # written last: its existence means that the training is finished
SETTINGS = (
    "recipe.yaml",
    "training_args.yaml",
)  # of a training that `recipe train`, or LLaMA-Factory's web page, began
MERGE = "merge.json"  # the adapters, weights and base of a merge or a fused model
_MERGE_SCHEMA = ROOT / "core/schemas/merge.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
"""The name of a checkpoint's folder, with its step."""
PISSA_CONVERTED = "pissa_converted"  # the folder in output_dir that pissa_convert writes
STARTED = "started.json"  # the inputs of the training that writes here, finished or not
TRAINED_ROWS = "_trained_rows.npy"  # fingerprints of the rows: core/datasets/trained_examples.py
# Of the model card that transformers writes.
CARD_SENTENCE = re.compile(r"fine-tuned version of .*? on (the .+?) datasets?\.")
_LONGEST_SENTENCE = 10_000  # characters
_CARD_HYPERPARAMETERS = "The following hyperparameters were used during training:"
_LONGEST_VALUE = 1000  # characters
_CARD_HYPERPARAMETER = re.compile(rf"[-*] (\w{{1,60}}): (.{{1,{_LONGEST_VALUE}}})")
_MOST_HYPERPARAMETERS = 50  # the card has about ten
_LARGEST_CARD = 1 << 20  # bytes
OF_A_MODEL = {".json", ".jinja", ".safetensors", ".model", ".txt"}


def checkpoint_folders(output_dir: Path) -> list[Path]:
    """The folders `checkpoint-STEP` of a training, complete or not, that of the highest step first."""
    steps = {}
    for path in output_dir.glob("checkpoint-*"):
        name = CHECKPOINT.fullmatch(path.name)
        if name and path.is_dir():
            steps[path] = int(name[1])
    return sorted(steps, key=lambda path: -steps[path])


def record_folders(folder: Path) -> list[Path]:
    """Folders that may contain the records: that of the weights, and the output_dir above it.

    Checkpoints and the conversion of PiSSA are in the output_dir.
    """
    if folder.name.startswith("checkpoint-") or folder.name == PISSA_CONVERTED:
        return [folder, folder.parent]
    return [folder]


def record_of(folder: Path, names: Iterable[str] = (TRAINING, STARTED)) -> Path | None:
    """Find the first of these files of the training run that wrote these weights.

    By default that is training.json, and started.json if the training is not finished.
    """
    for record_folder in record_folders(folder.resolve()):
        for name in names:
            if (record_folder / name).is_file():
                return record_folder / name
    return None


def training_inputs(folder: Path) -> JsonObject:
    """Inputs in the record of a training run, {} without a record.

    Secrets that an older record has among its settings are left out. `ContentError` if the settings or the
    model are no mapping, or if data and adapters are no lists of named entries.
    """
    record = record_of(folder)
    if record is None:
        return {}
    inputs: Any = read_object(record)
    if record.name == TRAINING:
        inputs = inputs.get("inputs")
    if not isinstance(inputs, dict):
        return {}
    for part, kind in (("settings", dict), ("model", dict), ("data", list), ("adapters", list)):
        value = inputs.get(part, kind())
        if not isinstance(value, kind):
            raise unexpected(record, part, value, f"a {kind.__name__}")
    for entry in inputs.get("data", []):
        if not isinstance(entry, dict) or not are_texts([entry.get("dataset"), entry.get("file", "")]):
            raise unexpected(record, "data", entry, _("a dataset and its file"))
    for entry in inputs.get("adapters", []):
        if not isinstance(entry, dict) or not are_texts([entry.get("name"), entry.get("sha256") or ""]):
            raise unexpected(record, "adapters", entry, _("the name of an adapter and its hash"))
    if "settings" in inputs:
        return {**inputs, "settings": public_settings(inputs["settings"])}
    return inputs


def training_settings(folder: Path) -> JsonObject:
    """Settings of the training that wrote an adapter, a run or a checkpoint; {} if unknown."""
    settings: JsonObject | None = training_inputs(folder).get("settings")
    if settings is not None:
        return settings
    path = record_of(folder, SETTINGS)
    content = read_yaml(path, "recipe").value if path else {}
    return public_settings(content) if isinstance(content, dict) else {}


def training_data(folder: Path) -> list[TrainedDataset]:
    """The datasets that a folder's weights were trained on. [] if no file lists them.

    Each entry has the name `dataset`. Those of `tuneyard recipe train` also have `file` and `sha256`; the
    model card that plain LLaMA-Factory writes has the names alone.
    """
    if record_of(folder):
        inputs = training_inputs(folder)
        names = names_in(inputs.get("settings", {}).get("dataset"))  # without those of `eval_dataset`
        return [entry for entry in inputs.get("data", []) if entry["dataset"] in names]
    for text in _card_texts(folder):
        words = " ".join(text.split())
        begin = max(0, words.find("fine-tuned version of"))
        sentence = CARD_SENTENCE.match(words, begin, begin + _LONGEST_SENTENCE)
        if sentence is not None:
            names = re.findall(r"the (\S+?)(?=,|$| and )", sentence[1])
            return [{"dataset": name} for name in names]
    return []


def card_hyperparameters(folder: Path) -> dict[str, str]:
    """The hyperparameters that the model card of plain LLaMA-Factory lists, in its words. {} without any.

    They have the trainer's names (`train_batch_size`), and are no settings of a recipe. Arguments of an
    optimizer may be in a line of their own.
    """
    for text in _card_texts(folder):
        _unused, heading, rest = text.partition(_CARD_HYPERPARAMETERS)
        if not heading:
            continue
        hyperparameters: dict[str, str] = {}
        name = ""
        for line in rest.strip().splitlines()[:_MOST_HYPERPARAMETERS]:
            item = _CARD_HYPERPARAMETER.fullmatch(line.strip())
            if item is not None:
                name = item[1]
                hyperparameters[name] = item[2]
            elif name and line.strip() and not line.startswith(("#", "- ")):
                hyperparameters[name] += f" {line.strip()[:_LONGEST_VALUE]}"
            else:
                break
        return hyperparameters
    return {}


def _card_texts(folder: Path) -> Iterator[str]:
    """Yield the README.md of a folder, then that of a checkpoint's output_dir, as far as they are cards."""
    for place in record_folders(folder.resolve()):
        card = place / "README.md"
        if card.is_file():
            with open_regular(card) as file:
                content = file.read(_LARGEST_CARD)
            # Markdown formatters wrap lines and write `\_` for `_`.
            yield content.decode(errors="replace").replace("\\_", "_")


def read_provenance(folder: Path) -> JsonObject | None:
    """Read the merge.json of a folder, None if it has none; `ContentError` if it is damaged."""
    path = folder / MERGE
    if not path.is_file():
        return None
    record = read_object(path)
    check_file(path, read_object(_MERGE_SCHEMA), record)
    return record


def names_in(value: object) -> list[str]:
    """Split a setting of names (datasets, modules): a list, or a text with commas. [] if it is unset."""
    items = value if isinstance(value, list) else str(value or "").split(",")
    return [str(item).strip() for item in items if str(item).strip()]


def model_sha256(folder: Path) -> str:
    """One hash over the names and bytes of a model folder's config, tokenizer and weights."""
    files = [path for path in folder.iterdir() if path.suffix in OF_A_MODEL and path.is_file()]
    return files_sha256(sorted(files))
