"""What a model is prompted with: examples of a registered dataset or of a file, as conversations.

Those that share a premise, say, are not independent, by a column of that name: one of the records, or of the
file that compile writes beside them (core/row_index.py).
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.core.datasets import Dataset, find_dataset, read_records, registry_folder
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import free_path, names_folder, read_json, require, sha256
from tuneyard.core.prompt import Conversation, Message, conversation, refuse_media
from tuneyard.core.row_index import RowIndex, read_row_index, row_index_file
from tuneyard.eval.datasets.unsplit import MANIFEST, Unsplit, find_unsplit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INDEPENDENT = "none"  # --cluster none
DEFAULT = "group"  # the column of records that needs not be named
RAW_FORMATS = (".csv", ".tsv", ".xlsx", ".parquet", ".arrow", ".zip", ".gz", ".zst")
"""Endings of files that `tuneyard data` compiles and no command of eval reads."""
Record = dict[str, object]
Read = Callable[[Mapping[str, object], Mapping[str, object], str], Conversation]


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
    records: list[Record]
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
    pixels: Mapping[str, Any] = field(default_factory=dict)
    """The sizes within which its images are shown, {} without any."""
    unsplit: Unsplit | None = None
    """The split of a file that holds all rows of a compile, and was named by its path."""
    fingerprints: "NDArray[np.uint64] | None" = None
    """Each row's, as its dataset asks it, where that is known and not what the row itself asks."""
    training_rows: "NDArray[np.bool_] | None" = None
    """Whether each row is one of its compile's training split, None where that is not known."""
    other_prompts: str = ""
    """The registered dataset that asks these rows in other words, as training does, if one does."""

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
            fingerprints=None if self.fingerprints is None else self.fingerprints[list(rows)],
            training_rows=None if self.training_rows is None else self.training_rows[list(rows)],
        )


def read_datasets(
    datasets: Sequence[str], files: Sequence[Path], cluster: str | None = None, images: bool = False
) -> list[EvalDataset]:
    """Read the datasets of `find_sets`, clustered by column `cluster`; `ContentError` for a broken one.

    Rows with images are refused unless `images`; then eval.scoring.images finds their files.
    """
    return [make_set(one, read_rows(one.path), cluster, images=images) for one in find_sets(datasets, files)]


def find_sets(datasets: Sequence[str], files: Sequence[Path]) -> list[Dataset]:
    """Return registered datasets, and files by their stem; `RequestError` for none, missing or doubled."""
    sets = [find_dataset(name, registry_folder(name=name)) for name in datasets]
    sets += [Dataset(path.stem, _data_file(path), {}) for path in files]
    names = [one.name for one in sets]
    if doubles := {name for name in names if names.count(name) > 1}:
        raise RequestError(f"two datasets are named {', '.join(sorted(doubles))}: rename a file")
    if beyond := [name for name in names if not names_folder(name)]:
        raise RequestError(f"dataset {beyond[0]!r}: expected a name that can name a folder, of its results")
    if not sets:
        raise RequestError("no dataset: name one with --dataset NAME or --data FILE")
    return sets


def _data_file(path: Path) -> Path:
    """Return a file of --data; `RequestError` if it is missing, or of a format that has to be compiled."""
    require(path, "data file")
    if path.suffix.lower() not in RAW_FORMATS:
        return path
    spec = str(free_path(Path(f"{path.stem}.yaml")))
    init = shlex.join(["tuneyard", "data", "init", str(path), "--out", spec])
    compile_spec = shlex.join(["tuneyard", "data", "compile", spec])
    raise RequestError(
        f"{path}: --data reads records as JSON or JSON Lines, and prompts as .txt: compile it first "
        f"({init} && {compile_spec}), then name the dataset with --dataset"
    )


def read_rows(path: Path) -> list[Record]:
    """Return a file's records, of a .txt its lines, prompts without answers; `ContentError` for none."""
    records: list[Record]
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ContentError(f"{path}: not UTF-8 at byte {error.start}") from error
        records = [{"instruction": line.strip()} for line in lines if line.strip()]
    else:
        records = read_records(path)
    if not records:
        raise ContentError(f"{path}: no records")
    return records


def make_set(
    found: Dataset,
    records: list[Record],
    cluster: str | None,
    read: Read = conversation,
    images: bool = False,
) -> EvalDataset:
    """Return a dataset's records with what is asked by each, as `read` has it of record, entry and place."""
    talks = []
    for number, record in enumerate(records, 1):
        place = f"{found.path}: record {number}"
        refuse_media(record, found.entry, place, images)
        talks.append(read(record, found.entry, place))
        try:
            json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:  # which no tokenizer takes and no file of text holds
            half = error.object[error.start]
            raise ContentError(f"{place}: half a character ({half!r}): correct the text") from error
    column, clusters = find_clusters(found.path, records, cluster)
    manifest = _manifest(found.path)[0]
    unsplit = find_unsplit(found.path, manifest, len(records)) if manifest and not found.entry else None
    return EvalDataset(
        found.name,
        found.path,
        records,
        talks,
        cluster=column,
        clusters=clusters,
        unsplit=unsplit,
        fingerprints=unsplit.fingerprints() if unsplit else None,
        training_rows=unsplit.training_rows() if unsplit else None,
        other_prompts=unsplit.other_prompts(talks) if unsplit else "",
    )


def trained_conversations(found: Dataset, most: int | None = None) -> Iterator[Conversation]:
    """Yield the examples of a dataset, at `most` so many, as training reads them."""
    for number, record in enumerate(read_records(found.path)[:most], 1):
        yield conversation(record, found.entry, f"{found.path}: record {number}")


def find_clusters(
    path: Path, records: Sequence[Record], wanted: str | None
) -> tuple[str | None, list[str] | None]:
    """Return the cluster column and each record's cluster; both None where records are independent.

    The column is `wanted`, else the one that the dataset's manifest names, else `group` where records have
    it. `RequestError` names the columns there are; `ContentError` where only some records have a cluster.
    """
    declared = _manifest(path)[0].get("cluster")
    in_use = any(record.get(DEFAULT) is not None for record in records)
    column = wanted or (declared if isinstance(declared, str) else None) or (DEFAULT if in_use else None)
    if column is None or wanted == INDEPENDENT:
        return None, None
    beside = _beside(path, len(records))
    if column in beside:
        return column, beside[column]
    if all(record.get(column) is None for record in records):
        names = ", ".join(dict.fromkeys([*beside, *(name for record in records for name in record)]))
        says = "" if wanted else f" (which {MANIFEST} names)"
        raise RequestError(
            f"{path}: no column {column!r}{says} to cluster by, found {names}: name one with --cluster, "
            f"or take every example as independent with --cluster {INDEPENDENT}"
        )
    found = [record.get(column) for record in records]
    if None in found:
        raise ContentError(
            f"{path}: record {found.index(None) + 1}: no {column}, but "
            f"{len(found) - found.count(None)} other records have one"
        )
    return column, [str(value) for value in found]


def _manifest(path: Path) -> tuple[Record, Record]:
    """The manifest of the compiled dataset that a file belongs to, and what it says of the file; else {}."""
    manifest = path.parent / MANIFEST
    found = read_json(manifest) if manifest.is_file() else None
    files = found.get("files") if isinstance(found, dict) else None
    own = files.get(path.name) if isinstance(files, dict) else None
    return (found, own) if isinstance(found, dict) and isinstance(own, dict) else ({}, {})


def examples_of(path: Path) -> RowIndex | None:
    """Return what compile wrote beside a file of records, None where the file is another one by now."""
    found = read_row_index(path)
    return found if found and _manifest(path)[1].get("sha256") in (None, sha256(path)) else None


def _beside(path: Path, count: int) -> dict[str, list[str]]:
    """The clusters beside a file, by column; `ContentError` where they are of other records."""
    if not row_index_file(path).is_file():
        return {}
    found = examples_of(path)
    if found is None or len(found.fingerprints) != count:
        raise ContentError(
            f"{path}: changed since it was compiled, {row_index_file(path).name} is of other records: "
            f"compile it again, or take every example as independent with --cluster {INDEPENDENT}"
        )
    return {name: [str(number) for number in numbers] for name, numbers in found.clusters.items()}
