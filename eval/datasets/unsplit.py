"""A compile's file of all rows before its split, such as mixed_finetune_dataset.jsonl of a mixture.

LLaMA-Factory trains on the split's own files, which compile registers. Who scores the file itself needs to
know which of its rows those are: the draw (core/splits.py) is repeated by what the manifest says of it.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.core.datasets import read_records
from tuneyard.core.errors import RequestError
from tuneyard.core.files import read_object, sha256
from tuneyard.core.prompt import Conversation, conversation
from tuneyard.core.row_index import read_row_index
from tuneyard.core.splits import IN_REST, REST, draw_splits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANIFEST = "manifest.json"
DRAWN_OTHERWISE = ("stratify", "group", "by")  # settings of a split that need columns the file may lack


@dataclass(frozen=True, slots=True)
class Unsplit:
    """The split of a file of all rows: shares by split name, the seed, and each row's split.

    `homes` are the numbers of `draw_splits`, None if the file's rows alone do not tell them. `datasets` are
    registered, by split.
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
        """Return the rows of the split with this share and seed; `RequestError` names those there are."""
        names = [name for name, share in self.shares.items() if share == ratio and self.seed == seed]
        if not names or self.homes is None:
            listed = ", ".join(f"{name} {share:g}" for name, share in self.shares.items())
            raise RequestError(
                f"--eval-ratio {ratio:g} --seed {seed}: {self.path} is split already ({listed}, seed "
                f"{self.seed}), and other rows would be rows of its training split; score {self._held_out()}"
            )
        number = self.splits.index(names[0])
        return [row for row, home in enumerate(self.homes) if home == number]

    def _held_out(self) -> str:
        """Return the option that scores the rows of the first split that is not the training split."""
        names = [name for split, name in self.datasets.items() if split != REST]
        if names:
            return f"--dataset {names[0]}"
        return f"--eval-ratio {next(iter(self.shares.values())):g} --seed {self.seed}"

    def fingerprints(self) -> "NDArray[np.uint64] | None":
        """Return the fingerprint of each row as its dataset asks it, None if that is not known."""
        import numpy as np

        if self.homes is None:
            return None
        homes = np.array(self.homes)
        found = np.zeros(len(homes), np.uint64)
        for number, split in enumerate(self.splits):
            rows = homes == number
            prints = self._trained(split)
            if prints is None or len(prints) != rows.sum():
                return None
            found[rows] = prints
        return found

    def training_rows(self) -> "NDArray[np.bool_] | None":
        """Return whether each row is one of the training split, None if that is not known."""
        import numpy as np

        return None if self.homes is None else np.array(self.homes) == IN_REST

    def other_prompts(self, conversations: Sequence[Conversation]) -> str:
        """Return the dataset that asks the held-out rows in other words, as training does, "" if none does.

        The file of a mixture has neither the prefix of an input nor the system text of its datasets.
        """
        held_out = next((split for split in self.datasets if split != REST), "")
        if self.homes is None or held_out not in self.splits:
            return ""
        number = self.splits.index(held_out)
        if number not in self.homes:
            return ""
        name = self.datasets[held_out]
        manifest = read_object(self.path.parent / MANIFEST)
        entry = _entries(manifest)[name]
        file = self.path.parent / _files(manifest)[name]
        if not file.is_file():
            return ""
        trained = conversation(read_records(file)[0], entry, f"{file}: record 1")
        asked = conversations[self.homes.index(number)]
        return name if trained.messages != asked.messages else ""

    def _trained(self, split: str) -> "NDArray[np.uint64] | None":
        """Return the fingerprints of a split's registered dataset, None without one."""
        name = self.datasets.get(split)
        file = _files(read_object(self.path.parent / MANIFEST)).get(name or "")
        examples = read_row_index(self.path.parent / file) if file else None
        return None if examples is None else examples.fingerprints


def find_unsplit(path: Path, manifest: Mapping[str, object], rows: int) -> Unsplit | None:
    """Return the split of a file of all rows by the manifest beside it, None for any other file.

    A file that changed since it was compiled is another file, and so is one whose manifest is not compile's.
    """
    about = _object(_object(manifest.get("files")).get(path.name))
    made_from = _object(manifest.get("made_from"))
    definition = _object(made_from.get("definition"))
    split = _object(definition.get("split"))
    if not split or path.name in _files(manifest).values():
        return None
    if about.get("rows") != rows or about.get("sha256") != sha256(path):
        return None
    given = {name: value for name, value in split.items() if name not in (*DRAWN_OTHERWISE, "seed")}
    shares = {name: float(share) for name, share in given.items() if isinstance(share, int | float)}
    seed = split.get("seed", made_from.get("seed"))
    if not isinstance(seed, int) or not shares or len(shares) < len(given):
        return None
    alike = not definition.get("drop_leaks") and not any(name in split for name in DRAWN_OTHERWISE)
    homes = draw_splits(array("B", [1]) * rows, None, shares, seed) if alike else None
    return Unsplit(path, shares, seed, _datasets(definition, manifest, (REST, *shares)), homes)


def _object(value: object) -> dict[str, Any]:
    """Return a JSON object, {} for anything else."""
    return value if isinstance(value, dict) else {}


def _entries(manifest: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Return the registry entries of a compiled dataset by name."""
    return {name: _object(entry) for name, entry in _object(manifest.get("entries")).items()}


def _files(manifest: Mapping[str, object]) -> dict[str, str]:
    """Return the file name of each registered dataset of a manifest."""
    return {name: Path(str(entry.get("file_name"))).name for name, entry in _entries(manifest).items()}


def _datasets(
    definition: Mapping[str, Any], manifest: Mapping[str, object], splits: Sequence[str]
) -> dict[str, str]:
    """Return the first registered dataset of each split."""
    outputs = definition.get("write")
    named = [_object(output).get("dataset") for output in (outputs if isinstance(outputs, list) else [])]
    templates = [name for name in named if isinstance(name, str)]
    found: dict[str, str] = {}
    for split in splits:
        names = [template.replace("{split}", split) for template in templates]
        registered = [name for name in names if name in _entries(manifest)]
        if registered:
            found[split] = registered[0]
    return found
