"""The bundled recipe for a dataset: the next one after a compile, and what trains an adapter for `eval nli`.

A bundled recipe names its dataset in `dataset:`. Its header may name others that it is also for, as settings:
`dataset=mix_large_train eval_dataset=mix_large_eval`. No other list has to be kept.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tuneyard.core.datasets import stem_of
from tuneyard.core.documents import read_yaml
from tuneyard.core.errors import TuneyardError
from tuneyard.core.files import bundled
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.training.training_run import names_in

RECIPES = Path("recipes")
OTHER_DATASET = re.compile(r"\bdataset=([\w-]+)")
"""A further dataset in the header of a recipe."""


class BundledRecipe(NamedTuple):
    """A bundled recipe: its path, its settings, and the datasets that its header names."""

    path: Path
    settings: Mapping[str, object]
    others: Sequence[str]


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
            yield read_bundled(RECIPES / path.name)
        except (TuneyardError, OSError):  # `recipe check` reports what is wrong with it
            continue


def read_bundled(name: Path) -> BundledRecipe:
    """Read a recipe by its name in recipes/. `ContentError` for one that is no YAML."""
    path = bundled(name)
    settings = read_yaml(path, "recipe").value
    names: list[str] = []
    for file in dict.fromkeys([path, ROOT / name]):  # an edited copy may have lost its comments
        header = file.read_text(encoding="utf-8-sig").partition("\n\n")[0]
        names += OTHER_DATASET.findall(header)
    return BundledRecipe(path, settings if isinstance(settings, dict) else {}, names)
