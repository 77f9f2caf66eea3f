"""Which examples a model was trained on, as far as the folders of its weights tell.

A training of ours left run.json (started.json while it ran), plain LLaMA-Factory names its datasets in
README.md, and a merge or a fused model of ours names its adapters there, which are followed.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapters.config import CONFIG
from adapters.output import CARD, made_from
from adapters.store import Adapter
from core.datasets import find_dataset, read_records, registry_folder
from core.errors import ContentError, RequestError, TuneyardError
from core.examples import fingerprint
from core.files import sha256
from core.prompt import Conversation, conversation
from core.runs import RUN, names_in, record_of, run_folders, run_of
from eval.datasets.dataset import examples_of
from eval.statistics.selection import held_out_rows

Prints = NDArray[np.uint64]
SENTENCE = re.compile(r"fine-tuned version of .* on (the .+?) datasets?\.")  # of transformers' model card


@dataclass(frozen=True, slots=True)
class Training:
    """What one training read: the file that says so, its datasets, their examples, and what is not known."""

    source: str
    datasets: tuple[str, ...]
    fingerprints: Prints
    not_checked: tuple[str, ...]


def trainings_of(adapters: Iterable[Path], base: Path) -> list[Training]:
    """Return the trainings that made the weights of these folders; an adapter without a record says so."""
    own = () if (base / CONFIG).is_file() else _trainings(base.resolve())
    return [*own, *(training for folder in adapters for training in _of_adapter(folder.resolve()))]


def trained_on(trainings: Sequence[Training], name: str, asked: Sequence[Conversation]) -> dict[str, object]:
    """Return how many of a dataset's examples were trained on, and where that is said, for results.json.

    `same_name` lists the trainings on a dataset `name` whose examples could not be compared.
    """
    prints = np.array([fingerprint_of(one) for one in asked], np.uint64)
    hits = {training.source: np.isin(prints, training.fingerprints) for training in trainings}
    every = np.any([*hits.values()], axis=0) if hits else np.zeros(len(asked), bool)
    return {
        "examples": int(every.sum()),
        "sources": [source for source, hit in hits.items() if hit.any()],
        "same_name": [t.source for t in trainings if t.not_checked and name in t.datasets],
        "not_checked": list(dict.fromkeys(reason for t in trainings for reason in t.not_checked)),
    }


def fingerprint_of(asked: Conversation) -> int:
    """Return the fingerprint of a conversation's prompt, its images by their paths."""
    texts = [message["content"] for message in asked.messages if message["role"] != "system"]
    return fingerprint([*texts, *asked.images])


def _of_adapter(folder: Path) -> Sequence[Training]:
    missing = f"no {RUN}, and no {CARD} that names its datasets"
    return _trainings(folder) or (_unknown(folder, missing),)


@cache
def _trainings(folder: Path) -> tuple[Training, ...]:
    """The trainings of a folder, or of the run that a checkpoint lies in; none where nothing tells of one."""
    if record := record_of(folder):  # of ours: of its data those datasets that were no eval_dataset
        inputs = run_of(folder)
        settings, data = inputs.get("settings"), inputs.get("data")
        settings = settings if isinstance(settings, dict) else {}
        names = names_in(settings.get("dataset"))
        entries = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
        return (_training(record, [one for one in entries if one.get("dataset") in names], settings),)
    for card in (place / CARD for place in run_folders(folder)):
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        if merged := tuple(_merged(card)):
            return merged
        if said := SENTENCE.search(text):
            names = re.findall(r"the (\S+?)(?=,|$| and )", said[1])
            return (_training(card, [{"dataset": name} for name in names], {}),)
    return ()


def _merged(card: Path) -> Iterator[Training]:
    """The trainings of the adapters that one of our cards names, each as long as it is the same adapter."""
    for found in made_from(card):
        if isinstance(found, Adapter):
            yield from _of_adapter(found.folder)
        else:
            yield _unknown(card.parent, str(found))


def _unknown(folder: Path, reason: str) -> Training:
    return Training(_shown(folder), (), np.empty(0, np.uint64), (f"{_shown(folder)}: {reason}",))


def _training(source: Path, data: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Training:
    """What a training read, without the rows that its val_size held out."""
    parts, reasons = [np.empty(0, np.uint64)], []
    registry = Path(settings.get("dataset_dir") or registry_folder())
    for one in data:
        try:
            parts.append(_fingerprints(one, registry)[: settings.get("max_samples")])
        except (TuneyardError, UnicodeEncodeError) as error:
            reasons.append(f"{one['dataset']} ({_shown(source)}): {error}")
    every = np.concatenate(parts)
    if (size := settings.get("val_size")) and not reasons:
        every = np.delete(every, held_out_rows(len(every), size, settings.get("seed", 42)))
    if not data:
        reasons.append(f"{_shown(source)}: names no dataset")
    return Training(_shown(source), tuple(str(one["dataset"]) for one in data), every, tuple(reasons))


def _fingerprints(data: Mapping[str, Any], registry: Path) -> Prints:
    """The fingerprints of a dataset's examples; an error where its file is not that of the training."""
    path = Path(data["file"]) if "file" in data else find_dataset(data["dataset"], registry).path
    if not path.is_file():
        raise RequestError(f"{path} is not there any more")
    if data.get("sha256") not in (None, sha256(path)):
        raise ContentError(f"{path} changed since it was trained on")
    if (beside := examples_of(path)) is not None:
        return beside.fingerprints
    entry, records = find_dataset(data["dataset"], registry).entry, read_records(path)
    asked = (conversation(one, entry, f"{path}: record {n}") for n, one in enumerate(records, 1))
    return np.array([fingerprint_of(one) for one in asked], np.uint64)


def _shown(path: Path) -> str:
    """A path as it may be mailed: from here, or its last two names."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else "/".join(path.parts[-2:])
