"""The command that writes a recipe for a dataset: the next one after a compile."""

from collections.abc import Sequence
from pathlib import Path

from tuneyard.core.datasets import DEFAULT_FOLDER, read_registry, stem_of, train_split_of
from tuneyard.core.files import strings
from tuneyard.core.records import PLACEHOLDERS, Entry

MODEL, VISION_MODEL = "Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"
"""Models that are proposed unless the user has named one: for texts, and for images, videos and audios."""


def new_recipe(datasets: Sequence[str], folder: Path, model: str | None = None) -> list[str]:
    """The words of `recipe new` for the first of these datasets but eval splits; [] without any."""
    registered = read_registry(folder)
    for dataset in datasets:
        if dataset in registered and not train_split_of(dataset, registered):
            return recipe_words(dataset, folder, model or model_for(registered[dataset]))
    return []


def recipe_words(dataset: str, folder: Path, model: str) -> list[str]:
    """The words of `recipe new` for a dataset in the registry of `folder`."""
    words = ["tuneyard", "recipe", "new", "--dataset", dataset, "--model", model]
    if folder != DEFAULT_FOLDER:
        words += ["--dataset-dir", str(folder)]
    return [*words, "--out", f"{stem_of(dataset)}-lora.yaml"]


def model_for(entry: Entry) -> str:
    """The model that is proposed for a dataset, by its entry in the registry."""
    has_media = not PLACEHOLDERS.keys().isdisjoint(strings(entry.get("columns")))
    return VISION_MODEL if has_media else MODEL
