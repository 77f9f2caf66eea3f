"""What a model is prompted with: examples of a registered dataset or of a file, as conversations."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.datasets import Dataset, find_dataset, read_records, registry_folder
from core.errors import ContentError, RequestError
from core.files import require, sha256
from core.prompt import Conversation, Message, conversation, refuse_media
from eval.datasets.clusters import find_clusters


@dataclass(frozen=True, slots=True)
class Shots:
    """Examples with their answers before each question: their dataset, its rows, the turns and their hash."""

    source: str
    rows: list[int]
    turns: list[Message]
    digest: str


@dataclass(frozen=True, slots=True)
class EvalDataset:
    """One test set: its rows as they stand in the file and as conversations, in the same order."""

    name: str
    path: Path
    records: list[dict[str, object]]
    conversations: list[Conversation]
    beside: tuple[Path, ...] = ()
    """Other files that change what is asked, such as worked examples."""
    cluster: str | None = None
    """The column whose equal values make a cluster, and each row's; None where rows are independent."""
    clusters: list[str] | None = None
    shots: Shots | None = None
    """What a candidate with shots is shown before each question."""
    images: Mapping[str, Path] = field(default_factory=dict)
    """The file of each path of an image that its rows name."""

    @property
    def answers(self) -> list[str]:
        """The expected answers, in the order of the rows."""
        return [c.answer for c in self.conversations]

    @property
    def digest(self) -> str:
        """SHA-256 of the file, or over those of all files."""
        sums = [sha256(path) for path in (self.path, *self.beside)]
        return sums[0] if len(sums) == 1 else hashlib.sha256(" ".join(sums).encode()).hexdigest()

    def take(self, rows: Sequence[int]) -> "EvalDataset":
        """Return the set with some of its rows alone, in the order given."""
        return replace(
            self,
            records=[self.records[row] for row in rows],
            conversations=[self.conversations[row] for row in rows],
            clusters=self.clusters and [self.clusters[row] for row in rows],
        )


def read_datasets(
    datasets: tuple[str, ...], files: tuple[Path, ...], cluster: str | None = None, images: bool = False
) -> list[EvalDataset]:
    """Read registered datasets by name and files by path; a set is named by dataset or file stem.

    A .txt file has a prompt in every line that is not blank, and no answers. `cluster` is `find_clusters's`
    column. Rows with images are refused unless `images`; then eval.scoring.images finds their files.
    `RequestError` for what is not there or named twice, `ContentError` for an empty or broken set.
    """
    sets = []
    for name in datasets:
        found = find_dataset(name, registry_folder(name=name))
        sets.append(_read(found, cluster, images))
    sets += [_read(Dataset(path.stem, require(path, "data file"), {}), cluster, images) for path in files]
    names = [questions.name for questions in sets]
    if doubles := {name for name in names if names.count(name) > 1}:
        raise RequestError(f"two datasets are named {', '.join(sorted(doubles))}: rename a file")
    if not sets:
        raise RequestError("no dataset: name one with --dataset NAME or --data FILE")
    return sets


def _read(dataset: Dataset, cluster: str | None, images: bool) -> EvalDataset:
    path, entry = dataset.path, dataset.entry
    records = _read_lines(path) if path.suffix == ".txt" else read_records(path)
    if not records:
        raise ContentError(f"{path}: no records")
    asked = [conversation(record, entry, f"{path}: record {n}") for n, record in enumerate(records, 1)]
    for number, record in enumerate(records, 1):
        refuse_media(record, entry, f"{path}: record {number}", images)
        _check_characters(record, f"{path}: record {number}")
    column, clusters = find_clusters(path, records, cluster)
    return EvalDataset(dataset.name, path, records, asked, cluster=column, clusters=clusters)


def _check_characters(record: dict[str, object], place: str) -> None:
    """Refuse halves of characters (lone surrogates), which no tokenizer takes and no file of text holds."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ContentError(f"{place}: half a character ({half!r}): correct the text") from error


def _read_lines(path: Path) -> list[dict[str, object]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ContentError(f"{path}: not UTF-8 at byte {error.start}") from error
    return [{"instruction": line.strip()} for line in lines if line.strip()]
