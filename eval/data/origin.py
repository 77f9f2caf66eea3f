"""The compile that a test dataset comes from, and the rows of the dataset that are training rows.

A compile is found by the SHA-256 of the file, so that a copy elsewhere is known too. It is looked up in the
manifest next to the file, and in those of the registry. Rows of any other file are compared with the training
rows of all these compiles, by the row index of each training split (core/datasets/compiled.py).

A compile may also write a file of all rows before its split, e.g. mixed_finetune_dataset.jsonl of a mixture.
Its row index has the split of each row, and the fingerprint of the trained text.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.datasets import DEFAULT_FOLDER, LLAMAFACTORY_FOLDER, TRAIN_SPLIT
from tuneyard.core.datasets.compiled import (
    MANIFEST,
    Manifest,
    RowIndex,
    read_manifest,
    read_row_index,
)
from tuneyard.core.datasets.trained_examples import fingerprints_of
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import warn_once
from tuneyard.core.llamafactory.prompt import PromptAndAnswer
from tuneyard.core.records.results_record import TrainingRows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLIT = "{split}"  # in the names of a spec's outputs
SETTINGS = ("seed", "stratify", "group", "by")
"""The keys of a spec's `split` besides the shares."""


@dataclass(frozen=True, slots=True)
class Compile:
    """A folder that a compile wrote, with its manifest.

    - `training_files`: the files of the training split alone. A compile without splits has none.
    - `training_datasets`: the registered datasets of the training split. `held_out_datasets`: those of the
      other splits, [] without a training split.
    """

    folder: Path
    manifest: Manifest
    training_files: Sequence[str]
    training_datasets: Sequence[str]
    held_out_datasets: Sequence[str]

    def trained_as(self, file: str) -> str:
        """The dataset that is trained on for one of the `training_files`."""
        of_file = [name for name in self.manifest.entries if self.manifest.file_of(name) == file]
        return [*of_file, *self.training_datasets, file][0]

    def shares_and_seed(self) -> tuple[dict[str, float], int] | None:
        """The shares of the splits besides the training split, and the seed, if this compile drew them."""
        split = self.manifest.definition.get("split")
        if split is None:
            return None
        shares = {name: share for name, share in split.items() if name not in SETTINGS}
        return shares, split.get("seed", self.manifest.made_from["seed"])

    def whole_files(self) -> list[str]:
        """The files that contain the rows of all splits. No dataset is registered for them."""
        if self.shares_and_seed() is None:
            return []
        registered_files = [self.manifest.file_of(name) for name in self.manifest.entries]
        files = [output["file"] for output in self.manifest.definition.get("write", ()) if "file" in output]
        return [file for file in files if file in self.manifest.files and file not in registered_files]

    def row_index(self, file: str) -> RowIndex | None:
        """The row index of a file. Without one a warning names the unknown, and the answer is None."""
        path = self.folder / file
        index = None
        with contextlib.suppress(ContentError):  # another version wrote it
            index = read_row_index(path)
        if index is None:
            warn_once(
                _(
                    "{path}: unknown which rows are those of a training split (it has no row index, or "
                    "that of another version): compile the dataset again",
                    path=path,
                )
            )
        return index


@dataclass(frozen=True, slots=True, eq=False)
class Unsplit:
    """The split of a file of all rows: shares by split name, the seed, and the rows of each split.

    `path` may be a copy of the file in the folder of the compile. `instead` are the registered datasets of
    the splits other than the training split. `is_reworded` is true if they word some prompts otherwise.
    """

    path: Path
    shares: Mapping[str, float]
    seed: int
    rows: "Mapping[str, NDArray[np.intp]]"
    instead: Sequence[str]
    is_reworded: bool

    def held_out(self, ratio: float, seed: int) -> list[int]:
        """Rows of the split with this share and seed; `RequestError` lists the splits there are."""
        for name, share in self.shares.items():
            if share == ratio and seed == self.seed:
                rows: list[int] = self.rows[name].tolist()
                return rows
        splits = ", ".join(f"{name} {share:g}" for name, share in self.shares.items())
        option = f"--eval-ratio {next(iter(self.shares.values())):g} --seed {self.seed}"
        if self.instead:
            option = f"--dataset {self.instead[0]}"
        raise RequestError(
            _(
                "--eval-ratio {ratio:g} --seed {seed}: {path} is split already ({splits}, seed "
                "{split_seed}), and other rows would be rows of its training split; score {option}",
                ratio=ratio,
                seed=seed,
                path=self.path,
                splits=splits,
                split_seed=self.seed,
                option=option,
            )
        )


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """The origin of the rows of a test dataset, as compiles recorded it.

    - `fingerprints`: each row's, as the registered dataset of its split words the prompt.
    - `in_training`: True for each row of a training split. `datasets` are the training splits that contain
      them, `held_out` the other datasets of the same compiles.
    - `unsplit`: the split of a file that contains all rows of a compile.
    - `drawn`: true for rows that a training with val_size holds out.
    """

    fingerprints: "NDArray[np.uint64]"
    in_training: "NDArray[np.bool_]"
    datasets: Sequence[str] = ()
    held_out: Sequence[str] = ()
    unsplit: Unsplit | None = None
    drawn: bool = False

    def take(self, rows: Sequence[int]) -> "Origin":
        """The same for some of the rows, in the given order."""
        numbers = list(rows)
        return replace(self, fingerprints=self.fingerprints[numbers], in_training=self.in_training[numbers])

    def training_rows(self, count: int) -> TrainingRows | None:
        """Count the rows among the first `count` that are rows of a training split, for results.json.

        `held_out` are the datasets to score instead. `drawn` is true if --eval-ratio drew the rows as a
        training with val_size draws them. None if there are no such rows.
        """
        examples = int(self.in_training[:count].sum())
        if not examples:
            return None
        return {
            "examples": examples,
            "drawn": self.drawn,
            "datasets": list(self.datasets),
            "held_out": list(self.held_out),
        }


def unknown_origin(examples: Sequence[PromptAndAnswer]) -> Origin:
    """The origin of rows that are compared with no compile."""
    return _compared(fingerprints_of(examples), [])


def find_origin(
    path: Path, digest: str, examples: Sequence[PromptAndAnswer], folder: Path | None, *, is_registered: bool
) -> Origin:
    """Find the training rows of a file: by the compile that wrote it, else by those with the same prompts.

    `digest` is the file's SHA-256, `folder` that of --dataset-dir.
    """
    import numpy as np

    compiles = compiles_for(path, folder)
    written = _written_by(path, digest, compiles)
    if written is not None and not is_registered:
        whole = _of_whole_file(path, *written, examples)
        if whole is not None:
            return whole
    fingerprints = fingerprints_of(examples)
    if written is None:
        if not is_registered:
            fingerprints = _as_trained(fingerprints, compiles)
        return _compared(fingerprints, compiles)
    compiled, file = written
    if file in compiled.training_files:
        in_training = np.ones(len(fingerprints), bool)
        return Origin(fingerprints, in_training, [compiled.trained_as(file)], compiled.held_out_datasets)
    return replace(_compared(fingerprints, [compiled]), held_out=())  # these rows are held-out ones


def _of_whole_file(
    path: Path, compiled: Compile, file: str, examples: Sequence[PromptAndAnswer]
) -> Origin | None:
    """The origin of the rows of a file of all rows, by its row index; None for others, and without one."""
    drawn = compiled.shares_and_seed()
    if drawn is None or file not in compiled.whole_files():
        return None
    index = compiled.row_index(file)
    if index is None or index.trained is None or index.splits is None or len(index.splits) != len(examples):
        return None
    shares, seed = drawn
    names = enumerate((TRAIN_SPLIT, *shares))  # the number of a split is its place
    rows = {name: (index.splits == number).nonzero()[0] for number, name in names}
    held_out = compiled.held_out_datasets
    is_reworded = bool(held_out) and bool((index.trained != index.fingerprints).any())
    unsplit = Unsplit(path, shares, seed, rows, held_out, is_reworded)
    in_training = _compared(index.trained, [compiled]).in_training
    in_training[rows[TRAIN_SPLIT]] = True
    training_datasets = compiled.training_datasets or [_("its training split")]
    return Origin(index.trained, in_training, training_datasets[:1], held_out, unsplit)


def compiles_for(path: Path, folder: Path | None) -> list[Compile]:
    """The compile in the folder of a file, then those of --dataset-dir, or of the current folder."""
    files = [path.with_name(MANIFEST), path.resolve().with_name(MANIFEST)]
    for registry in [folder] if folder else [DEFAULT_FOLDER, LLAMAFACTORY_FOLDER]:
        files += sorted(registry.glob(f"[!.]*/{MANIFEST}"))
    compiles: dict[Path, Compile] = {}
    for file in files:
        compiled = _compile_in(file.parent)
        if compiled is not None:
            compiles.setdefault(file.resolve(), compiled)
    return list(compiles.values())


def _compile_in(folder: Path) -> Compile | None:
    """The compile that wrote a folder.

    None for other folders, and for a broken manifest: that is of another dataset than the one to score.
    """
    manifest = None
    with contextlib.suppress(ContentError):
        manifest = read_manifest(folder)
    if manifest is None:
        return None
    outputs = manifest.definition.get("write", ())
    names = {}
    for key in ("file", "dataset"):
        templates = [output[key] for output in outputs if SPLIT in output.get(key, "")]
        names[key] = [template.replace(SPLIT, TRAIN_SPLIT) for template in templates]
    datasets = [name for name in names["dataset"] if name in manifest.entries]
    held_out = [name for name in manifest.entries if datasets and name not in datasets]
    return Compile(folder, manifest, names["file"], datasets, held_out)


def _written_by(path: Path, digest: str, compiles: Sequence[Compile]) -> tuple[Compile, str] | None:
    """The compile that wrote the bytes of a file, and its name there; None if none of these did."""
    for compiled in compiles:
        names = [name for name, file in compiled.manifest.files.items() if file.sha256 == digest]
        if path.name in names:  # several files of a compile may have the same bytes
            return compiled, path.name
        if names:
            return compiled, names[0]
    return None


def _as_trained(fingerprints: "NDArray[np.uint64]", compiles: Sequence[Compile]) -> "NDArray[np.uint64]":
    """Replace the fingerprints of rows of files of all rows by those of the registered datasets.

    These may word a prompt otherwise: with a prefix before the input, for instance.
    """
    import numpy as np

    trained_as: dict[int, int] = {}
    for compiled in compiles:
        for name in compiled.whole_files():
            index = compiled.row_index(name)
            if index is not None and index.trained is not None:
                trained_as.update(zip(index.fingerprints.tolist(), index.trained.tolist(), strict=True))
    return np.array([trained_as.get(plain, plain) for plain in fingerprints.tolist()], np.uint64)


def _compared(fingerprints: "NDArray[np.uint64]", compiles: Sequence[Compile]) -> Origin:
    """Compare the rows of a dataset with the training rows of compiles.

    Of a compile that writes the same rows into several datasets, the one with the most of them is named.
    """
    import numpy as np

    in_training = np.zeros(len(fingerprints), bool)
    datasets: list[str] = []
    held_out: list[str] = []
    for compiled in compiles:
        most_rows = 0
        closest_dataset = ""
        for name in compiled.training_datasets:
            index = compiled.row_index(compiled.manifest.file_of(name))
            if index is None:
                continue
            is_trained = np.isin(fingerprints, index.fingerprints)
            in_training |= is_trained
            if is_trained.sum() > most_rows:
                most_rows = int(is_trained.sum())
                closest_dataset = name
        if closest_dataset:
            datasets.append(closest_dataset)
            held_out += compiled.held_out_datasets
    return Origin(fingerprints, in_training, datasets, held_out)
