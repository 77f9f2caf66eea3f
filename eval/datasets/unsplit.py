"""A compile's file of all rows before its split, e.g. mixed_finetune_dataset.jsonl of a mixture.

LLaMA-Factory trains on the files of the splits, which compile registers. The row index of the file of all
rows has the split of each row, and its fingerprint as it is trained (core/records/row_index.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.datasets import TRAIN_SPLIT, is_records, read_records
from tuneyard.core.errors import RequestError
from tuneyard.core.prompt import Conversation, conversation
from tuneyard.core.records.row_index import Drawn
from tuneyard.eval.datasets.origin import Compile, TrainingRows, rows_in_training

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SETTINGS = ("seed", "stratify", "group", "by")
"""The keys of a spec's `split` besides the shares."""


@dataclass(frozen=True, slots=True)
class Unsplit:
    """The split of a file of all rows: shares by split name, the seed, and what became of each row.

    `datasets` are the registered datasets by split. `path` may be a copy of the file in the folder of the
    compile.
    """

    path: Path
    compiled: Compile
    shares: Mapping[str, float]
    seed: int
    datasets: Mapping[str, str]
    drawn: Drawn

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, at the place of their numbers in `drawn`."""
        return (TRAIN_SPLIT, *self.shares)

    def held_out(self, ratio: float, seed: int) -> list[int]:
        """Rows of the split with this share and seed; `RequestError` lists the splits there are."""
        names = [name for name, share in self.shares.items() if share == ratio and self.seed == seed]
        if not names:
            splits = ", ".join(f"{name} {share:g}" for name, share in self.shares.items())
            raise RequestError(
                f"--eval-ratio {ratio:g} --seed {seed}: {self.path} is split already ({splits}, seed "
                f"{self.seed}), and other rows would be rows of its training split; score {self._held_out()}"
            )
        return self._rows_of(names[0])

    def _rows_of(self, split: str) -> list[int]:
        """The rows of a split."""
        rows: list[int] = self._is_of(split).nonzero()[0].tolist()
        return rows

    def _is_of(self, split: str) -> "NDArray[np.bool_]":
        """True for each row of a split."""
        flags: NDArray[np.bool_] = self.drawn.splits == self.splits.index(split)
        return flags

    def _held_out(self) -> str:
        """The option that scores the rows of the first split other than the training split."""
        for split, name in self.datasets.items():
            if split != TRAIN_SPLIT:
                return f"--dataset {name}"
        return f"--eval-ratio {next(iter(self.shares.values())):g} --seed {self.seed}"

    def training_rows(self) -> TrainingRows:
        """The rows of the training split, and rows with the prompt of one."""
        flags = self._is_of(TRAIN_SPLIT)
        leaked = rows_in_training(self.drawn.trained, [self.compiled])
        if leaked is not None:
            flags |= leaked.flags
        dataset = self.datasets.get(TRAIN_SPLIT, "its training split")
        return TrainingRows(flags, [dataset], self.compiled.held_out_datasets())

    def other_prompts(self, conversations: Sequence[Conversation]) -> str:
        """The registered dataset that words the held-out prompts as in training, "" if the wording is equal.

        The file of a mixture has neither the prefix of an input nor the system text of its datasets.
        """
        held_out = next((split for split in self.datasets if split != TRAIN_SPLIT), "")
        if not held_out:
            return ""
        rows = self._rows_of(held_out)
        name = self.datasets[held_out]
        manifest = self.compiled.manifest
        file = self.compiled.folder / manifest.file_of(name)
        if not rows or not is_records(file):
            return ""
        trained = conversation(read_records(file)[0], manifest.entries[name], f"{file}: record 1")
        return name if trained.messages != conversations[rows[0]].messages else ""


def find_unsplit(path: Path, compiled: Compile, file: str, rows: int) -> Unsplit | None:
    """The split of a file of all rows, by its row index. None for any other file, and without an index."""
    manifest = compiled.manifest
    split = manifest.definition.get("split")
    if not isinstance(split, dict) or file not in compiled.whole_files():
        return None
    index = compiled.row_index(file)
    if index is None or index.drawn is None or index.rows != rows:
        return None
    given_shares = {name: value for name, value in split.items() if name not in SETTINGS}
    shares = {name: float(share) for name, share in given_shares.items() if isinstance(share, int | float)}
    seed = split.get("seed", manifest.made_from.get("seed"))
    if not isinstance(seed, int) or not shares or len(shares) < len(given_shares):
        return None
    datasets = {}
    for name in (TRAIN_SPLIT, *shares):
        dataset = compiled.dataset_of(name)
        if dataset:
            datasets[name] = dataset
    return Unsplit(path, compiled, shares, seed, datasets, index.drawn)


def as_trained(prints: "NDArray[np.uint64]", compiles: Sequence[Compile]) -> "NDArray[np.uint64]":
    """Replace the fingerprints of rows of files of all rows by those of the registered datasets.

    These may word a prompt otherwise: with a prefix before the input, for instance.
    """

    replaced = prints.copy()
    for compiled in compiles:
        for name in compiled.whole_files():
            index = compiled.row_index(name)
            if index is None or index.drawn is None:
                continue
            trained_by_plain = dict(zip(index.fingerprints.tolist(), index.drawn.trained, strict=True))
            for row, plain in enumerate(prints.tolist()):
                if plain in trained_by_plain:
                    replaced[row] = trained_by_plain[plain]
    return replaced
