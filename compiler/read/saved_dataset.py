"""Folders that `Dataset.save_to_disk` of `datasets` wrote: Arrow files, and two files about them."""

from collections.abc import Mapping
from pathlib import Path, PurePath

from tuneyard.compiler.read import FilesBySplit, folder_reader
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import read_object

STATE = "state.json"
FILES = "_data_files"


@folder_reader(STATE)
def read_saved_dataset(folder: Path) -> FilesBySplit | None:
    """The Arrow files in the order of their rows; None if `state.json` is not that of a saved dataset.

    `ContentError` if it names a file that is missing or outside the folder.
    """
    listed = read_object(folder / STATE).get(FILES)
    if not isinstance(listed, list):
        return None
    paths: list[Path] = []
    for entry in listed:
        name = entry.get("filename") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or PurePath(name).name != name:
            raise ContentError(
                f"{folder / STATE}: {FILES} has {show_value(entry)}, expected the name of a "
                "file in this folder"
            )
        if not (folder / name).is_file():
            raise ContentError(
                f"{folder / name}: file not found, and {STATE} names it: copy the whole folder, or save the "
                "dataset again"
            )
        paths.append(folder / name)
    return {"": paths}
