"""The compile that a test dataset comes from, and the rows of the dataset that are training rows.

A compile is found by the SHA-256 of the file, so that a copy elsewhere is known too. It is looked up in the
manifest next to the file, and in those of the registry. Rows of any other file are compared with the training
rows of all these compiles, by the row index of each training split (core/records/row_index.py).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.datasets import DEFAULT_FOLDER, LLAMAFACTORY_FOLDER, TRAIN_SPLIT
from tuneyard.core.datasets.manifest import MANIFEST, Manifest, read_manifest
from tuneyard.core.errors import ContentError
from tuneyard.core.errors.warn import warn_once
from tuneyard.core.files import sha256
from tuneyard.core.prompt import Conversation
from tuneyard.core.records.row_index import RowIndex, fingerprint, read_row_index

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLIT = "{split}"  # in the names of a spec's outputs


@dataclass(frozen=True, slots=True)
class Compile:
    """A folder that a compile wrote, with its manifest."""

    folder: Path
    manifest: Manifest

    def dataset_of(self, split: str) -> str:
        """The first registered dataset of a split, "" if the split has none."""
        for template in self._templates("dataset"):
            name = template.replace(SPLIT, split)
            if name in self.manifest.entries:
                return name
        return ""

    def training_datasets(self) -> list[str]:
        """The registered datasets of the training split. A compile without splits has no such dataset."""
        names = [name.replace(SPLIT, TRAIN_SPLIT) for name in self._templates("dataset") if SPLIT in name]
        return [name for name in names if name in self.manifest.entries]

    def held_out_datasets(self) -> list[str]:
        """The registered datasets of the other splits, [] if the compile has no training split."""
        training_datasets = self.training_datasets()
        if not training_datasets:
            return []
        return [name for name in self.manifest.entries if name not in training_datasets]

    def whole_files(self) -> list[str]:
        """The files that no dataset is registered for, and that contain the rows of all splits."""
        registered_files = [self.manifest.file_of(name) for name in self.manifest.entries]
        files = [file for file in self._templates("file") if SPLIT not in file]
        return [file for file in files if file in self.manifest.files and file not in registered_files]

    def is_training_file(self, name: str) -> bool:
        """True for a file of the training split alone."""
        files = [file.replace(SPLIT, TRAIN_SPLIT) for file in self._templates("file") if SPLIT in file]
        return name in files

    def row_index(self, file: str) -> RowIndex | None:
        """The row index of a file. Without one a warning says what is unknown, and the answer is None."""
        path = self.folder / file
        reason = "there is no row index"
        try:
            index = read_row_index(path)
            if index is not None:
                return index
        except ContentError:
            reason = "the row index cannot be read, or another version wrote it"
        warn_once(
            f"{path}: unknown which rows are those of a training split ({reason}): compile the dataset again"
        )
        return None

    def _templates(self, key: str) -> list[str]:
        """The names under `file` or `dataset` of the outputs, as the spec has them."""
        outputs = self.manifest.definition.get("write")
        names = []
        for output in outputs if isinstance(outputs, list) else ():
            name = output.get(key) if isinstance(output, dict) else None
            if isinstance(name, str):
                names.append(name)
        return names


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRows:
    """The rows of a test dataset that are rows of a training split.

    `flags` is True for each of them. `datasets` are the training splits that contain them, `held_out` the
    other datasets of the same compiles. `drawn` is true for rows that a training with val_size holds out.
    """

    flags: "NDArray[np.bool_]"
    datasets: Sequence[str]
    held_out: Sequence[str]
    drawn: bool = False

    def take(self, rows: Sequence[int]) -> "TrainingRows":
        """The same for some of the rows, in the given order."""
        return replace(self, flags=self.flags[list(rows)])


def compiles_for(path: Path) -> list[Compile]:
    """The compile in the folder of a file, then those of the registries of the current folder."""
    files = [path.with_name(MANIFEST), path.resolve().with_name(MANIFEST)]
    for registry in (DEFAULT_FOLDER, LLAMAFACTORY_FOLDER):
        files += sorted(registry.glob(f"*/{MANIFEST}"))
    compiles: dict[Path, Compile] = {}
    for file in files:
        manifest = None
        if file.is_file():
            about = file.stat()
            manifest = _manifest_of_compile(file.parent, about.st_ino, about.st_mtime_ns)
        if manifest is not None:
            compiles.setdefault(file.resolve(), Compile(file.parent, manifest))
    return list(compiles.values())


@functools.cache
def _manifest_of_compile(folder: Path, inode: int, modified: int) -> Manifest | None:
    """The manifest of a folder that a compile wrote. It is read once for all scored files.

    None for other folders, and for a broken manifest: that is of another dataset than the one to score.
    """
    del inode, modified  # another manifest has others
    try:
        return read_manifest(folder)
    except ContentError:
        return None


def find_origin(path: Path, compiles: Sequence[Compile]) -> tuple[Compile, str] | None:
    """The compile that wrote the bytes of a file, and its name there; None if none of these did."""
    digest = sha256(path)
    for of_path in compiles:
        names = [name for name, file in of_path.manifest.files.items() if file.sha256 == digest]
        if path.name in names:  # several files of a compile may have the same bytes
            return of_path, path.name
        if names:
            return of_path, names[0]
    return None


def fingerprint_of(example: Conversation) -> int:
    """Fingerprint of a conversation's prompt. Images count by their paths."""
    texts = [message["content"] for message in example.messages if message["role"] != "system"]
    return fingerprint([*texts, *example.images])


def prints_of(examples: Sequence[Conversation]) -> "NDArray[np.uint64]":
    """Fingerprints of the prompts of many conversations."""
    import numpy as np

    return np.array([fingerprint_of(example) for example in examples], np.uint64)


def rows_in_training(prints: "NDArray[np.uint64]", compiles: Sequence[Compile]) -> TrainingRows | None:
    """Compare the rows of a dataset with the training rows of compiles; None if none of them is one.

    Of a compile that writes the same rows into several datasets, the one with the most of them is named.
    """
    import numpy as np

    flags = np.zeros(len(prints), bool)
    datasets: list[str] = []
    held_out: list[str] = []
    for compiled in compiles:
        most_rows = 0
        closest_dataset = ""
        for name in compiled.training_datasets():
            index = compiled.row_index(compiled.manifest.file_of(name))
            if index is None:
                continue
            is_trained = np.isin(prints, index.fingerprints)
            flags |= is_trained
            if is_trained.sum() > most_rows:
                most_rows = int(is_trained.sum())
                closest_dataset = name
        if closest_dataset:
            datasets.append(closest_dataset)
            held_out += compiled.held_out_datasets()
    if not datasets:
        return None
    return TrainingRows(flags, datasets, held_out)


def training_rows_of_file(prints: "NDArray[np.uint64]", compiled: Compile, file: str) -> TrainingRows | None:
    """The training rows of a file that a compile wrote: every row of its training split, or leaked rows.

    `prints` are the fingerprints of its rows, as the registered datasets word them.
    """
    import numpy as np

    if not compiled.is_training_file(file):
        found = rows_in_training(prints, [compiled])
        if found is None:
            return None
        others = [name for name in found.held_out if not _has_rows(compiled, name, prints)]
        return replace(found, held_out=others)
    dataset = compiled.dataset_of(TRAIN_SPLIT) or file
    for name in compiled.training_datasets():
        if compiled.manifest.file_of(name) == file:
            dataset = name
    return TrainingRows(np.ones(len(prints), bool), [dataset], compiled.held_out_datasets())


def _has_rows(compiled: Compile, dataset: str, prints: "NDArray[np.uint64]") -> bool:
    """True if a dataset has these very rows: in the same file, or in another one for another reader."""
    import numpy as np

    index = compiled.row_index(compiled.manifest.file_of(dataset))
    return index is not None and np.array_equal(np.unique(index.fingerprints), np.unique(prints))
