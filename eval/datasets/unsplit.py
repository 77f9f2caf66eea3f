"""A compile's file of all rows before its split, e.g. mixed_finetune_dataset.jsonl of a mixture.

LLaMA-Factory trains on the files of the splits, which compile registers. Scoring the file of all rows needs
the split of each row: this module repeats the draw (core/datasets/splits.py) by the manifest.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.datasets import is_records, read_records
from tuneyard.core.datasets.splits import IN_REST, REST, draw_splits
from tuneyard.core.errors import RequestError, TuneyardError
from tuneyard.core.prompt import Conversation, conversation
from tuneyard.eval.datasets.origin import Compile, Origin, TrainingRows, prints_of, rows_in_training

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWN_OTHERWISE = ("stratify", "group", "by")  # settings of a split that need columns the file may lack


@dataclass(frozen=True, slots=True)
class Unsplit:
    """The split of a file of all rows: shares by split name, the seed, and each row's split.

    `homes` are the numbers of `draw_splits`, None if the file's rows alone do not determine them. `datasets`
    are the registered datasets by split. `path` may be a copy of the file in the folder of the compile.
    """

    path: Path
    origin: Origin
    shares: Mapping[str, float]
    seed: int
    datasets: Mapping[str, str]
    homes: Sequence[int] | None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, at the place of their numbers in `homes`."""
        return (REST, *self.shares)

    def held_out(self, ratio: float, seed: int) -> list[int]:
        """Rows of the split with this share and seed; `RequestError` lists the splits there are."""
        names = [name for name, share in self.shares.items() if share == ratio and self.seed == seed]
        if not names or self.homes is None:
            splits = ", ".join(f"{name} {share:g}" for name, share in self.shares.items())
            raise RequestError(
                f"--eval-ratio {ratio:g} --seed {seed}: {self.path} is split already ({splits}, seed "
                f"{self.seed}), and other rows would be rows of its training split; score {self._held_out()}"
            )
        number = self.splits.index(names[0])
        return [row for row, home in enumerate(self.homes) if home == number]

    def _held_out(self) -> str:
        """The option that scores the rows of the first split other than the training split."""
        for split, name in self.datasets.items():
            if split != REST:
                return f"--dataset {name}"
        return f"--eval-ratio {next(iter(self.shares.values())):g} --seed {self.seed}"

    def fingerprints(self) -> "NDArray[np.uint64] | None":
        """Fingerprint of each row as its registered dataset words the prompt, None if unknown."""
        import numpy as np

        if self.homes is None:
            return None
        homes = np.array(self.homes)
        fingerprints = np.zeros(len(homes), np.uint64)
        for number, split in enumerate(self.splits):
            rows = homes == number
            of_split = None
            if split in self.datasets:
                of_split = self.origin.compile.fingerprints(self.datasets[split])
            if of_split is None or len(of_split) != rows.sum():
                return None
            fingerprints[rows] = of_split
        return fingerprints

    def training_rows(self) -> TrainingRows:
        """The rows of the training split, and rows with the prompt of one.

        If the rows alone do not determine their split, each of them may be in the training split.
        """
        import numpy as np

        dataset = self.datasets.get(REST, "its training split")
        held_out = self.origin.compile.held_out_datasets()
        if self.homes is None:
            rows = self.origin.compiled_file.rows or 0
            most = self.origin.compile.manifest.records.get(dataset)
            return TrainingRows(np.ones(rows, bool), [dataset], held_out, most)
        flags = np.array(self.homes) == IN_REST
        fingerprints = self.fingerprints()
        if fingerprints is not None:
            leaked = rows_in_training(fingerprints, [self.origin.compile])
            if leaked is not None:
                flags |= leaked.flags
        return TrainingRows(flags, [dataset], held_out)

    def other_prompts(self, conversations: Sequence[Conversation]) -> str:
        """The registered dataset that words the held-out prompts as in training, "" if the wording is equal.

        The file of a mixture has neither the prefix of an input nor the system text of its datasets.
        """
        held_out = next((split for split in self.datasets if split != REST), "")
        if self.homes is None or held_out not in self.splits:
            return ""
        number = self.splits.index(held_out)
        if number not in self.homes:
            return ""
        name = self.datasets[held_out]
        manifest = self.origin.compile.manifest
        entry = manifest.entries[name]
        file = self.origin.compile.folder / manifest.file_of(name)
        if not is_records(file):
            return ""
        trained = conversation(read_records(file)[0], entry, f"{file}: record 1")
        scored = conversations[self.homes.index(number)]
        return name if trained.messages != scored.messages else ""


def find_unsplit(path: Path, origin: Origin, rows: int) -> Unsplit | None:
    """The split of a file of all rows, by the manifest of its compile. None for any other file."""
    manifest = origin.compile.manifest
    definition = manifest.definition
    split = definition.get("split")
    if not isinstance(split, dict) or not split or origin.file not in origin.compile.whole_files():
        return None
    if origin.compiled_file.rows != rows:
        return None
    given_shares = {name: value for name, value in split.items() if name not in (*DRAWN_OTHERWISE, "seed")}
    shares = {name: float(share) for name, share in given_shares.items() if isinstance(share, int | float)}
    seed = split.get("seed", manifest.made_from.get("seed"))
    if not isinstance(seed, int) or not shares or len(shares) < len(given_shares):
        return None
    needs_columns = any(name in split for name in DRAWN_OTHERWISE)
    homes = None
    if not needs_columns and not definition.get("drop_leaks"):
        homes = draw_splits(array("B", [1]) * rows, None, shares, seed)
    datasets = {}
    for name in (REST, *shares):
        dataset = origin.compile.dataset_of(name)
        if dataset:
            datasets[name] = dataset
    return Unsplit(path, origin, shares, seed, datasets, homes)


def as_trained(prints: "NDArray[np.uint64]", compiles: Sequence[Compile]) -> "NDArray[np.uint64]":
    """Replace the fingerprints of rows of files of all rows by those of the registered datasets.

    These may word a prompt otherwise: with a prefix before the input, for instance.
    """
    import numpy as np

    replaced = prints.copy()
    for compiled in compiles:
        for name in compiled.whole_files():
            worded = _both_wordings(compiled, name)
            if worded is None:
                continue
            plain, trained = worded
            order = np.argsort(plain)
            places = np.minimum(np.searchsorted(plain[order], prints), len(plain) - 1)
            is_same = plain[order][places] == prints
            replaced[is_same] = trained[order][places][is_same]
    return replaced


def _both_wordings(compiled: Compile, name: str) -> "tuple[NDArray[np.uint64], NDArray[np.uint64]] | None":
    """Fingerprints of the rows of a file of all rows, as it words them and as they are trained.

    None if the file is gone or has changed, or if its rows alone do not determine their split.
    """
    path = compiled.folder / name
    if not path.is_file():
        return None
    try:
        examples = [conversation(record, {}, name) for record in read_records(path)]
    except TuneyardError:  # of a file that was changed, which is not the one to score
        return None
    unsplit = find_unsplit(path, Origin(compiled, name), len(examples))
    if unsplit is None or not examples:
        return None
    trained = unsplit.fingerprints()
    if trained is None:
        return None
    return prints_of(examples), trained
