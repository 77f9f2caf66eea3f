"""Preference data to score, from registered datasets and files: pairs of answers, or answers with a mark."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.datasets import find_dataset, read_records, registry_folder
from core.errors import ContentError, RequestError, show_value
from core.files import require
from core.prompt import Conversation, conversation, refuse_media
from eval.datasets.clusters import find_clusters
from eval.datasets.dataset import EvalDataset

PAIR = ("chosen", "rejected")
MARK = "kto_tag"


@dataclass(frozen=True, slots=True)
class PreferenceDataset:
    """Of pairs the conversations end with the chosen answer, and `rejected` are the others in their order.

    Of single answers (KTO) `desirable` holds their marks.
    """

    dataset: EvalDataset
    rejected: list[str] = field(default_factory=list)
    desirable: list[bool] = field(default_factory=list)


def read_preferences(
    datasets: tuple[str, ...], files: tuple[Path, ...], cluster: str | None
) -> list[PreferenceDataset]:
    """Read registered datasets by name and files by path.

    `RequestError` for what is not there, or no preference data; `ContentError` for a record that is no pair
    or has no mark, and for marks that are all alike.
    """
    found = [(name, find_dataset(name, registry_folder(name=name))) for name in datasets]
    named = [(name, one.path, one.entry) for name, one in found]
    named += [(path.stem, require(path, "data file"), {}) for path in files]
    if not named:
        raise RequestError("no dataset: name one with --dataset NAME or --data FILE")
    return [_read(*one, cluster) for one in named]


def _read(name: str, path: Path, entry: dict[str, Any], cluster: str | None) -> PreferenceDataset:
    records = read_records(path)
    if not records:
        raise ContentError(f"{path}: no records")
    mark = (entry.get("columns") or {}).get(MARK) if entry else MARK if MARK in records[0] else None
    if entry and entry.get("ranking") is not True and mark is None:
        raise RequestError(
            f'{name}: no preferences: its entry in dataset_info.json has neither "ranking": true nor a {MARK}'
        )
    talks: list[Conversation] = []
    rejected, desirable = [], []
    for number, record in enumerate(records, 1):
        place = f"{path}: record {number}"
        refuse_media(record, entry, place)
        if mark is None:
            chosen, other = (_answered(record, entry, side, place) for side in PAIR)
            if chosen.answer == other.answer:
                raise ContentError(f"{place}: chosen and rejected are the same: {show_value(chosen.answer)}")
            rejected.append(other.answer)
            talks.append(chosen)
        else:
            desirable.append(_mark(record, mark, place))
            talks.append(conversation(record, entry, place))
    if mark and len(set(desirable)) == 1:
        raise ContentError(f"{path}: {mark} is {desirable[0]} in every record: AUC needs both")
    column, clusters = find_clusters(path, records, cluster)
    dataset = EvalDataset(name, path, records, talks, cluster=column, clusters=clusters)
    return PreferenceDataset(dataset, rejected, desirable)


def _mark(record: Mapping[str, Any], column: str, place: str) -> bool:
    value = record.get(column)
    if not isinstance(value, bool):
        raise ContentError(f"{place}: {column}: found {show_value(value)}, expected true or false")
    return value


def _answered(record: Mapping[str, Any], entry: Mapping[str, Any], side: str, place: str) -> Conversation:
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
