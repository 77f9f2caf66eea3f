"""tuneyard recipe new --dataset NAME --model MODEL --out FILE: write a commented recipe for a dataset.

The stage follows the rows, the template the model's chat template, cutoff_len the counted lengths, the batch
the memory plan. Each value has its reason above it. The recipe is checked before it is written.
"""

from pathlib import Path

import click

from tuneyard.core.cli.main import cli_command, next_step, up_to_date
from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import RequestError
from tuneyard.core.execution.state import CURRENT
from tuneyard.core.files import check_writable, write_text
from tuneyard.core.language.message import _, joined
from tuneyard.core.language.messages import say
from tuneyard.recipes.llamafactory.questions import code_option
from tuneyard.recipes.machine.hardware import Machine, machine, target_option
from tuneyard.recipes.new.dataset import STAGES, training_data
from tuneyard.recipes.new.memory import write_zero_file
from tuneyard.recipes.new.new_recipe import may_be_recipe, model_error, new_recipe, recipe_state
from tuneyard.recipes.new.settings import METHODS, RecipeRequest
from tuneyard.recipes.recipe.model_source import may_be_here


@cli_command(
    "new",
    "tuneyard recipe new --dataset demo_rte_train --model models/demo-base --out build/rte.yaml",
    "tuneyard recipe new --dataset demo_rte_train --model models/demo-base --method full --for 4xA100-80 "
    "--out build/rte-full.yaml",
)
@click.option("--dataset", required=True, metavar="NAME", help="A registered dataset.")
@click.option("--model", required=True, help="A model folder, or a hub id whose files are in the cache.")
@click.option(
    "--dataset-dir",
    type=click.Path(path_type=Path),
    help="Folder of dataset_info.json.  [default: dataset_info, otherwise data]",
)
@click.option("--stage", type=click.Choice(STAGES), help="What to learn.  [default: by the rows; pairs: dpo]")
@target_option("Target machine, an A100-80 for `gpu`.")
@click.option("--method", type=click.Choice(list(METHODS)), default="lora", show_default=True)
@code_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The recipe (FILE.yaml).")
def command(
    dataset: str,
    model: str,
    dataset_dir: Path | None,
    stage: str | None,
    trains_on: str,
    method: str,
    runs_model_code: bool,
    out: Path,
) -> None:
    """Write a commented recipe for a dataset, a model and a machine, and check it."""
    from tuneyard.core.weights.adapter_files import refuse_adapter

    _refuse_out(out)
    target = _target(trains_on)
    refuse_adapter(Path(model))
    data = training_data(dataset, dataset_dir, stage)
    if not may_be_here(model):
        raise model_error(model, _("its files are not on this machine"))
    request = RecipeRequest(data, model, method, target, out, runs_model_code)
    recipe = new_recipe(request)
    state = recipe_state(out, recipe)
    if state.kind == "stale":
        raise _existing(out)
    write_zero_file(recipe.deepspeed, out)
    if state == CURRENT:
        up_to_date(out, ["tuneyard", "recipe", "train", out])
        return
    write_text(out, recipe.text)
    for problem in recipe.problems:
        say(problem.line())
    say(joined(recipe.summary, "\n"))
    next_step(out, ["tuneyard", "recipe", "train", out])


def _refuse_out(out: Path) -> None:
    """Raise `RequestError` for a file of others, one that cannot be written, or with a name of no recipe."""
    if out.suffix not in {".yaml", ".yml"}:
        raise RequestError(
            _(
                "--out {path}: LLaMA-Factory takes recipes that end in .yaml or .yml: --out {stem}.yaml",
                path=out,
                stem=out.parent / out.stem,
            )
        )
    if not out.exists() and not out.is_symlink():
        check_writable(out)
    elif not may_be_recipe(out):
        raise _existing(out)


def _existing(out: Path) -> RequestError:
    return RequestError(_("--out {path}: exists already; name another file, or delete it", path=out))


def _target(name: str) -> Machine:
    """The machine of `--for`. `RequestError` for an unknown one, and for one with a price."""
    model, at_sign, _price = name.partition("@")
    if at_sign:
        raise RequestError(
            _(
                "--for {machine}: a price is for recipe plan; name the machine alone: --for {name}",
                machine=name,
                name=model,
            )
        )
    return machine(name)


if __name__ == "__main__":
    run_command(command)
