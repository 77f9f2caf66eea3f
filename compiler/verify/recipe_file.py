"""A recipe that `data verify --recipe` reads: its settings, and whether it trains the dataset.

How many rows it trains is what `recipe check` counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.datasets import REGISTRY, Dataset
from tuneyard.core.documents import read_yaml
from tuneyard.core.errors import Problem, show_value
from tuneyard.core.training.training_run import names_in

LLAMAFACTORY_DATASET_DIR = "data"
Settings = Mapping[str, object]
USES = ("do_train", "do_eval", "do_predict")


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe's path, its settings and the line of each key."""

    path: Path
    settings: Settings
    lines: Mapping[str, int]

    def place(self, key: str) -> str:
        """`file:line` of a key, or the file if the recipe does not have it."""
        return f"{self.path}:{self.lines[key]}" if key in self.lines else str(self.path)

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """E433, with the line of the key."""
        return Problem("E433", self.place(key), message, key, hint)


def read_recipe_file(path: Path, settings: Settings) -> RecipeFile:
    """A recipe with its `settings` (options of the command replace some) and its lines."""
    return RecipeFile(path, settings, read_yaml(path, "recipe").lines)


def recipe_problem(
    recipe: RecipeFile, dataset: Dataset, folder: Path, siblings: Sequence[str]
) -> Problem | None:
    """E433 if a recipe does not read a dataset. `folder` is that of its registry.

    `siblings` are the datasets of the same compile: if the recipe trains one of them, this one may be left
    out. A recipe may name no dataset yet.
    """
    settings = recipe.settings
    names = names_in(settings.get("dataset"))
    if not any(settings.get(key) is True for key in USES):
        state = "is missing"
        if "do_train" in settings:
            state = f"is {show_value(settings['do_train'])}"
        return recipe.problem("do_train", f"{state}: nothing is trained", "write `do_train: true`")
    if not names:
        return None
    if dataset.name not in {*names, *names_in(settings.get("eval_dataset"))}.union(
        siblings if set(names).intersection(siblings) else ()
    ):
        return recipe.problem("dataset", f"the recipe trains {', '.join(names)}, not {dataset.name}")
    dataset_dir = settings.get("dataset_dir")
    other = Path(str(dataset_dir or LLAMAFACTORY_DATASET_DIR))
    if other.resolve() == folder.resolve():
        return None
    setting = "is missing"
    if dataset_dir:
        setting = show_value(dataset_dir)
    other_registry = str(other / REGISTRY)
    if not (other / REGISTRY).is_file():
        other_registry = f"{other_registry}, which does not exist"
    message = f"{setting}: LLaMA-Factory reads {other_registry}, and not {folder / REGISTRY}"
    return recipe.problem("dataset_dir", message, f"write `dataset_dir: {folder}`")
