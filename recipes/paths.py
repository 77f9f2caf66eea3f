"""What can be wrong with the paths of a recipe: where a training writes, and what it resumes from."""

import os
from collections.abc import Iterator
from pathlib import Path

from core.errors import Problem, show_value
from recipes.recipe import Recipe
from recipes.sizes import existing

CHOOSE = "choose another output_dir"
LOADED = ("adapter_name_or_path", "ref_model", "ref_model_adapters", "reward_model", "media_dir")
KEPT = ("model_name_or_path", "adapter_name_or_path", "dataset_dir")


def path_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield paths that LLaMA-Factory's launcher splits, that are missing, or that must not be written."""
    for key in ("output_dir", "resume_from_checkpoint"):
        value = recipe.settings.get(key)
        if isinstance(value, str) and len(value.split()) > 1:
            message = f"found {show_value(value)}: LLaMA-Factory's launcher splits its arguments at spaces"
            yield recipe.problem("E311", key, message, "choose a path without spaces")
        elif isinstance(value, str) and not value.isprintable():
            message = f"found {show_value(value)}, expected a path without control characters"
            yield recipe.problem("E311", key, message)
    value = recipe.settings.get("resume_from_checkpoint")
    if isinstance(value, str) and not Path(value).is_dir():
        yield recipe.problem("E311", "resume_from_checkpoint", f"{value}: folder not found")
    for key in LOADED:
        for name in recipe.names(key):
            if name.startswith((".", "/", "~", "saves/", "models/")) and not Path(name).expanduser().exists():
                yield recipe.problem("E344", key, f"{name}: no such file or folder")
    out = recipe.settings.get("output_dir")
    if not isinstance(out, str) or not out.strip() or not out.isprintable():
        return
    if not _writable(existing(recipe.output_dir)):
        message = f"{existing(recipe.output_dir)} is no folder that can be written to"
        yield recipe.problem("E343", "output_dir", message, CHOOSE)
    elif message := _unfit(recipe, recipe.output_dir):
        yield recipe.problem("E341", "output_dir", message, CHOOSE)


def _unfit(recipe: Recipe, folder: Path) -> str:
    """Return why a folder cannot be a run's own: it may be set aside with all that lies in it."""
    needed = {"the current folder": ".", "the recipe": str(recipe.path)}
    needed |= {key: name for key in KEPT for name in recipe.names(key)}
    for what, name in needed.items():
        if (
            name.isprintable()
            and Path(name).exists()
            and Path(name).resolve().is_relative_to(folder.resolve())
        ):
            return f"{folder} holds {what}, so it cannot be a run's own"
    return ""


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
