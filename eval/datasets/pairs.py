"""Preference data to score, from registered datasets and files: pairs of answers, or answers with a mark."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tuneyard.core.datasets import Dataset
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.prompt import Conversation, conversation
from tuneyard.eval.datasets.dataset import EvalDataset, find_sets, make_set, read_rows

PAIR = ("chosen", "rejected")
MARK = "kto_tag"


@dataclass(frozen=True, slots=True)
class PreferenceDataset:
    """Pairs (conversations with the chosen answer, and the `rejected`), or answers with marks `desirable`."""

    dataset: EvalDataset
    rejected: list[str] = field(default_factory=list)
    desirable: list[bool] = field(default_factory=list)


def read_preferences(
    datasets: tuple[str, ...], files: tuple[Path, ...], cluster: str | None
) -> list[PreferenceDataset]:
    """Read preference data; `RequestError` if it is none, `ContentError` for a record without either."""
    return [_read(found, cluster) for found in find_sets(datasets, files)]


def _read(found: Dataset, cluster: str | None) -> PreferenceDataset:
    path, records = found.path, read_rows(found.path)
    entry: Mapping[str, Any] = found.entry
    columns = (entry.get("columns") or {}) if entry else {name: name for name in records[0]}
    mark = columns.get(MARK)
    if entry and entry.get("ranking") is not True and mark is None:
        raise RequestError(
            f'{found.name}: no preferences: its entry in dataset_info.json has neither "ranking": true nor a '
            f"{MARK}"
        )
    places = [(record, f"{path}: record {number}") for number, record in enumerate(records, 1)]
    if mark is not None:
        dataset = make_set(found, records, cluster)
        desirable = [_mark(record, mark, place) for record, place in places]
        if len(set(desirable)) == 1:
            raise ContentError(f"{path}: {mark} is {desirable[0]} in every record: AUC needs both")
        return PreferenceDataset(dataset, desirable=desirable)
    dataset = make_set(found, records, cluster, partial(_answered, PAIR[0]))
    rejected = [_answered(PAIR[1], record, entry, place).answer for record, place in places]
    for (_, place), chosen, other in zip(places, dataset.answers, rejected, strict=True):
        if chosen == other:
            raise ContentError(f"{place}: chosen and rejected are the same: {show_value(chosen)}")
    return PreferenceDataset(dataset, rejected)


def _mark(record: Mapping[str, Any], column: str, place: str) -> bool:
    value = record.get(column)
    if not isinstance(value, bool):
        raise ContentError(f"{place}: {column}: found {show_value(value)}, expected true or false")
    return value


def _answered(side: str, record: Mapping[str, Any], entry: Mapping[str, Any], place: str) -> Conversation:
    """Return the prompt with one of its answers, as a conversation."""
    columns = dict(entry.get("columns") or {})
    column = columns.pop(side, side)
    value = record.get(column)
    own = {key: name for key, name in columns.items() if key not in PAIR}
    if isinstance(value, str):
        known = {**entry, "columns": {**own, "response": side}} if entry else {}
        return conversation({**record, (side if known else "output"): value}, known, place)
    field = own.get("messages", "conversations" if "conversations" in record else "messages")
    turns = record.get(field)
    if not isinstance(value, dict) or not isinstance(turns, list):
        raise ContentError(f"{place}: {column}: found {show_value(value)}, expected an answer")
    known = {**entry, "columns": own} if entry else {}
    return conversation({**record, field: [*turns, value]}, known, place)
