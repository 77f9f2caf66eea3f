"""Which files and rows LLaMA-Factory loads for an entry: folders, `split` and `num_samples`."""

from collections.abc import Iterator
from itertools import chain
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


def selected_rows(ranges: list[range]) -> dict[int, int]:
    """The numbers of the selected records in the order of the file, each with its place among loaded rows.

    A record that is selected twice is taken at its first place.
    """
    places: dict[int, int] = {}
    for place, number in enumerate(chain.from_iterable(ranges)):
        places.setdefault(number, place)
    return dict(sorted(places.items()))


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
