"""The command that leads from a compiled dataset to a recipe: the next one after a compile.

That is the bundled recipe that names the dataset, or the one for rows of its form.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tuneyard.core.datasets import DEFAULT_FOLDER, eval_split, read_registry, stem_of, train_split_of
from tuneyard.core.datasets.bundled_recipes import RECIPES, find_recipe, read_bundled
from tuneyard.core.datasets.compiled import manifest_beside
from tuneyard.core.files import strings
from tuneyard.core.records import Entry, has_media
from tuneyard.core.training.training_run import names_in
from tuneyard.core.training.training_stage import MARKED, PAIRS, rows_of


def next_recipe(datasets: Sequence[str], folder: Path, model: str | None = None) -> list[str]:
    """Words of the command with a recipe for the first of these datasets but eval splits; [] without any.

    For a `model` that the user has named, a new recipe is made.
    """
    registered = read_registry(folder)
    for dataset in datasets:
        if dataset not in registered or train_split_of(dataset, registered):
            continue
        if model:
            return new_recipe(dataset, folder, model)
        return recipe_words(dataset, folder, registered)
    return []


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
    if dataset not in names_in(recipe.settings.get("dataset")):
        settings["dataset"] = dataset
        held_out = eval_split(dataset, entries)
        if held_out:
            settings["eval_dataset"] = held_out
            if "val_size" in recipe.settings:
                settings["val_size"] = "0"
        elif "eval_dataset" in recipe.settings:
            settings |= {"eval_dataset": "null", "val_size": "0.1"}
        settings["output_dir"] = f"saves/{stem_of(dataset)}"
    if folder != DEFAULT_FOLDER:
        settings["dataset_dir"] = str(folder)
    if has_media(entries[dataset]):
        compiled = manifest_beside(folder / str(entries[dataset].get("file_name")))
        if compiled is not None and compiled[0].media_folders:
            settings["media_dir"] = str(compiled[0].media_folders[0])
    overrides = [f"{key}={value}" for key, value in settings.items()]
    return ["tuneyard", "recipe", "check", str(RECIPES / recipe.path.name), *overrides]


def recipe_for_rows(entry: Entry) -> str:
    """File of the bundled recipe for rows of a form, by their entry in the registry."""
    columns = strings(entry.get("columns"))
    if has_media(entry):
        return "vl-lora.yaml"
    if rows_of(entry) == PAIRS:
        return "dpo-lora.yaml"
    if rows_of(entry) == MARKED:
        return "kto-lora.yaml"
    if columns.keys() == {"prompt"}:
        return "text-lora.yaml"
    return "sft-lora.yaml"
