"""Which files and rows LLaMA-Factory loads for an entry: folders, `split` and `num_samples`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.datasets import Dataset, loaded_files
from tuneyard.core.errors import Problem, show_value

LOADERS = {
    ".arrow": "arrow",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".txt": "text",
}
"""Loaders of the `datasets` library by the end of a file's name (FILEEXT2TYPE of LLaMA-Factory 0.9.5)."""
SPLIT_FORM = 'expected "train" or a part of it, such as "train[:10]" or "train[:50%]"'


@dataclass(frozen=True, slots=True)
class Selection:
    """The records that a `split` selects, as ranges of their numbers (from 0) in LLaMA-Factory's order."""

    ranges: list[range]

    def __contains__(self, number: object) -> bool:
        return any(number in each for each in self.ranges)

    def numbers(self) -> list[int]:
        """The selected record numbers, in the order of the file, each once."""
        return sorted({number for each in self.ranges for number in each})

    def in_file_order(self) -> list[int]:
        """Positions of the loaded rows in the order of their records, each record once."""
        positions: dict[int, int] = {}
        position = 0
        for each in self.ranges:
            for number in each:
                positions.setdefault(number, position)
                position += 1
        return [positions[number] for number in sorted(positions)]


def selection_problems(place: str, dataset: Dataset) -> Iterator[Problem]:
    """Yield E435 for a folder that LLaMA-Factory refuses and for a `num_samples` or `split` it cannot use."""
    entry = dataset.entry
    if dataset.path.is_dir():
        yield from _folder_problems(place, dataset.path)
    samples = entry.get("num_samples")
    if samples is not None and (type(samples) is not int or samples < 1):
        message = f"found {show_value(samples)}, expected a whole number above 0: LLaMA-Factory stops"
        yield Problem("E435", place, message, "num_samples", "write a number, or take the key out")
    if "split" in entry:
        try:
            rows = split_rows(entry["split"], 1_000_000)
        except ValueError as error:
            yield Problem("E435", place, f"found {show_value(entry['split'])}: {error}", "split", SPLIT_FORM)
        else:
            if not rows:
                message = f"{show_value(entry['split'])} selects no row"
                yield Problem("E435", place, message, "split", SPLIT_FORM)


def split_rows(split: object, count: int) -> list[range]:
    """Row numbers (from 0) that a `split` selects of a file of `count` rows, in LLaMA-Factory's order.

    `ValueError` for a split that a local file does not have.
    """
    from datasets import ReadInstruction

    if split == "all":
        return [range(count)]
    if not isinstance(split, str):
        raise ValueError("LLaMA-Factory needs a text here")
    parts = ReadInstruction.from_spec(split).to_absolute({"train": count})
    return [range(part.from_, part.to) for part in parts if part.from_ < part.to]


def _folder_problems(place: str, folder: Path) -> Iterator[Problem]:
    paths = loaded_files(folder)
    loaders = {path: LOADERS.get(path.suffix, "") if path.is_file() else "" for path in paths}
    names = ", ".join(sorted(path.name for path in paths)) or "nothing"
    hint = "name one file, or leave only the data in the folder"
    everything = f"LLaMA-Factory loads every file of the folder {folder} ({names})"
    if not paths or "" in loaders.values():
        message = f"{everything}, and takes only {', '.join(LOADERS)}"
        yield Problem("E435", place, message, "file_name", hint)
    elif len(set(loaders.values())) > 1:
        yield Problem("E435", place, f"{everything}, and they must be of one type", "file_name", hint)
