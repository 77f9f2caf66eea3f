"""The dataset of `tuneyard recipe new`: its entry, held-out rows and objective, the folder of its media."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.datasets import (
    CHOOSING,
    REGISTRY,
    SEPARATORS,
    TRAIN_SPLIT,
    eval_split,
    read_records,
    read_registry,
    registry_folder,
    train_split_of,
)
from tuneyard.core.datasets.compiled import manifest_beside
from tuneyard.core.errors import RequestError
from tuneyard.core.files import files_of, strings
from tuneyard.core.files.bounded_reading import BLOCK, open_regular
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.llamafactory.stages import rows_of
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.recipes.new.objectives import OBJECTIVES, objectives_of
from tuneyard.recipes.recipe.data import COUNTED, locate

THOUGHT = b"<think>"


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A registered dataset and its held-out rows.

    - `eval_name`: the dataset of held-out rows; "" if the training itself is to hold rows out (`val_size`).
      Rows of `test` choose no checkpoint.
    - `folder`: of the registry. `path`: the file of the rows, or their folder.
    - `objective`: a name in `OBJECTIVES`.
    - `media_dir`: the folder below which LLaMA-Factory finds images, videos and audios; "" if rows have none.
    """

    name: str
    eval_name: str
    folder: Path
    path: Path
    entry: Mapping[str, object]
    objective: str
    media_dir: str = ""

    @property
    def has_media(self) -> bool:
        """True if rows have images, videos or audios."""
        return bool(self.media_dir)

    @property
    def has_thoughts(self) -> bool:
        """True if a file of the rows contains a thought (`<think>`)."""
        for path in files_of(self.path):
            with open_regular(path) as file:
                end = b""
                while block := file.read(BLOCK):
                    if THOUGHT in end + block:
                        return True
                    end = block[1 - len(THOUGHT) :]
        return False


def training_data(name: str, folder: Path | None, stage: str | None) -> TrainingData:
    """Find a dataset, its held-out rows and the objective that fits its rows.

    `RequestError` if a part is missing: the dataset, a `stage` that fits, or its media.
    """
    if "," in name:
        first = name.split(",")[0].strip()
        raise RequestError(
            _(
                "--dataset {name}: recipe new takes one dataset, by whose rows it chooses the "
                "settings; write the recipe of one (--dataset {first}), and add the other names to "
                "its `dataset:` afterwards",
                name=name,
                first=first,
            )
        )
    registry = registry_folder(folder, name)
    entry, path = locate(name, str(registry))
    if not isinstance(path, Path):
        raise RequestError(
            _(
                "dataset {name!r} is not on this machine ({place}), so that its rows cannot be "
                "counted; compile it (tuneyard data compile), or register a local file in {registry}",
                name=name,
                place=path,
                registry=registry / REGISTRY,
            )
        )
    objective = _objective(name, entry, stage)
    registered = read_registry(registry)
    for separator in SEPARATORS:
        split = f"{name}{separator}{TRAIN_SPLIT}"
        if split in registered:
            raise RequestError(
                _(
                    "dataset {name!r} has a train split, and its eval split may contain rows of {name}: "
                    "--dataset {train}",
                    name=name,
                    train=split,
                )
            )
    eval_name = eval_split(name, registered, CHOOSING)
    if not eval_split(name, registered):
        trained_on = train_split_of(name, registered)
        if trained_on:
            raise RequestError(
                _(
                    "dataset {name!r} is the eval split of {other}: --dataset {other}",
                    name=name,
                    other=trained_on,
                )
            )
    return TrainingData(name, eval_name, registry, path, entry, objective, _media_dir(entry, path, registry))


def _objective(name: str, entry: Mapping[str, object], stage: str | None) -> str:
    names = objectives_of(entry)
    if stage is None:
        return names[0]
    if stage not in names:
        rows = rows_of(entry).description
        if names == ["pt"]:
            rows = _("texts without answers")
        raise RequestError(
            _(
                "--stage {stage}: {name} has {rows}; --stage {stages} fits it (without --stage: {default})",
                stage=stage,
                name=name,
                rows=rows,
                stages=joined(names, _(" or ")),
                default=names[0],
            )
        )
    return stage


def _media_dir(entry: Mapping[str, object], path: Path, folder: Path) -> str:
    """Folder with the first file that a row names, "" for rows without media.

    It is sought below the registry, next to the source of the compile, and in the spec's `media_dir`.
    `RequestError` if no folder has it.
    """
    columns = strings(entry.get("columns"))
    media_columns = [columns[part] for part in PLACEHOLDERS if part in columns]
    if not media_columns:
        return ""
    folders = [folder]
    compiled = manifest_beside(path)
    if compiled is not None:
        folders += compiled[0].media_folders
    file = _first_file(path, media_columns)
    if file is None:
        return str(folder)
    for candidate in folders:
        if (candidate / file).is_file():
            return str(candidate)
    listed = joined(relative(folder) for folder in dict.fromkeys(folders))
    raise RequestError(
        _(
            "{path}: {file}: no such file in {names}; put the media of the rows into {folder}",
            path=path,
            file=file,
            names=listed,
            folder=folder,
        )
    )


def _first_file(path: Path, columns: list[str]) -> str | None:
    """The first image, video or audio that a row names; None if the rows are in a file of another kind."""
    for file in files_of(path):
        if file.suffix not in COUNTED:
            continue
        for record in read_records(file):
            for column in columns:
                value = record.get(column)
                if isinstance(value, list):
                    value = value[0] if value else None
                if isinstance(value, str) and value:
                    return value
    return None


STAGES = tuple(OBJECTIVES)
"""The choices of `--stage`."""
