"""The fingerprints of the rows that a training starts with, next to the weights that it writes."""

from collections.abc import Mapping
from pathlib import Path

from tuneyard.core.datasets.trained_examples import (
    read_trained_rows,
    trained_examples,
    write_trained_rows,
)
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import Message, _
from tuneyard.core.records.training_record import TrainedDataset
from tuneyard.core.training.training_run import STARTED, TRAINED_ROWS
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.data import dataset_dir

NOT_RECORDED = _("not recorded: the fingerprints of the training rows, by which scoring knows them again")


def record_trained_rows(recipe: Recipe, inputs: Mapping[str, object]) -> list[Message]:
    """Write the fingerprints of a training's rows into its output_dir. A resumed training adds to them.

    `inputs` are those of started.json, which must not be written before: the rows of a training that began
    are known. The result has a line for each reason why they are not recorded. `ContentError` if the file of
    a training to resume is broken.
    """
    if not recipe.trains:
        return []
    tokens = recipe.settings.get("tokenized_path")
    if isinstance(tokens, str) and Path(tokens).is_dir():
        return [_("{problem} ({path} replaces the datasets)", problem=NOT_RECORDED, path=Path(tokens))]
    output_dir = recipe.output_dir
    parts = []
    if (output_dir / STARTED).is_file() and (output_dir / TRAINED_ROWS).exists():
        earlier = read_trained_rows(output_dir)
        if earlier is not None:
            parts.append(earlier)
    examples, problems = trained_examples(
        _trained_datasets(recipe, inputs), recipe.settings, Path(dataset_dir(recipe))
    )
    notes: list[Message] = []
    for dataset, reason in problems.items():
        notes.append(
            _("{problem} ({dataset}: {reason})", problem=NOT_RECORDED, dataset=dataset, reason=reason)
        )
    if notes:
        return notes
    try:
        write_trained_rows(output_dir, [*parts, examples])
    except ContentError as error:  # too many
        return [_("{problem} ({reason})", problem=NOT_RECORDED, reason=error.message)]
    return []


def _trained_datasets(recipe: Recipe, inputs: Mapping[str, object]) -> list[TrainedDataset]:
    """The records of the datasets that are trained on, in the order of the recipe."""
    by_name: dict[str, TrainedDataset] = {}
    data = inputs["data"]
    for entry in data if isinstance(data, list) else []:
        by_name[entry["dataset"]] = entry
    return [by_name[name] for name in recipe.names("dataset")]
