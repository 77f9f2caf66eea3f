"""Preference data from registered datasets and files: pairs of answers, or answers with a mark."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneyard.core.datasets import Dataset
from tuneyard.core.errors import ContentError, RequestError, show_value, unexpected
from tuneyard.core.prompt import Conversation, conversation
from tuneyard.core.records import MARK, PAIR, format_of
from tuneyard.eval.datasets.dataset import EvalDataset, find_sets, make_dataset, read_rows


@dataclass(frozen=True, slots=True)
class PreferenceDataset:
    """Pairs (conversations with the chosen answer, and the `rejected`), or answers with marks `desirable`."""

    dataset: EvalDataset
    rejected: list[str] = field(default_factory=list)
    desirable: list[bool] = field(default_factory=list)


def read_preferences(
    datasets: tuple[str, ...], files: tuple[Path, ...], cluster: str | None, folder: Path | None = None
) -> list[PreferenceDataset]:
    """Read pairs and marked answers. `folder` is that of --dataset-dir.

    `RequestError` for a dataset without preferences, `ContentError` for a record without pair and mark.
    """
    return [_read(dataset, cluster, folder) for dataset in find_sets(datasets, files, folder)]


def _read(source: Dataset, cluster: str | None, folder: Path | None) -> PreferenceDataset:
    path, records = source.path, read_rows(source.path)
    entry: Mapping[str, Any] = source.entry
    record_format = format_of(records[0], entry)
    mark = record_format.columns.get(MARK)
    if not entry and mark not in records[0]:
        mark = None
    if entry and not record_format.ranking and mark is None:
        raise RequestError(
            f'{source.name}: no preferences: its entry in dataset_info.json has neither "ranking": true '
            f"nor a {MARK}; compile it by a spec of pairs: tuneyard data init FILE"
        )
    if mark is not None:
        dataset = make_dataset(source, records, cluster, folder, images=True)
        desirable = [_mark(record, mark, dataset.place(row)) for row, record in enumerate(records)]
        if len(set(desirable)) == 1:
            raise ContentError(f"{path}: {mark} is {desirable[0]} in every record: AUC needs both")
        return PreferenceDataset(dataset, desirable=desirable)
    dataset = make_dataset(source, records, cluster, folder, _with_chosen, images=True)
    rejected_answers = []
    for row, (record, chosen) in enumerate(zip(records, dataset.answers, strict=True)):
        place = dataset.place(row)
        rejected = conversation(record, entry, place, answer=1).answer
        if chosen == rejected:
            raise ContentError(f"{place}: chosen and rejected are the same: {show_value(chosen)}")
        rejected_answers.append(rejected)
    return PreferenceDataset(dataset, rejected_answers)


def _mark(record: Mapping[str, Any], column: str, place: str) -> bool:
    value = record.get(column)
    if not isinstance(value, bool):
        raise unexpected(place, column, value, "true or false")
    return value


def _with_chosen(record: Mapping[str, Any], entry: Mapping[str, Any], place: str) -> Conversation:
    """The conversation with the chosen answer. `ContentError` unless the record has both answers."""
    columns = format_of(record, entry).columns
    for part in PAIR:
        column = columns.get(part, part)
        if not isinstance(record.get(column), str | dict):
            raise unexpected(place, column, record.get(column), "an answer")
    return conversation(record, entry, place)
