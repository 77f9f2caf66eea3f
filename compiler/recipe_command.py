"""The command that leads from a compiled dataset to a recipe: the next one after a compile.

A bundled recipe names its dataset in `dataset:`. Its header may name others that it is also for, as settings:
`dataset=mix_large_train eval_dataset=mix_large_eval`. No other list has to be kept.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.datasets import DEFAULT_FOLDER, eval_split, read_registry, stem_of, train_split_of
from tuneyard.core.datasets.compiled import manifest_beside
from tuneyard.core.documents import read_yaml
from tuneyard.core.errors import TuneyardError
from tuneyard.core.files import bundled, strings
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.records import Entry, has_media
from tuneyard.core.training.training_run import names_in
from tuneyard.core.training.training_stage import MARKED, PAIRS, rows_of

RECIPES = Path("recipes")
OTHER_DATASET = re.compile(r"\bdataset=([\w-]+)")
"""A further dataset in the header of a recipe."""


class BundledRecipe(NamedTuple):
    """A bundled recipe: its path, its settings, and the datasets that its header names."""

    path: Path
    settings: Mapping[str, object]
    others: Sequence[str]


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
    recipe = find_recipe(dataset) or _read_recipe(RECIPES / recipe_for_rows(entries[dataset]))
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


def find_recipe(dataset: str) -> BundledRecipe | None:
    """The bundled recipe that names a dataset, None without any.

    Of several it is the one that trains on this dataset alone, then one that has the dataset's name in its
    own, then one for an adapter, then the first by name.
    """
    candidates: list[tuple[tuple[bool, bool, bool, bool, str], BundledRecipe]] = []
    for recipe in bundled_recipes():
        names = names_in(recipe.settings.get("dataset"))
        if dataset not in (*names, *recipe.others):
            continue
        words = re.split(r"[-_]", recipe.path.stem)
        rank = (
            dataset not in names,
            len(names) > 1,
            stem_of(dataset) not in words,
            recipe.settings.get("finetuning_type") == "full",
            recipe.path.name,
        )
        candidates.append((rank, recipe))
    if not candidates:
        return None
    return min(candidates, key=lambda candidate: candidate[0])[1]


def bundled_recipes() -> Iterator[BundledRecipe]:
    """Yield the recipes of recipes/. A copy in the current folder comes first; a broken one is left out."""
    for path in sorted((ROOT / RECIPES).glob("*.yaml")):
        try:
            yield _read_recipe(RECIPES / path.name)
        except (TuneyardError, OSError):  # `recipe check` reports what is wrong with it
            continue


def _read_recipe(name: Path) -> BundledRecipe:
    path = bundled(name)
    settings = read_yaml(path, "recipe").value
    header = path.read_text(encoding="utf-8-sig").partition("\n\n")[0]
    names = OTHER_DATASET.findall(header)
    return BundledRecipe(path, settings if isinstance(settings, dict) else {}, names)


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
