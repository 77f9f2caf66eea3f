"""Test datasets: examples of a registered dataset or of a file, as conversations.

Examples that share a cluster (a premise, for instance) are not independent. The cluster is a column of the
records, or of the row index that compile writes next to them (core/datasets/compiled.py).
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuneyard.core.datasets import Dataset, find_dataset, read_records, read_registry, registry_folder
from tuneyard.core.datasets.compiled import EMPTY, MANIFEST, manifest_beside, read_row_index, row_index_file
from tuneyard.core.errors import ContentError, RequestError, nearest_name
from tuneyard.core.files import check_characters, free_path, names_folder, require, sha256, text_sha256
from tuneyard.core.files.bounded_reading import text_lines
from tuneyard.core.language.message import _, joined, marked, relative, typed
from tuneyard.core.language.messages import warn
from tuneyard.core.llamafactory.prompt import Messages, PromptAndAnswer, prompt_and_answer, refuse_media
from tuneyard.core.records import ALPACA, Entry, format_of
from tuneyard.eval.data.origin import Origin, find_origin
from tuneyard.eval.data.scalar_answers import Record, with_text_answers

INDEPENDENT = "none"  # --cluster none
DEFAULT = "group"  # the cluster column if none is named
RAW_FORMATS = (".csv", ".tsv", ".xlsx", ".parquet", ".arrow", ".zip", ".gz", ".zst", ".md", ".docx", ".db")
"""Suffixes of files that `tuneyard data` compiles and no command of eval reads."""
MISSPELT = marked("{place}: no {name!r}, found {near!r}: write both alike")
MISSPELT_IN_ENTRY = marked("{place}: no {name!r}, found {near!r} in `columns` of its entry: write both alike")


@dataclass(frozen=True, slots=True)
class Shots:
    """Examples with their answers before each question: their dataset, its rows, the turns and their hash."""

    source: str
    rows: list[int]
    turns: Messages
    digest: str


@dataclass(frozen=True, slots=True)
class EvalDataset:
    """A test dataset: its rows as records of the file and as conversations, in the same order."""

    name: str
    path: Path
    records: list[Record]
    conversations: list[PromptAndAnswer]
    origin: Origin
    """The rows' fingerprints, and which of them are rows of a training split."""
    digest: str
    """SHA-256 of the file, and of other files that the prompts depend on, such as examples and images."""
    entry: Mapping[str, Any] = field(default_factory=dict)
    """The entry of a registered dataset, which names the columns of the records."""
    about: str = ""
    """The description in its spec, of a file that a compile wrote."""
    cluster: str | None = None
    """The column whose equal values make a cluster, None if rows are independent."""
    clusters: list[str] | None = None
    """Each row's cluster."""
    shots: Shots | None = None
    """The examples before each question, for candidates with shots."""
    images: Mapping[str, Path] = field(default_factory=dict)
    """The file of each image path in the rows."""
    pixels: Mapping[str, Any] = field(default_factory=dict)
    """Limits of the image size, {} without images."""
    record_numbers: Sequence[int] = range(1, sys.maxsize)
    """Each row's number in the file, from 1."""

    @property
    def answers(self) -> list[str]:
        """The expected answers, in the order of the rows."""
        return [conversation.answer for conversation in self.conversations]

    def place(self, row: int) -> str:
        """A row's place for messages: `FILE: record N`."""
        return f"{relative(self.path)}: record {self.record_numbers[row]}"

    def take(self, rows: Sequence[int]) -> "EvalDataset":
        """The dataset with some of its rows, in the given order."""
        clusters = None
        if self.clusters:
            clusters = [self.clusters[row] for row in rows]
        return replace(
            self,
            records=[self.records[row] for row in rows],
            conversations=[self.conversations[row] for row in rows],
            origin=self.origin.take(rows),
            clusters=clusters,
            record_numbers=[self.record_numbers[row] for row in rows],
        )


def digest_of(*files: Path) -> str:
    """SHA-256 of a file, or of the hashes of several."""
    sums = [sha256(file) for file in files]
    if len(sums) == 1:
        return sums[0]
    return text_sha256(" ".join(sums))


def read_datasets(
    datasets: Sequence[str],
    files: Sequence[Path],
    cluster: str | None = None,
    images: bool = False,
    *,
    folder: Path | None = None,
) -> list[EvalDataset]:
    """Read registered datasets and files, clustered by column `cluster`; `ContentError` for a broken one.

    Rows with images are refused unless `images`. Then eval.scoring.images finds their files. `folder` is that
    of --dataset-dir.
    """
    return [
        make_dataset(dataset, cluster, folder, images) for dataset in find_datasets(datasets, files, folder)
    ]


def find_datasets(datasets: Sequence[str], files: Sequence[Path], folder: Path | None) -> list[Dataset]:
    """Find registered datasets, those of --dataset-dir's `folder`, and files by their stem.

    `RequestError` for a missing one, for two of the same name, and if there is none.
    """
    for name in datasets:
        if Path(name).is_file():
            _refuse_compiled(Path(name))
    sets = [find_dataset(name, registry_folder(folder, name)) for name in datasets]
    sets += [Dataset(path.stem, _data_file(path), {}) for path in files]
    names = [dataset.name for dataset in sets]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise RequestError(_("two datasets are named {name}: rename a file", name=", ".join(doubles)))
    for name in names:
        if not names_folder(name):
            raise RequestError(
                _("dataset {name!r}: expected a name that can name a folder, of its results", name=name)
            )
    if not sets:
        raise RequestError(_("no dataset: name one with --dataset NAME or --data FILE"))
    return sets


def _refuse_compiled(path: Path) -> None:
    """`RequestError` for a file of registered datasets, or their folder, with their names."""
    for folder in path.parents:
        names = []
        for name, entry in read_registry(folder).items():
            if (folder / str(entry.get("file_name"))).is_relative_to(path):
                names.append(name)
        if names:
            raise RequestError(
                _(
                    "{path}: compiled already; name it with --dataset {names}",
                    path=path,
                    names=joined(names, _(" or ")),
                )
            )


def _data_file(path: Path) -> Path:
    """Check a file of --data; `RequestError` if it is missing, or in a format that must be compiled first."""
    require(path, _("data file"))
    if path.is_file() and path.suffix.lower() not in RAW_FORMATS:
        return path
    _refuse_compiled(path)
    spec = str(free_path(Path(f"{path.stem}.yaml")))
    init = typed(["tuneyard", "data", "init", str(path), "--out", spec])
    compile_spec = typed(["tuneyard", "data", "compile", spec])
    raise RequestError(
        _(
            "{path}: --data reads records as JSON or JSON Lines, and prompts as .txt: compile it "
            "first ({init} && {compile}), then name the dataset with --dataset",
            path=path,
            init=init,
            compile=compile_spec,
        )
    )


def read_rows(path: Path) -> list[Record]:
    """Read a file's records, or the prompts in the lines of a .txt; `ContentError` if there are none."""
    records: list[Record]
    if path.suffix == ".txt":
        records = []
        for _number, line in text_lines(path):
            for prompt in line.split("\r"):
                if prompt.strip():
                    records.append({"instruction": prompt.strip()})
    else:
        records = read_records(path)
    if not records:
        raise ContentError(
            _(
                "{path}: no records; expected objects with instruction and output, in a JSON list or "
                "one a line",
                path=path,
            )
        )
    return records


def make_dataset(dataset: Dataset, cluster: str | None, folder: Path | None, images: bool) -> EvalDataset:
    """Read and convert records, and find their clusters and which of them are training rows.

    `folder` is that of --dataset-dir.
    """
    records = read_rows(dataset.path)
    if not dataset.entry:
        records = [with_text_answers(record) for record in records]
    conversations = []
    file = relative(dataset.path)
    for number, record in enumerate(records, 1):
        place = f"{file}: record {number}"
        refuse_media(record, dataset.entry, place, images)
        _check_names(record, dataset.entry, place)
        conversations.append(prompt_and_answer(record, dataset.entry, place))
        check_characters(json.dumps(record, ensure_ascii=False), place)
    digest = sha256(dataset.path)
    compiled = manifest_beside(dataset.path)
    manifest = compiled[0] if compiled else EMPTY
    has_changed = compiled is not None and compiled[1].sha256 != digest
    if has_changed:
        warn(_("{path}: the file has changed since it was compiled", path=dataset.path))
    column, clusters = find_clusters(
        dataset.path, records, cluster, manifest.cluster, has_changed=has_changed
    )
    origin = find_origin(dataset.path, digest, conversations, folder, is_registered=bool(dataset.entry))
    return EvalDataset(
        dataset.name,
        dataset.path,
        records,
        conversations,
        origin,
        digest,
        dataset.entry,
        manifest.about,
        cluster=column,
        clusters=clusters,
    )


def _check_names(record: Record, entry: Entry, place: str) -> None:
    """Refuse a question, an input or an answer under a misspelt name: it would be read as an empty text."""
    columns = format_of(record, entry).columns
    for part in ALPACA:
        name, names, template = part, columns.keys() - ALPACA, MISSPELT_IN_ENTRY
        if part in columns:
            name, names, template = columns[part], record.keys() - columns.values(), MISSPELT
        if name in record:
            continue
        near = nearest_name(name, names)
        if near:
            raise ContentError(_(template, place=place, name=name, near=near))


def find_clusters(
    path: Path, records: Sequence[Record], requested: str | None, compiled: str | None, *, has_changed: bool
) -> tuple[str | None, list[str] | None]:
    """Find the cluster column and each record's cluster; both None if records are independent.

    The column is the `requested` one, otherwise the `compiled` one of the manifest, otherwise `group`.
    `RequestError` lists the columns there are. `ContentError` if only some records have a cluster, or if the
    row index is of other records: the file `has_changed` since it was compiled.
    """
    column = requested or compiled
    if not column and any(record.get(DEFAULT) is not None for record in records):
        column = DEFAULT
    if column is None or requested == INDEPENDENT:
        return None, None
    index = read_row_index(path)
    if index is not None and (has_changed or len(index.fingerprints) != len(records)):
        raise ContentError(
            _(
                "{path}: changed since it was compiled, {file} is of other records: compile it "
                "again, or take every example as independent with --cluster {independent}",
                path=path,
                file=row_index_file(path).name,
                independent=INDEPENDENT,
            )
        )
    indexed = index.clusters if index else {}
    if column in indexed:
        return column, [str(number) for number in indexed[column]]
    values = [record.get(column) for record in records]
    missing = values.count(None)
    if missing == len(values):
        columns = dict.fromkeys(indexed)
        for record in records:
            columns.update(dict.fromkeys(record))
        problem = _("no column {column!r} to cluster by", column=column)
        if not requested:
            problem = _(
                "no column {column!r} (which {file} names) to cluster by", column=column, file=MANIFEST
            )
        raise RequestError(
            _(
                "{path}: {problem}, found {columns}: name one with "
                "--cluster, or take every example as independent with --cluster {independent}",
                path=path,
                problem=problem,
                columns=", ".join(columns),
                independent=INDEPENDENT,
            )
        )
    if missing:
        raise ContentError(
            _(
                "{path}: record {number}: no {column}, but {others} other records have one",
                path=path,
                number=values.index(None) + 1,
                column=column,
                others=len(values) - missing,
            )
        )
    return column, [str(value) for value in values]
