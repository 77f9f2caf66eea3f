"""python -m recipes train R.yaml [key=value …]: LLaMA-Factory's training, resumed where it was cut off."""

from pathlib import Path

import click

from core.errors import CLI, ContentError, RequestError, show_value
from recipes.recipe import Recipe, read_recipe
from recipes.sweep import sweep
from recipes.training import train


@click.command("train", context_settings=CLI)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--seeds", type=click.IntRange(2), help="Train so many seeds and table them (as `sweep seed=…`)."
)
@click.option("--force", is_flag=True, help="Train again what was trained on another number of processes.")
def command(recipe: Path, overrides: tuple[str, ...], seeds: int | None, force: bool) -> None:
    """Train RECIPE with LLaMA-Factory; KEY=VALUE overrides its settings.

    A run that was cut off goes on from its newest whole checkpoint; a finished one is left as it is.
    """
    one = read_recipe(recipe, overrides)
    if seeds is None:
        train(one, force)
    elif force:
        raise RequestError("--force is for one run: name its seed and its output_dir, and leave --seeds out")
    else:
        train_seeds(one, seeds)


def train_seeds(recipe: Recipe, count: int) -> None:
    """Train a recipe with `count` seeds from its own on, in folders below its output_dir, and table them."""
    first = recipe.settings.get("seed", 42)
    if isinstance(first, bool) or not isinstance(first, int):
        raise ContentError(
            f"{recipe.place('seed')}: seed: found {show_value(first)}, expected a whole number"
        )
    seeds = [str(first + n) for n in range(count)]
    metric = "eval_loss" if recipe.settings.get("eval_strategy", "no") not in ("no", False) else "train_loss"
    sweep(recipe.path, {"seed": seeds}, recipe.output_dir, None, metric, recipe.overrides)
