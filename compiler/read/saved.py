"""Folders that `save_to_disk` of `datasets` wrote: Arrow files of a dataset, or of each of its splits."""

from pathlib import Path

from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import names_folder, read_object
from tuneyard.core.files.links import own_file
from tuneyard.core.language.message import _

STATE, INDEX = "state.json", "dataset_dict.json"
FILES = "_data_files"
ABOUT_SAVED = (STATE, INDEX, "dataset_info.json")
"""Files that are no data of such a folder."""


def saved_files(folder: Path) -> dict[str, list[Path]]:
    """The files by split, "" for a dataset without splits; {} for a folder of another kind.

    `ContentError` if files are missing or wrong.
    """
    if not (folder / INDEX).is_file():
        files = _arrow_files(folder)
        return {} if files is None else {"": files}
    names = read_object(folder / INDEX).get("splits")
    if not isinstance(names, list):
        return {}
    files_by_split: dict[str, list[Path]] = {}
    for name in names:
        files = (
            _arrow_files(own_file(folder / name)) if isinstance(name, str) and names_folder(name) else None
        )
        if files is None:
            raise ContentError(
                _(
                    "{path}: names the split {name}, of which there is no saved dataset: copy "
                    "the whole folder, or save the dataset again",
                    path=folder / INDEX,
                    name=show_value(name),
                )
            )
        files_by_split[name] = files
    return files_by_split


def _arrow_files(folder: Path) -> list[Path] | None:
    """The Arrow files in the order of their rows, None if `state.json` is not that of a saved dataset."""
    state = folder / STATE
    listed = read_object(state).get(FILES) if state.is_file() else None
    if not isinstance(listed, list):
        return None
    paths = []
    for entry in listed:
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not names_folder(name) or not (folder / name).is_file():
            raise ContentError(
                _(
                    "{state}: {key} has {entry}, expected the name of a file in this folder: "
                    "copy the whole folder, or save the dataset again",
                    state=state,
                    key=FILES,
                    entry=show_value(entry),
                )
            )
        paths.append(own_file(folder / name))
    return paths
