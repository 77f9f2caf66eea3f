"""merge.json: the adapters, weights and base from which `merge` or `fuse` made a folder.

The check for training examples, `adapter show`, the card and the card of the hub read this file. README.md is
written from it for people, and no command reads it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.adapters.adapter import Adapter
from tuneyard.adapters.store import open_any
from tuneyard.adapters.weighted import Weighted
from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import ContentError, TuneyardError
from tuneyard.core.files import read_object, versions
from tuneyard.core.installation.checkout import ROOT, version
from tuneyard.core.training.training_run import training_data
from tuneyard.core.weights.base_models import Base

MERGE = "merge.json"
Datasets = list[dict[str, Any]]
"""Training datasets of one adapter: their names, files and hashes, as merge.json lists them."""
SCHEMA = ROOT / "core/schemas/merge.json"


@dataclass(frozen=True, slots=True)
class MergePart:
    """An adapter in a merge: its entry in merge.json, and the opened adapter or the `problem` with it."""

    entry: Mapping[str, Any]
    adapter: Adapter | None
    problem: str = ""


def provenance(
    command: str,
    weighted: Sequence[Weighted[Adapter]],
    datasets: Sequence[Datasets],
    base: Base | None,
    details: Mapping[str, object],
) -> dict[str, Any]:
    """The content of merge.json. `details` are the fields of only one of the two commands."""
    adapters = []
    for item, adapter_datasets in zip(weighted, datasets, strict=True):
        adapter = item.adapter
        adapters.append(
            {
                "name": adapter.name,
                "folder": str(adapter.folder),
                "weight": item.weight,
                "rank": adapter.config.rank,
                "weights_sha256": adapter.weights_sha256,
                "digest": adapter.digest,
                "datasets": adapter_datasets,
            }
        )
    return {
        "command": command,
        **details,
        "base": {"name": base_name(weighted, base), "folder": str(base.folder) if base else None},
        "adapters": adapters,
        "versions": versions("numpy"),
        "tuneyard": version(),
    }


def base_name(weighted: Sequence[Weighted[Adapter]], base: Base | None) -> str | None:
    """The base's name in the adapters' configs, or its folder if the names differ; None without a name."""
    names = [item.adapter.config.base for item in weighted if item.adapter.config.base]
    if not names:
        return None
    if base and len(set(names)) > 1:
        return str(base.folder)
    return names[0]


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """Read the merge.json of a folder, None if it has none; `ContentError` if it is damaged."""
    path = folder / MERGE
    if not path.is_file():
        return None
    record = read_object(path)
    check_file(path, read_object(SCHEMA), record)
    return record


def open_parts(record: Mapping[str, Any]) -> list[MergePart]:
    """Open the adapters of a merge again. A part that is gone or has changed has its entry alone."""
    parts = []
    for entry in record["adapters"]:
        try:
            adapter = open_any(Path(entry["folder"]))
        except TuneyardError as error:
            parts.append(MergePart(entry, None, str(error)))
            continue
        if adapter.digest == entry["digest"]:
            parts.append(MergePart(entry, adapter))
        else:
            parts.append(MergePart(entry, None, f"{entry['folder']} changed since it was merged"))
    return parts


def training_datasets(folder: Path) -> Datasets:
    """The datasets that an adapter was trained on. A merge has the datasets of its parts."""
    try:
        datasets = training_data(folder)
        record = read_provenance(folder)
    except ContentError:  # a damaged record names no datasets, and does not stop a merge
        return []
    if datasets or record is None:
        return datasets
    merged: Datasets = []
    for entry in record["adapters"]:
        for dataset in entry["datasets"]:
            if dataset not in merged:
                merged.append(dataset)
    return merged
