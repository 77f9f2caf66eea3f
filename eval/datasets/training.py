"""Which examples a model was trained on, as far as the folders of its weights tell.

`tuneyard recipe train` leaves training.json (started.json while it runs). Plain LLaMA-Factory names its
datasets in README.md. A merge or a fused model names its adapters in merge.json, and these are followed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.card import CARD
from tuneyard.adapters.provenance import MERGE, open_parts, read_provenance
from tuneyard.core.adapter_files import CONFIG
from tuneyard.core.datasets import find_dataset, registry_folder
from tuneyard.core.errors import ContentError, RequestError, TuneyardError
from tuneyard.core.files import sha256
from tuneyard.core.prompt import Conversation
from tuneyard.core.row_index import fingerprint
from tuneyard.core.splits import REST
from tuneyard.core.training_run import (
    STARTED,
    TRAINING,
    record_of,
    run_folders,
    run_of,
    trained_entries,
    training_data,
)
from tuneyard.eval.datasets.dataset import EvalDataset, current_row_index, trained_conversations
from tuneyard.eval.statistics.selection import held_out_rows

Prints = NDArray[np.uint64]
UNKNOWN = f"no {TRAINING}, and no {CARD} that names its datasets"  # of an adapter


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What tells of a training: the file as it is shown, its datasets, its settings; or why nothing does.

    `whole_pass` is False if the training may have read fewer rows than the datasets and settings name.
    """

    source: str
    data: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""
    whole_pass: bool = True


def trained_on(adapters: Iterable[Path], base: Path, name: str, prints: Prints) -> dict[str, object] | None:
    """Return how many examples of a dataset the weights of these folders were trained on, for results.json.

    `prints` are the examples' fingerprints (`fingerprints_of`).
    `at_most` is true if the records name the data, but not how much of it the training read.
    `sources` are the files that say so; `same_name` lists the trainings on a dataset `name` whose examples
    could not be compared. None where nothing tells of a training; an adapter without a record is one that is
    not checked.
    """
    own = [] if (base / CONFIG).is_file() else _records(base.resolve(), "")
    records = [*own, *(one for folder in adapters for one in _records(folder.resolve(), UNKNOWN))]
    if not records:
        return None
    found = {one: _examples(one) for one in records}
    hits = {one.source: np.isin(prints, examples) for one, (examples, _) in found.items()}
    certain = [hits[one.source] for one in records if one.whole_pass]
    examples = int(np.any([*hits.values()], axis=0).sum())
    certain_examples = int(np.any(certain, axis=0).sum()) if certain else 0
    return {
        "examples": examples,
        "at_most": certain_examples < examples,
        "sources": [source for source, hit in hits.items() if hit.any()],
        "same_name": [
            one.source
            for one, (_, reasons) in found.items()
            if reasons and any(data["dataset"] == name for data in one.data)
        ],
        "not_checked": list(dict.fromkeys(reason for _, reasons in found.values() for reason in reasons)),
    }


def fingerprint_of(asked: Conversation) -> int:
    """Return the fingerprint of a conversation's prompt, its images by their paths."""
    texts = [message["content"] for message in asked.messages if message["role"] != "system"]
    return fingerprint([*texts, *asked.images])


def fingerprints_of(dataset: EvalDataset, count: int) -> Prints:
    """Return the fingerprints of the first `count` rows of a dataset, as training asks them."""
    if dataset.fingerprints is not None:
        return dataset.fingerprints[:count]
    return np.array([fingerprint_of(one) for one in dataset.conversations[:count]], np.uint64)


def training_rows_of(dataset: EvalDataset, count: int) -> dict[str, object] | None:
    """Return how many of the first `count` rows its compile put into its training split, for results.json.

    None if none is there, or if the file does not tell it.
    """
    if dataset.training_rows is None or dataset.unsplit is None:
        return None
    examples = int(dataset.training_rows[:count].sum())
    if not examples:
        return None
    return {"examples": examples, "dataset": dataset.unsplit.datasets.get(REST, "its training split")}


@cache
def _records(folder: Path, missing: str) -> list[Record]:
    """The records of a folder, of the run that a checkpoint lies in, or of the adapters of a merge.

    If no file tells of a training: one record with `missing` as its reason, none if that is "".
    """
    path = record_of(folder)
    if path:
        inputs = run_of(folder)
        settings = inputs.get("settings")
        settings = settings if isinstance(settings, dict) else {}
        whole_pass = path.name != STARTED and _reads_every_row(settings)
        return [Record(_shown(path), trained_entries(inputs), settings, whole_pass=whole_pass)]
    try:
        merge = read_provenance(folder)
    except ContentError as error:
        return [Record(_shown(folder), missing=str(error))]
    if merge:
        return _records_of_merge(folder, merge)
    datasets = training_data(folder)
    if datasets:  # LLaMA-Factory's card, which lacks max_samples, val_size and max_steps
        cards = [place / CARD for place in run_folders(folder) if (place / CARD).is_file()]
        return [Record(_shown(cards[0]), datasets, whole_pass=False)]
    return [Record(_shown(folder), missing=missing)] if missing else []


def _records_of_merge(folder: Path, merge: Mapping[str, Any]) -> list[Record]:
    """The records of each adapter of a merge, and of the base that a fused model was made of.

    Of an adapter that is gone or has changed since, merge.json still names the datasets.
    """
    records: list[Record] = []
    of_lost_adapters: list[Mapping[str, Any]] = []
    for part in open_parts(merge):
        if part.adapter:
            records += _records(part.adapter.folder.resolve(), UNKNOWN)
        elif part.entry["datasets"]:
            of_lost_adapters += part.entry["datasets"]
        else:
            records.append(Record(_shown(folder), missing=part.problem))
    if of_lost_adapters:
        records.append(Record(_shown(folder / MERGE), of_lost_adapters, whole_pass=False))
    base = merge["base"]["folder"]
    if merge["command"] == "fuse" and base and Path(base).is_dir():
        records += _records(Path(base).resolve(), "")
    return records


def _reads_every_row(settings: Mapping[str, Any]) -> bool:
    """Whether a finished training read all its rows at least once: an end by steps may come before."""
    steps, epochs = settings.get("max_steps"), settings.get("num_train_epochs")
    by_steps = isinstance(steps, int | float) and steps > 0
    part_of_a_pass = isinstance(epochs, int | float) and epochs < 1
    return not by_steps and not part_of_a_pass


@cache
def _examples(record: Record) -> tuple[Prints, list[str]]:
    """What a training read, without the rows that its val_size held out, and what is not known of it."""
    settings, data = record.settings, record.data
    parts, reasons = [np.empty(0, np.uint64)], []
    registry = Path(settings.get("dataset_dir") or registry_folder())
    for one in data:
        try:
            parts.append(_fingerprints(one, registry)[: settings.get("max_samples")])
        except (TuneyardError, UnicodeEncodeError) as error:
            reasons.append(f"{one['dataset']} ({record.source}): {error}")
    every = np.concatenate(parts)
    if (size := settings.get("val_size")) and not reasons:
        every = np.delete(every, held_out_rows(len(every), size, settings.get("seed", 42)))
    if not data:
        reasons.append(f"{record.source}: {record.missing or 'names no dataset'}")
    return every, reasons


def _fingerprints(data: Mapping[str, Any], registry: Path) -> Prints:
    """The fingerprints of a dataset's examples; an error where its file is not that of the training."""
    name = data["dataset"]
    path = Path(data["file"]) if "file" in data else find_dataset(name, registry).path
    if not path.is_file():
        raise RequestError(f"{path} is not there any more")
    if data.get("sha256") not in (None, sha256(path)):
        raise ContentError(f"{path} changed since it was trained on")
    if (beside := current_row_index(path)) is not None:
        return beside.fingerprints
    asked = trained_conversations(replace(find_dataset(name, registry), path=path))
    return np.array([fingerprint_of(one) for one in asked], np.uint64)


def _shown(path: Path) -> str:
    """A path as it may be mailed: from here, or its last two names."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else "/".join(path.parts[-2:])
