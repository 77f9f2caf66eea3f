"""The command that scores the weights of a training: the next one after `recipe train` and `recipe best`."""

from pathlib import Path

from tuneyard.core.datasets import (
    DEFAULT_FOLDER,
    read_registry,
    registry_folder,
    reporting_splits,
)
from tuneyard.core.datasets.scoring_command import scoring_options
from tuneyard.core.documents import is_number
from tuneyard.core.errors import TuneyardError
from tuneyard.core.files import read_object
from tuneyard.core.llamafactory.stages import PLAIN, rows_of
from tuneyard.core.records import has_media
from tuneyard.core.training.parent_adapters import (
    fuse_commands,
    merged_before_training,
    path_word,
    sum_command,
)
from tuneyard.core.training.training_run import (
    PISSA_CONVERTED,
    names_in,
    training_data,
    training_settings,
)
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.data import dataset_dir
from tuneyard.recipes.rules.setting_rules import evaluates

SCORED_STAGES = ("pt", "sft", "dpo", "kto")
"""Stages whose models a command of `eval` scores. A reward model and PPO have none."""


def after_training(recipe: Recipe) -> list[str]:
    """Words of the command that scores a finished training, or that prepares its weights for that.

    OFT and DoRA are fused first, since their ΔW needs the base. PiSSA has a conversion that can be scored.
    Without held-out rows the checkpoints are compared by the training's own evaluations, if it made any.
    """
    folder = recipe.output_dir
    if recipe.stage == "rm" and evaluates(recipe):
        return ["tuneyard", "recipe", "best", str(folder), "--metric", "eval_accuracy"]
    weights = folder
    if recipe.settings.get("pissa_init") is True:
        if recipe.settings.get("pissa_convert") is not True:
            words = ["tuneyard", "recipe", "train", str(recipe.path)]
            words += [override for override in recipe.overrides if not override.startswith("output_dir=")]
            return [*words, "pissa_convert=true", f"output_dir={folder}-converted"]
        weights = folder / PISSA_CONVERTED
    summing = _summing(recipe, weights)
    if summing:
        return summing
    scoring = _scoring(recipe, weights)
    if not scoring and evaluates(recipe):
        return ["tuneyard", "recipe", "best", str(folder)]
    return scoring or _inspecting(recipe, weights)


def after_best(output_dir: Path, weights: Path) -> list[str]:
    """Words of the command that scores the best checkpoint of a training, by the records in its folder."""
    recipe = trained_recipe(output_dir)
    return _summing(recipe, weights) or _scoring(recipe, weights) or _inspecting(recipe, weights)


def trained_recipe(output_dir: Path) -> Recipe:
    """The training in a folder. Plain LLaMA-Factory records only its datasets and its base."""
    from tuneyard.core.weights.adapter_files import CONFIG  # it imports numpy

    settings = dict(training_settings(output_dir))
    if not settings:
        settings["dataset"] = [data["dataset"] for data in training_data(output_dir)]
        settings["dataset_dir"] = str(registry_folder())
    configs = sorted(output_dir.glob(f"checkpoint-*/{CONFIG}"))
    if (output_dir / CONFIG).is_file():
        configs.insert(0, output_dir / CONFIG)
    settings.setdefault("finetuning_type", "lora" if configs else "full")
    if configs and "model_name_or_path" not in settings:
        settings["model_name_or_path"] = read_object(configs[0]).get("base_model_name_or_path")
    settings["output_dir"] = str(output_dir)
    return Recipe(output_dir, settings, {})


def _summing(recipe: Recipe, weights: Path) -> list[str]:
    """Words that add the adapters below the weights, which alone are not what was trained. [] without any."""
    parents = merged_before_training(recipe.settings, recipe.path)
    if not parents:
        return []
    adapters = [path_word(name) for name in [*parents, str(weights)]]
    base = str(recipe.settings.get("model_name_or_path"))
    *kept_by_parents, kept = [_modules_to_save(Path(adapter)) for adapter in adapters]
    kept_below = set().union(*kept_by_parents)
    if recipe.method == "oft" or recipe.settings.get("use_dora") is True or kept & kept_below:
        return fuse_commands(adapters, _name_of(weights), base)[0]
    return sum_command(adapters, _name_of(weights), base if kept or kept_below else None)


def _modules_to_save(adapter: Path) -> set[str]:
    """Modules that an adapter saves in full, by its config. Nothing for an adapter that is not here."""
    config = adapter / "adapter_config.json"
    if not config.is_file():
        return set()
    return set(names_in(read_object(config).get("modules_to_save")))


def _scoring(recipe: Recipe, weights: Path) -> list[str]:
    """Words that score weights on the training's held-out rows, or fuse them first. [] without rows."""
    base = recipe.settings.get("model_name_or_path")
    if recipe.method == "oft" or recipe.settings.get("use_dora") is True:
        out = f"models/{_name_of(weights)}"
        return ["tuneyard", "adapter", "fuse", str(weights), "--base", str(base), "--out", out]
    options = held_out_options(recipe)
    if not options:
        return []
    model = ["--model", str(weights)]
    if recipe.method == "lora":
        model = ["--model", str(base), *_quantize(recipe), "--adapter", _named(weights)]
    return ["tuneyard", "eval", options[0], *model, *options[1:], "--out", f"results/{_name_of(weights)}"]


def _inspecting(recipe: Recipe, weights: Path) -> list[str]:
    """Words that show or try weights for which there are no held-out rows."""
    base = recipe.settings.get("model_name_or_path")
    if recipe.stage == "rm":
        return ["tuneyard", "adapter", "show", str(weights)]
    if recipe.method == "lora" and base:
        model = ["--model", str(base), *_quantize(recipe), "--adapter", _named(weights)]
        return ["tuneyard", "eval", "chat", *model]
    return ["tuneyard", "eval", "chat", "--model", str(weights)]


def _quantize(recipe: Recipe) -> list[str]:
    """The option that loads the base as its training did: a GPU for 4 bits may be too small for 16."""
    bits = recipe.settings.get("quantization_bit")
    return ["--quantize", str(bits)] if bits in (4, 8) else []


def _name_of(weights: Path) -> str:
    """Name of weights in tables: saves/rte/checkpoint-50 → rte-checkpoint-50."""
    training = weights.absolute().parent.name
    if weights.name == PISSA_CONVERTED:
        return training
    if weights.name.startswith("checkpoint-"):
        return f"{training}-{weights.name}"
    return weights.name


def _named(weights: Path) -> str:
    """Value of --adapter. A checkpoint gets the name of its training: checkpoint-50 alone names none."""
    if weights.name.startswith("checkpoint-"):
        return f"{_name_of(weights)}={weights}"
    return str(weights)


def held_out_options(recipe: Recipe) -> list[str]:
    """The scoring command that fits a training's held-out rows, and the options that name them.

    They are the rows of `test`, otherwise those of `eval_dataset` and of the eval splits of the training
    datasets, as far as one command scores them. Without any they are the share that `val_size` holds out. []
    without both.
    """
    if recipe.stage not in SCORED_STAGES:
        return []
    folder = Path(dataset_dir(recipe))
    try:
        registered = read_registry(folder)
        names = reporting_splits(recipe.names("dataset"), recipe.names("eval_dataset"), registered)
        options = scoring_options(names, folder, is_running_text=recipe.stage == "pt")
        return options or _of_held_out_share(recipe, folder)
    except TuneyardError:  # a hint is no place for an error of a file that the next command reads itself
        return []


def _of_held_out_share(recipe: Recipe, folder: Path) -> list[str]:
    """`eval text` on the rows that `val_size` holds out of one dataset. Pairs have no command for that."""
    share, names = recipe.settings.get("val_size"), recipe.names("dataset")
    registered = read_registry(folder)
    if not is_number(share) or not 0 < float(str(share)) < 1 or len(names) != 1 or names[0] not in registered:
        return []
    if "max_samples" in recipe.settings:  # LLaMA-Factory holds out a share of those, eval one of all rows
        return []
    entry = registered[names[0]]
    if rows_of(entry) != PLAIN:
        return []
    options = ["text", "--dataset", names[0], "--eval-ratio", f"{share}"]
    options += ["--seed", str(recipe.settings.get("seed", 42))]
    if has_media(entry):
        options.append("--no-generate")
    if folder != DEFAULT_FOLDER:
        options += ["--dataset-dir", str(folder)]
    return options
