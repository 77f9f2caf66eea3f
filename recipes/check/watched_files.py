"""The files that the check of a recipe depends on, and whether one changed (`recipe check --watch`)."""

from collections.abc import Iterable
from pathlib import Path

from tuneyard.core.datasets import REGISTRY
from tuneyard.core.datasets.compiled import MANIFEST
from tuneyard.core.errors import TuneyardError
from tuneyard.core.files import files_of
from tuneyard.recipes.llamafactory.cache import MODEL_WEIGHTS
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.data import dataset_dir, locate

FileStates = dict[Path, tuple[int, int, int] | None]
"""Inode, size (bytes) and time of the last change (nanoseconds) of each file, None if it is missing."""
PATH_SETTINGS = (
    "model_name_or_path",
    "deepspeed",
    "adapter_name_or_path",
    "ref_model",
    "ref_model_adapters",
    "reward_model",
    "media_dir",
)


def watched_files(recipe: Recipe) -> list[Path]:
    """The recipe, and the files and folders that its settings name, with the content of the folders."""
    weights = recipe.path.parent / "weights" / recipe.path.name
    registry = Path(dataset_dir(recipe)) / REGISTRY
    paths = [recipe.path, weights, registry, *_datasets(recipe)]
    for key in PATH_SETTINGS:
        for name in recipe.names(key):
            path = Path(name)
            paths.append(path)
            if path.is_dir():
                paths += [file for file in path.iterdir() if file.suffix not in MODEL_WEIGHTS]
    return paths


def _datasets(recipe: Recipe) -> list[Path]:
    paths: list[Path] = []
    for name in recipe.datasets:
        try:
            _entry, path = locate(name, dataset_dir(recipe))
            if isinstance(path, Path):
                paths += [path, *files_of(path), path.parent / MANIFEST]
        except (TuneyardError, OSError):  # the check reports it; the registry is watched
            continue
    return paths


def states_of(paths: Iterable[Path]) -> FileStates:
    """Identify the content of each file."""
    states: FileStates = {}
    for path in paths:
        try:
            state = path.stat()
        except (OSError, ValueError):
            states[path] = None
            continue
        states[path] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return states
