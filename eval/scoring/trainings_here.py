"""Trainings in saves/ that a bare scoring command leaves out: a try, and one that was cut off.

A recipe's header writes a try to saves/try (`max_steps=3 output_dir=saves/try`). An unfinished training has
no adapter yet: `tuneyard recipe train` leaves started.json, `llamafactory-cli train` its log and checkpoints.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tuneyard.adapters.model.store import SAVES
from tuneyard.core.datasets.bundled_recipes import BundledRecipe, bundled_recipes, find_recipe
from tuneyard.core.errors import ContentError
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import _, typed
from tuneyard.core.training.training_run import (
    CHECKPOINT,
    STARTED,
    TRAINING,
    checkpoint_folders,
    names_in,
    training_inputs,
    training_settings,
)
from tuneyard.core.weights.adapter_files import CONFIG

LOG = "trainer_log.jsonl"
"""LLaMA-Factory writes it from the first logged step on."""
TRY = re.compile(r"try(?![a-z])", re.IGNORECASE)
"""Begins the name of a try's folder: try, try-2, try_mnli, and try.1 that was set aside."""
OTHER_WEIGHTS = ("config.json", "*.safetensors", "*.bin")
"""In the output_dir of a finished training that makes no adapter."""


def is_try(folder: Path) -> bool:
    """True for a folder in saves/ that is named as the recipes' headers name a try.

    A `max_steps` of the user's own makes no try of a training.
    """
    return any(TRY.match(part) for part in folder.relative_to(SAVES).parts)


def unfinished_trainings(depth: int) -> Iterator[Path]:
    """Yield the folders of unfinished trainings of adapters, up to `depth` levels below saves/."""
    for level in range(1, depth + 1):
        for folder in sorted(SAVES.glob("/".join(["[!.]*"] * level))):
            in_checkpoint = any(CHECKPOINT.fullmatch(part) for part in folder.parts)
            if folder.is_dir() and not in_checkpoint and _is_unfinished(folder):
                yield folder


def _is_unfinished(folder: Path) -> bool:
    """True for a folder that a training wrote to, and that has no weights but those of checkpoints."""
    if (folder / TRAINING).exists() or (folder / CONFIG).exists():
        return False
    if any(any(folder.glob(name)) for name in OTHER_WEIGHTS):
        return False
    checkpoint = newest_checkpoint(folder)
    if checkpoint is not None:
        return (checkpoint / CONFIG).is_file()
    if (folder / LOG).is_file():
        return True
    return (folder / STARTED).is_file() and _trains_an_adapter(folder)


def _trains_an_adapter(folder: Path) -> bool:
    """False only if the settings of a training say that it makes a whole model."""
    try:
        settings = training_settings(folder)
    except ContentError:
        return True
    return settings.get("finetuning_type", "lora") not in ("full", "freeze")


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step, None without any."""
    return next(iter(checkpoint_folders(folder)), None)


def unfinished_line(folder: Path) -> str:
    """Sentence about an unfinished training: its newest checkpoint, and the command that resumes it."""
    checkpoint = newest_checkpoint(folder)
    if checkpoint:
        state = _("newest {checkpoint}", checkpoint=checkpoint.name)
        effect = _("resumes it")
    else:
        state = _("no checkpoint")
        effect = _("starts it again")
    try:
        command = _resuming(folder, checkpoint)
    except ContentError as error:
        return _("{folder}: training unfinished ({state}); {error}", folder=folder, state=state, error=error)
    if not command:
        return _(
            "{folder}: training unfinished ({state}); the command that began it {effect}",
            folder=folder,
            state=state,
            effect=effect,
        )
    return _(
        "{folder}: training unfinished ({state}); `{command}` {effect}",
        folder=folder,
        state=state,
        command=typed(command),
        effect=effect,
    )


def _resuming(folder: Path, checkpoint: Path | None) -> list[str]:
    """Words of the command that resumes a training, [] if no bundled recipe is the one that began it.

    `ContentError` if started.json is damaged.
    """
    if not (folder / STARTED).is_file():
        recipe = _recipe_into(folder)
        if recipe is None:
            return []
        command = ["llamafactory-cli", "train", str(recipe.path)]
        if checkpoint:  # without both settings the recipes' overwrite_output_dir begins anew
            command += ["overwrite_output_dir=false", f"resume_from_checkpoint={checkpoint}"]
        return command
    settings: JsonObject = training_inputs(folder).get("settings", {})
    recipe = _recipe_into(folder)
    if recipe is None:
        for name in names_in(settings.get("dataset")):
            recipe = recipe or find_recipe(name)
    if recipe is None:
        return []
    command = ["tuneyard", "recipe", "train", f"recipes/{recipe.path.name}"]  # found in every folder
    for key, value in sorted(settings.items()):
        if key not in recipe.settings or recipe.settings[key] != value:
            command.append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    if Path(str(recipe.settings.get("output_dir"))) != folder:
        command.append(f"output_dir={folder}")
    return command


def _recipe_into(folder: Path) -> BundledRecipe | None:
    """The bundled recipe whose output_dir is a folder, None without any."""
    for recipe in bundled_recipes():
        if Path(str(recipe.settings.get("output_dir"))) == folder:
            return recipe
    return None
