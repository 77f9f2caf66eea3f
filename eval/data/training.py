"""Find the examples that a model was trained on, from the records in the folders of its weights.

`tuneyard recipe train` leaves training.json (started.json while it runs), and the fingerprints of its rows
(core/datasets/trained_examples.py). Plain LLaMA-Factory names its datasets in README.md, which are read
again. A merge or a fused model names its adapters in merge.json, and these are followed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.adapters.model.provenance import CARD, open_parts
from tuneyard.core.datasets import registry_folder
from tuneyard.core.datasets.trained_examples import (
    contains,
    has_known_rows,
    is_drawn,
    read_trained_rows,
    trained_examples,
)
from tuneyard.core.errors import ContentError
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import _
from tuneyard.core.records.results_record import TrainedOn
from tuneyard.core.records.run_record import Settings
from tuneyard.core.records.training_record import TrainedDataset
from tuneyard.core.training.training_run import (
    MERGE,
    STARTED,
    TRAINED_ROWS,
    TRAINING,
    names_in,
    read_provenance,
    record_of,
    training_data,
    training_settings,
)
from tuneyard.core.weights.adapter_files import CONFIG

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Fingerprints = NDArray[np.uint64]
    """Fingerprints of examples."""

UNKNOWN = _(  # of an adapter
    "no record of its training rows (no {file}, and no {card} that names its datasets)",
    file=TRAINING,
    card=CARD,
)


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """The record of a training: the file's path as shown, its datasets and settings.

    `rows` are the fingerprints that are kept next to the weights, in ascending order, None without any.
    `missing` is the reason why there is no record. `whole_pass` is False if the training may have read fewer
    rows than the datasets and settings name.
    """

    source: str
    data: Sequence[TrainedDataset] = ()
    settings: Settings = field(default_factory=dict)
    missing: str = ""
    whole_pass: bool = True
    rows: "Fingerprints | None" = None


def trained_on(
    adapters: Iterable[Path], base: Path, name: str, fingerprints: "Fingerprints", folder: Path | None = None
) -> TrainedOn | None:
    """Count the examples of a dataset that the weights of these folders were trained on, for results.json.

    `fingerprints` are the examples' fingerprints. `at_most` is true if the records name the
    data, but not how much of it the training read. `sources` are the files of these records. `same_name`
    lists the trainings on a dataset `name` whose examples could not be compared. None if no file records a
    training. An adapter without a record is `not_checked`. `chose` lists the trainings that chose their
    checkpoint by the loss on a dataset `name`. `folder` is that of --dataset-dir, for trainings
    that name none.
    """
    import numpy as np

    records: list[Record] = []
    if not (base / CONFIG).is_file():
        records += _records(base.resolve(), "")
    for adapter in adapters:
        records += _records(adapter.resolve(), UNKNOWN)
    if not records:
        return None
    hits = {}
    certain = [np.zeros(len(fingerprints), bool)]
    same_name: list[str] = []
    not_checked: list[str] = []
    chose: list[str] = []
    for record in dict.fromkeys(records):  # two candidates may share an adapter
        reasons: list[str] = []
        if record.rows is not None:
            hits[record.source] = contains(record.rows, fingerprints)
        else:
            examples, reasons = _examples(record, folder)
            hits[record.source] = np.isin(fingerprints, examples)
        if record.whole_pass:
            certain.append(hits[record.source])
        if reasons and any(data["dataset"] == name for data in record.data):
            same_name.append(record.source)
        not_checked += reasons
        eval_datasets = names_in(record.settings.get("eval_dataset"))
        if record.settings.get("load_best_model_at_end") and name in eval_datasets:
            chose.append(record.source)
    count = int(np.any([*hits.values()], axis=0).sum())
    return {
        "examples": count,
        "at_most": int(np.any(certain, axis=0).sum()) < count,
        "sources": [source for source, hit in hits.items() if hit.any()],
        "same_name": same_name,
        "chose": chose,
        "not_checked": list(dict.fromkeys(not_checked)),
    }


@cache
def _records(folder: Path, missing: str) -> list[Record]:
    """The records of a folder, of a checkpoint's run, or of the adapters of a merge.

    Without any: one record with the reason `missing`, or none if that is "".
    """
    path = record_of(folder)
    try:
        if path:
            settings = training_settings(folder)
            data, rows = training_data(folder), read_trained_rows(folder)
            whole_pass = path.name != STARTED and _reads_every_row(settings, data)
            return [Record(_shown(path), data, settings, whole_pass=whole_pass, rows=rows)]
        merge = read_provenance(folder)
        if merge:
            return _records_of_merge(folder, merge)
        rows = read_trained_rows(folder)
    except ContentError as error:
        return [Record(_shown(folder), missing=error.message)]
    if rows is not None:  # of an extracted adapter
        return [Record(_shown(folder / TRAINED_ROWS), whole_pass=False, rows=rows)]
    card, datasets = record_of(folder, [CARD]), training_data(folder)
    if card and datasets:  # LLaMA-Factory's card, which lacks max_samples, val_size and max_steps
        return [Record(_shown(card), datasets, whole_pass=False)]
    return [Record(_shown(folder), missing=missing)] if missing else []


def _records_of_merge(folder: Path, merge: JsonObject) -> list[Record]:
    """The records of each adapter of a merge, and of the base that a fused model was made of.

    If an adapter is gone or has changed since, the fingerprints next to the result count. Without these,
    merge.json still names the datasets.
    """
    parts = open_parts(merge)
    rows = read_trained_rows(folder)
    if rows is not None and not all(part.adapter for part in parts):
        return [Record(_shown(folder / TRAINED_ROWS), whole_pass=False, rows=rows)]
    records: list[Record] = []
    of_lost_adapters: list[TrainedDataset] = []
    for part in parts:
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


def _reads_every_row(settings: Settings, data: Sequence[TrainedDataset]) -> bool:
    """True if a finished training read all its rows at least once. max_steps may end it before."""
    if not has_known_rows(settings) or any(map(is_drawn, data)):
        return False
    steps, epochs = settings.get("max_steps"), settings.get("num_train_epochs")
    by_steps = isinstance(steps, int | float) and steps > 0
    part_of_a_pass = isinstance(epochs, int | float) and epochs < 1
    return not by_steps and not part_of_a_pass


@cache
def _examples(record: Record, folder: Path | None) -> "tuple[Fingerprints, list[str]]":
    """Fingerprints of the rows that a training read, and the reasons why some are unknown."""
    settings = record.settings
    registry = Path(settings.get("dataset_dir") or registry_folder(folder))
    examples, problems = trained_examples(record.data, settings, registry)
    reasons: list[str] = []
    for dataset, error in problems.items():
        reasons.append(_("{dataset} ({source}): {error}", dataset=dataset, source=record.source, error=error))
    if not record.data:
        reason = record.missing or _("names no dataset")
        reasons.append(_("{source}: {reason}", source=record.source, reason=reason))
    return examples, reasons


def _shown(path: Path) -> str:
    """A path without the names of private folders: relative to here, or its last two names."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else "/".join(path.parts[-2:])
