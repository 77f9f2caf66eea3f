"""A recipe that `data verify --recipe` reads: its settings, and whether it reads the dataset.

How many rows it trains is what `recipe check` counts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.datasets import LLAMAFACTORY_FOLDER, REGISTRY
from tuneyard.core.documents import read_mapping, read_yaml
from tuneyard.core.errors import ContentError, Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import Fields
from tuneyard.core.language.message import _
from tuneyard.core.training.training_run import names_in

NOT_TRAINED = ProblemCode(
    "E433", _("a recipe that does not train this dataset"), _("Check `dataset` and `dataset_dir`.")
)


Settings = Mapping[str, object]


class RecipeFile(NamedTuple):
    """A recipe's path and its settings."""

    path: Path
    settings: Settings

    def location(self, key: str) -> str:
        """`file:line` of a key, or the file if the recipe does not have it."""
        lines = read_yaml(self.path, "recipe").lines
        return f"{self.path}:{lines[key]}" if key in lines else str(self.path)


def read_settings(path: Path | None, options: Settings) -> tuple[Fields, RecipeFile | None]:
    """The settings of a recipe, which options that were given replace, and the recipe with them."""
    settings = {key: value for key, value in options.items() if value is not None}
    if path is None:
        return settings, None
    recipe = read_mapping(path, "recipe")
    if recipe.keys().isdisjoint(("model_name_or_path", "stage", "dataset", "template", "cutoff_len")):
        raise ContentError(
            _("{path}: no training recipe: it names no model_name_or_path, stage or dataset", path=path)
        )
    settings = recipe | settings
    return settings, RecipeFile(path, settings)


def recipe_problem(recipe: RecipeFile, dataset: str, folder: Path, siblings: Sequence[str]) -> Problem | None:
    """E433 if a recipe does not read a dataset. `folder` is that of its registry.

    `siblings` are the datasets of the same compile: if the recipe trains one of them, this one may be left
    out. A recipe may name no dataset yet.
    """
    names = names_in(recipe.settings.get("dataset"))
    if not names:
        return None
    trains_sibling = dataset in siblings and not set(names).isdisjoint(siblings)
    if not trains_sibling and dataset not in [*names, *names_in(recipe.settings.get("eval_dataset"))]:
        message: str = _("the recipe trains {names}, not {name}", names=", ".join(names), name=dataset)
        return Problem(NOT_TRAINED, recipe.location("dataset"), message, "dataset")
    other = Path(str(recipe.settings.get("dataset_dir") or LLAMAFACTORY_FOLDER))
    if other.resolve() == folder.resolve():
        return None
    message = _(
        "LLaMA-Factory reads {registry}, and not {expected}",
        registry=other / REGISTRY,
        expected=folder / REGISTRY,
    )
    fix = _("write `dataset_dir: {folder}`", folder=folder)
    return Problem(NOT_TRAINED, recipe.location("dataset_dir"), message, "dataset_dir", fix)
