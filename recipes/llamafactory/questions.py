"""Questions to LLaMA-Factory about recipes. Answers to equal questions come from the cache."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuneyard.core.errors import TuneyardError
from tuneyard.core.files import files_of, sha256
from tuneyard.core.llamafactory import client
from tuneyard.core.llamafactory.loader import Launch
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.recipes.llamafactory.answer import Facts
from tuneyard.recipes.llamafactory.cache import folder_hashes, remembered
from tuneyard.recipes.machine.hardware import Gpu, is_set, uses_torchrun
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.data import dataset_dir, locate
from tuneyard.recipes.recipe.schema import known_keys

if TYPE_CHECKING:
    from tuneyard.core.llamafactory.template_choice import TemplateChoice

code_option = click.option(
    "--trust-remote-code",
    "runs_model_code",
    is_flag=True,
    help="Let LLaMA-Factory run the Python files of the model.",
)
"""A recipe's own `trust_remote_code` is for its training: looking at a mailed recipe runs no code."""


def ask(recipe: Recipe, model: str, gpus: Sequence[Gpu], *, runs_model_code: bool = False) -> Facts:
    """Ask LLaMA-Factory about a recipe for a machine with `gpus`. `ContentError` if it crashes.

    `runs_model_code`: it may run the Python files of the model (--trust-remote-code).

    An answer about the same settings, data and model comes from the cache. The learning rate, the setting
    that is edited most, is not asked about: LLaMA-Factory only hands it to the optimizer.
    """
    keys = known_keys().keys() - {"learning_rate"}
    settings = {key: value for key, value in recipe.settings.items() if key in keys}
    settings["model_name_or_path"] = model
    launch = _launch(recipe, gpus, runs_model_code=runs_model_code)

    def answer() -> Facts:
        from tuneyard.recipes.llamafactory.inspection import inspect  # 30 ms that a kept answer does not need

        return client.ask(inspect, settings, launch)

    data = _data(recipe)
    if data is None:
        return answer()
    return remembered("recipe", [settings, launch, data, folder_hashes(Path(model))], Facts, answer)


def ask_measures(
    recipe: Recipe, gpus: Sequence[Gpu], rows: dict[str, bool], *, runs_model_code: bool = False
) -> "tuple[Facts, TemplateChoice | None]":
    """Measure data and model for a new recipe; `rows` describes them."""
    from tuneyard.recipes.llamafactory.inspection import measure

    return client.ask(measure, recipe.settings, _launch(recipe, gpus, runs_model_code=runs_model_code), rows)


def _launch(recipe: Recipe, gpus: Sequence[Gpu], *, runs_model_code: bool) -> Launch:
    is_distributed = uses_torchrun(recipe, gpus) or is_set("USE_RAY")
    return Launch(is_distributed, recipe.zero_stage(), runs_model_code)


def _data(recipe: Recipe) -> dict[str, object] | None:
    """Entry and file hashes of each dataset. None if an answer also depends on media files."""
    data: dict[str, object] = {}
    for name in recipe.datasets:
        try:
            entry, path = locate(name, dataset_dir(recipe))
            hashes = path if isinstance(path, str) else [sha256(file) for file in files_of(path)]
        except TuneyardError:
            data[name] = None
            continue
        columns = entry.get("columns")
        if isinstance(columns, dict) and PLACEHOLDERS.keys() & columns.keys():
            return None
        data[name] = [entry, hashes]
    return data
