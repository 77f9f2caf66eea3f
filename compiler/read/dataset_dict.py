"""Folders that `DatasetDict.save_to_disk` of `datasets` wrote: one saved dataset for each split."""

from pathlib import Path, PurePath

from tuneyard.compiler.read import FilesBySplit, files_of_folder, folder_reader
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import read_object

INDEX = "dataset_dict.json"


@folder_reader(INDEX)
def read_dataset_dict(folder: Path) -> FilesBySplit:
    """The files of each split. `ContentError` if the index names a split without a saved dataset."""
    names = read_object(folder / INDEX).get("splits")
    if not isinstance(names, list) or not names:
        raise ContentError(f"{folder / INDEX}: found {show_value(names)}, expected `splits`, a list of names")
    files: FilesBySplit = {}
    for name in names:
        if not isinstance(name, str) or PurePath(name).name != name:
            raise ContentError(
                f"{folder / INDEX}: found the split {show_value(name)}, expected a folder's name"
            )
        saved = files_of_folder(folder / name)
        if saved is None:
            raise ContentError(
                f"{folder / name}: no saved dataset, and {INDEX} names this split: copy the whole folder, or "
                "save the dataset again"
            )
        files[name] = saved[""]
    return files
