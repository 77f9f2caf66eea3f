"""Entries of which LLaMA-Factory loads no files, or other rows than all: folders, `split`, `num_samples`."""

from collections.abc import Iterator
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
SPLITS = ("train", "all")
"""Values of `split` that load all rows of a file."""


def selection_problems(place: str, dataset: Dataset) -> Iterator[Problem]:
    """Yield E435 for a folder that LLaMA-Factory refuses, a wrong `num_samples`, and a part of a file."""
    entry = dataset.entry
    if dataset.path.is_dir():
        yield from _folder_problems(place, dataset.path)
    samples = entry.get("num_samples")
    if samples is not None and (type(samples) is not int or samples < 1):
        message = f"found {show_value(samples)}, expected a whole number above 0: LLaMA-Factory stops"
        yield Problem("E435", place, message, "num_samples", "write a number, or take the key out")
    split = entry.get("split", SPLITS[0])
    if split not in SPLITS:
        message = f"found {show_value(split)}, and a file is compared as a whole"
        fix = (
            'write "train", or take the key out; `num_samples` and a recipe\'s `max_samples` take fewer rows'
        )
        yield Problem("E435", place, message, "split", fix)


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
