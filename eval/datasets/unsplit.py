"""A compile's file of all rows before its split, e.g. mixed_finetune_dataset.jsonl of a mixture.

LLaMA-Factory trains on the files of the splits, which compile registers. Scoring the file of all rows needs
the split of each row: this module repeats the draw (core/splits.py) with the settings in the manifest.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.datasets import read_records
from tuneyard.core.errors import RequestError
from tuneyard.core.files import sha256
from tuneyard.core.manifest import CompiledFile, Manifest, read_manifest
from tuneyard.core.prompt import Conversation, conversation
from tuneyard.core.row_index import read_row_index
from tuneyard.core.splits import IN_REST, REST, draw_splits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWN_OTHERWISE = ("stratify", "group", "by")  # settings of a split that need columns the file may lack


@dataclass(frozen=True, slots=True)
class Unsplit:
    """The split of a file of all rows: shares by split name, the seed, and each row's split.

    `homes` are the numbers of `draw_splits`, None if the file's rows alone do not determine them. `datasets`
    are the registered datasets by split.
    """

    path: Path
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
            of_split = self._trained(split)
            if of_split is None or len(of_split) != rows.sum():
                return None
            fingerprints[rows] = of_split
        return fingerprints

    def training_rows(self) -> "NDArray[np.bool_] | None":
        """True for each row of the training split, None if unknown."""
        import numpy as np

        return None if self.homes is None else np.array(self.homes) == IN_REST

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
        manifest = read_manifest(self.path.parent)
        if manifest is None or name not in manifest.entries:
            return ""
        entry = manifest.entries[name]
        file = self.path.parent / manifest.file_of(name)
        if not file.is_file():
            return ""
        trained = conversation(read_records(file)[0], entry, f"{file}: record 1")
        scored = conversations[self.homes.index(number)]
        return name if trained.messages != scored.messages else ""

    def _trained(self, split: str) -> "NDArray[np.uint64] | None":
        """Fingerprints of a split's registered dataset. None if the split has no dataset."""
        name = self.datasets.get(split, "")
        manifest = read_manifest(self.path.parent)
        if manifest is None or name not in manifest.entries:
            return None
        index = read_row_index(self.path.parent / manifest.file_of(name))
        return None if index is None else index.fingerprints


def find_unsplit(path: Path, manifest: Manifest, rows: int) -> Unsplit | None:
    """Find the split of a file of all rows by the manifest next to it. None for any other file.

    Also None if the file has changed since it was compiled, or if compile did not write the manifest.
    """
    definition = manifest.definition
    split = definition.get("split")
    registered_files = [manifest.file_of(name) for name in manifest.entries]
    if not isinstance(split, dict) or not split or path.name in registered_files:
        return None
    if manifest.files.get(path.name) != CompiledFile(rows, sha256(path)):
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
    return Unsplit(path, shares, seed, _datasets(manifest, (REST, *shares)), homes)


def _datasets(manifest: Manifest, splits: Sequence[str]) -> dict[str, str]:
    """The first registered dataset of each split."""
    outputs = manifest.definition.get("write")
    if not isinstance(outputs, list):
        outputs = []
    names = [output.get("dataset") for output in outputs if isinstance(output, dict)]
    templates = [name for name in names if isinstance(name, str)]
    datasets: dict[str, str] = {}
    for split in splits:
        for template in templates:
            name = template.replace("{split}", split)
            if name in manifest.entries:
                datasets.setdefault(split, name)
    return datasets
