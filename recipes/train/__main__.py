"""tuneyard recipe train R.yaml [key=value …]: checked, resumed where it was cut off, recorded last."""

from pathlib import Path

import click

from tuneyard.core.cli.main import cli_command, next_step, up_to_date
from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import resumed_by
from tuneyard.core.execution.state import CURRENT
from tuneyard.core.language.message import _
from tuneyard.recipes.llamafactory.questions import code_option
from tuneyard.recipes.output_dir.after_training import after_training
from tuneyard.recipes.recipe import read_recipe
from tuneyard.recipes.training.train import TrainRequest, train


@cli_command(
    "train",
    "tuneyard recipe train recipes/demo-rte.yaml max_steps=2 output_dir=saves/two",
    "tuneyard recipe train recipes/demo-rte.yaml max_steps=2 lora_rank=4 output_dir=saves/rank-4",
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--force", is_flag=True, help="Train again what was trained on another number of processes.")
@code_option
@resumed_by(lambda: _("the same command resumes it from its newest complete checkpoint, if there is one"))
def command(recipe: Path, overrides: tuple[str, ...], force: bool, runs_model_code: bool) -> None:
    """Train RECIPE with LLaMA-Factory; KEY=VALUE overrides its settings.

    A run that was cut off resumes from its newest complete checkpoint; a finished one is not trained again.
    """
    request = TrainRequest(read_recipe(recipe, overrides), force, runs_model_code)
    state = train(request)
    output_dir, command = request.recipe.output_dir, after_training(request.recipe)
    if state == CURRENT:
        up_to_date(output_dir, command)
    else:
        next_step(output_dir, command)


if __name__ == "__main__":
    run_command(command)
