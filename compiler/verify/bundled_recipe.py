"""The command that leads from a dataset to a recipe: `recipe new`, or `recipe check` of a bundled recipe."""

from collections.abc import Sequence
from pathlib import Path

from tuneyard.core.datasets import DEFAULT_FOLDER, eval_split, read_registry, stem_of
from tuneyard.core.documents import read_mapping
from tuneyard.core.installation.checkout import ROOT, bundled
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.core.training.training_stage import OBJECTIVES, objectives_of

RECIPES = {"rm": "dpo-lora", "dpo": "dpo-lora", "kto": "kto-lora", "pt": "text-lora"}
"""Bundled recipe by the training stage of the rows. Rows of `sft` have one of three."""


def new_recipe_words(datasets: Sequence[str], out: Path, model: str | None) -> list[str]:
    """The words of `recipe new` for the first of these datasets with an eval split; [] without any.

    Without a `model` it names that of the bundled recipe for such rows.
    """
    registered = read_registry(out)
    for dataset in datasets:
        if dataset not in registered or not eval_split(dataset, registered):
            continue
        stage = OBJECTIVES[objectives_of(registered[dataset])[0]].stage
        recipe = bundled(Path("recipes") / f"{_recipe_of(dataset, out, stage)}.yaml")
        return new_words(dataset, out, model or model_of(recipe))
    return []


def new_words(dataset: str, folder: Path, model: str) -> list[str]:
    """The words of `recipe new` for a dataset with an eval split in the registry of `folder`."""
    words = ["tuneyard", "recipe", "new", "--dataset", dataset, "--model", model]
    if folder != DEFAULT_FOLDER:
        words += ["--dataset-dir", str(folder)]
    return [*words, "--out", f"{stem_of(dataset)}-lora.yaml"]


def model_of(recipe: Path) -> str:
    """The model that a recipe trains."""
    return str(read_mapping(recipe, "recipe")["model_name_or_path"])


def recipe_words(datasets: Sequence[str], out: Path, stage: str, model: str | None) -> list[str]:
    """A recipe with the settings that make it one for these datasets of the registry in `out`.

    A bundled recipe that names the dataset itself needs no settings. Otherwise its output_dir is another:
    a training must not overwrite that of the bundled recipe.
    """
    held_out = [name for name in datasets if name.endswith(("_eval", "_test"))]
    dataset = next((name for name in datasets if name not in held_out), datasets[0])
    words = []
    if out != DEFAULT_FOLDER:
        words.append(f"dataset_dir={out}")
    if model is not None:
        words.append(f"model_name_or_path={model}")
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        if read_mapping(path, "recipe").get("dataset") == dataset:
            return [f"recipes/{path.name}", *words]
    file = Path("recipes") / f"{_recipe_of(dataset, out, stage)}.yaml"
    words.insert(0, f"dataset={dataset}")
    evaluation = [name for name in held_out if name.endswith("_eval")]
    if evaluation and dataset not in evaluation:
        words += [f"eval_dataset={evaluation[0]}", "val_size=0"]
    elif "eval_dataset" in read_mapping(bundled(file), "recipe"):
        words += ["eval_dataset=null", "val_size=0.1"]
    return [str(file), *words, f"output_dir=saves/{dataset.removesuffix('_train')}"]


def _recipe_of(dataset: str, out: Path, stage: str) -> str:
    """Name of the bundled recipe for rows of this stage: with tools, with media, or plain answers."""
    if stage in RECIPES:
        return RECIPES[stage]
    entry = read_registry(out).get(dataset)
    columns = entry.get("columns") if entry else None
    if isinstance(columns, dict):
        if any(f"{medium}s" in columns for medium in PLACEHOLDERS) or any(m in columns for m in PLACEHOLDERS):
            return "vl-lora"
        if "tools" in columns:
            return "tools-lora"
    return "sft-lora"
