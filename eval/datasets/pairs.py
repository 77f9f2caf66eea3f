"""Preference pairs to score: a prompt and two answers to it, from registered datasets and files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.datasets import find_dataset, read_records, registry_folder
from core.errors import ContentError, RequestError, show_value
from core.files import require
from core.prompt import Conversation, conversation, refuse_media
from eval.datasets.clusters import find_clusters
from eval.datasets.dataset import EvalDataset

PAIR = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class PairDataset:
    """A set whose conversations end with the chosen answer, and the rejected ones in the same order."""

    dataset: EvalDataset
    rejected: list[str]


def read_pairs(datasets: tuple[str, ...], files: tuple[Path, ...], cluster: str | None) -> list[PairDataset]:
    """Read registered datasets by name and files by path.

    `RequestError` for what is not there, or no dataset of pairs; `ContentError` for a record that is no pair.
    """
    registry = registry_folder() if datasets else Path()
    found = [(name, find_dataset(name, registry)) for name in datasets]
    named = [(name, one.path, one.entry) for name, one in found]
    named += [(path.stem, require(path, "data file"), {}) for path in files]
    if not named:
        raise RequestError("no dataset: name one with --dataset NAME or --data FILE")
    return [_read(*one, cluster) for one in named]


def _read(name: str, path: Path, entry: dict[str, Any], cluster: str | None) -> PairDataset:
    if entry and entry.get("ranking") is not True:
        raise RequestError(f'{name}: no pairs: its entry in dataset_info.json has no "ranking": true')
    records = read_records(path)
    if not records:
        raise ContentError(f"{path}: no records")
    talks: list[Conversation] = []
    rejected = []
    for number, record in enumerate(records, 1):
        place = f"{path}: record {number}"
        refuse_media(record, entry, place)
        chosen, other = (_answered(record, entry, side, place) for side in PAIR)
        talks.append(chosen)
        rejected.append(other.answer)
    column, clusters = find_clusters(path, records, cluster)
    return PairDataset(EvalDataset(name, path, records, talks, cluster=column, clusters=clusters), rejected)


def _answered(record: Mapping[str, Any], entry: Mapping[str, Any], side: str, place: str) -> Conversation:
    """Return the prompt with one of its answers, as a conversation."""
    columns = dict(entry.get("columns") or {})
    value = record.get(columns.pop(side, side))
    own = {key: name for key, name in columns.items() if key not in PAIR}
    if isinstance(value, str):
        known = {**entry, "columns": {**own, "response": side}} if entry else {}
        return conversation({**record, (side if known else "output"): value}, known, place)
    field = own.get("messages", "conversations" if "conversations" in record else "messages")
    turns = record.get(field)
    if not isinstance(value, dict) or not isinstance(turns, list):
        raise ContentError(f"{place}: {side}: found {show_value(value)}, expected an answer")
    known = {**entry, "columns": own} if entry else {}
    return conversation({**record, field: [*turns, value]}, known, place)
