"""The command that leads from a compiled dataset to a recipe: the next one after a compile.

That is the bundled recipe that names the dataset, or the one for rows of its form.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tuneyard.core.datasets import (
    CHOOSING,
    DEFAULT_FOLDER,
    HELD_OUT,
    eval_split,
    is_named_held_out,
    read_registry,
    stem_of,
    train_split_of,
)
from tuneyard.core.datasets.bundled_recipes import RECIPES, BundledRecipe, find_recipe, read_bundled
from tuneyard.core.datasets.compiled import manifest_beside
from tuneyard.core.files import strings
from tuneyard.core.llamafactory.stages import PAIRS, TAGGED, rows_of
from tuneyard.core.records import Entry, has_media
from tuneyard.core.training.training_run import names_in


def next_recipe(datasets: Sequence[str], folder: Path, model: str | None = None) -> list[str]:
    """Words of the command with a recipe for the first of these datasets but eval splits; [] without any.

    For a `model` that the user has named, a new recipe is made.
    """
    registered = read_registry(folder)
    for dataset in datasets:
        if dataset not in registered or train_split_of(dataset, registered):
            continue
        if _has_held_out_rows_alone(dataset, folder, registered[dataset]):
            continue
        if model:
            return new_recipe(dataset, folder, model)
        return recipe_words(dataset, folder, registered)
    return []


def _has_held_out_rows_alone(dataset: str, folder: Path, entry: Entry) -> bool:
    """True for rows to evaluate on whose training rows are nowhere.

    The manifest of a compile has the splits with rows. A dataset without a manifest is told by its name.
    """
    compiled = manifest_beside(folder / str(entry.get("file_name")))
    if compiled is not None and compiled[0].fit:
        return all(split in HELD_OUT for split in compiled[0].fit)
    return is_named_held_out(dataset)


def new_recipe(dataset: str, folder: Path, model: str) -> list[str]:
    """The words of `recipe new` for a dataset and a model."""
    words = ["tuneyard", "recipe", "new", "--dataset", dataset, "--model", model]
    if folder != DEFAULT_FOLDER:
        words += ["--dataset-dir", str(folder)]
    return [*words, "--out", f"{stem_of(dataset)}-lora.yaml"]


def recipe_words(dataset: str, folder: Path, entries: Mapping[str, Entry]) -> list[str]:
    """The words of `recipe check` with the bundled recipe for a dataset, and the settings that it then needs.

    `entries` are those of the dataset and its splits. A dataset that no recipe names gets the recipe for rows
    of its form.
    """
    recipe = find_recipe(dataset) or read_bundled(RECIPES / recipe_for_rows(entries[dataset]))
    settings: dict[str, str] = {}
    is_of_dataset = dataset in names_in(recipe.settings.get("dataset"))
    if not is_of_dataset:
        settings["dataset"] = dataset
    settings |= _evaluation(recipe, dataset, entries)
    if not is_of_dataset:
        settings["output_dir"] = f"saves/{stem_of(dataset)}"
    if folder != DEFAULT_FOLDER:
        settings["dataset_dir"] = str(folder)
    if has_media(entries[dataset]):
        compiled = manifest_beside(folder / str(entries[dataset].get("file_name")))
        if compiled is not None and compiled[0].media_folders:
            settings["media_dir"] = str(compiled[0].media_folders[0])
    overrides = [f"{key}={value}" for key, value in settings.items()]
    return ["tuneyard", "recipe", "check", str(RECIPES / recipe.path.name), *overrides]


def _evaluation(recipe: BundledRecipe, dataset: str, entries: Mapping[str, Entry]) -> dict[str, str]:
    """The settings with which a recipe evaluates on the held-out rows of a dataset, if there are some.

    {} if it evaluates on them as it is, or evaluates nothing. A recipe with `val_size` keeps it if there are
    rows of `test` alone: they choose no checkpoint.
    """
    evaluated = names_in(recipe.settings.get("eval_dataset"))
    if not evaluated and not recipe.settings.get("val_size"):
        return {}
    is_of_dataset = dataset in names_in(recipe.settings.get("dataset"))
    if is_of_dataset and evaluated and all(name in entries for name in evaluated):
        return {}
    splits = CHOOSING if "val_size" in recipe.settings else HELD_OUT
    held_out = eval_split(dataset, entries, splits)
    if held_out:
        settings = {"eval_dataset": held_out}
        if "val_size" in recipe.settings:
            settings["val_size"] = "0"
        return settings
    if evaluated:
        return {"eval_dataset": "null", "val_size": "0.1"}
    return {}


def recipe_for_rows(entry: Entry) -> str:
    """File of the bundled recipe for rows of a form, by their entry in the registry."""
    columns = strings(entry.get("columns"))
    if has_media(entry):
        return "vl-lora.yaml"
    if rows_of(entry) == PAIRS:
        return "dpo-lora.yaml"
    if rows_of(entry) == TAGGED:
        return "kto-lora.yaml"
    if columns.keys() == {"prompt"}:
        return "text-lora.yaml"
    return "sft-lora.yaml"
