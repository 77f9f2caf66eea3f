"""The registry `dataset_info.json`: what LLaMA-Factory, recipes and eval know a dataset by."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ContentError, RequestError, nearest
from core.files import read_object

REGISTRY = "dataset_info.json"
DEFAULT_FOLDER = Path("dataset_info")


@dataclass(frozen=True, slots=True)
class Dataset:
    """One entry of the registry: its name, its file, and the entry as it stands there."""

    name: str
    path: Path
    entry: dict[str, object]


def read_registry(folder: Path) -> dict[str, dict[str, object]]:
    """Return all entries by name ({} where there is no registry yet); `ContentError` if it is broken."""
    path = folder / REGISTRY
    try:
        path.stat()  # which names a loop of links, where `exists` would say that there is nothing
    except (FileNotFoundError, NotADirectoryError):
        return {}
    entries = read_object(path, unique_keys=True)
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise ContentError(f"{path}: entry {name!r}: found {type(entry).__name__}, expected an object")
    return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}


def find_dataset(name: str, folder: Path = DEFAULT_FOLDER) -> Dataset:
    """Return the registered dataset `name`; `RequestError` lists what is registered otherwise."""
    entries = read_registry(folder)
    if name not in entries:
        known = ", ".join(sorted(entries)) or "none"
        hint = nearest(name, entries)
        raise RequestError(
            f"dataset {name!r} is not in {folder / REGISTRY} (registered: {known}) {hint}".rstrip()
        )
    file_name = entries[name].get("file_name")
    if not isinstance(file_name, str):
        raise ContentError(f"{folder / REGISTRY}: {name}: no file_name: only local files can be read here")
    path = folder / file_name
    if not path.is_file():
        raise RequestError(f"{path}: file of dataset {name!r} not found; compile it again")
    return Dataset(name, path, entries[name])


def read_records(path: Path) -> list[dict[str, object]]:
    """Return the records of a JSON array or a JSON Lines file; the content decides which it is."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ContentError(f"{path}: not UTF-8 at byte {error.start}") from error
    rows = (
        _parse(text, path)
        if text.lstrip().startswith("[")
        else [_parse(x, path, number) for number, x in enumerate(text.split("\n"), 1) if x.strip()]
    )
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ContentError(f"{path}: record {number}: found {type(row).__name__}, expected an object")
    return rows


def _parse(text: str, path: Path, line: int = 1) -> Any:
    """Return the JSON value that begins in `line` of the file; `ContentError` names the wrong line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}:{line + error.lineno - 1}"
        raise ContentError(f"{place}: not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise ContentError(f"{path}:{line}: nested too deep to be read") from error
    except ValueError as error:  # Python reads whole numbers of 4,300 digits at most
        raise ContentError(f"{path}:{line}: a number of too many digits to be read") from error
