"""tuneyard recipe sweep R.yaml key=v1,v2 …: a grid of trainings, finished ones skipped, scored, plotted.

Only a setting with several values is an axis of the grid: it names folders, table columns and plot axes. A
setting with one value is the same in every run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tuneyard.core.cli.main import cli_command, command_line, next_step, same_options
from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import RequestError, resumed_by
from tuneyard.core.execution.options import ray_option
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import say
from tuneyard.core.text.secrets import public_text, public_words
from tuneyard.core.training.metrics import direction
from tuneyard.recipes.llamafactory.questions import code_option
from tuneyard.recipes.machine.hardware import machine
from tuneyard.recipes.sweep.grid import parse_grid
from tuneyard.recipes.sweep.run import commands
from tuneyard.recipes.sweep.sweep import (
    GridRequest,
    check_request,
    check_runs,
    finish_point,
    place_of,
    sweep,
)


@cli_command(
    "sweep",
    "tuneyard recipe sweep recipes/demo-rte.yaml rank=4,8,16 val_size=0.1 eval_strategy=epoch --dry-run",
    "tuneyard recipe sweep recipes/demo-rte.yaml seed=42,43,44 --dry-run --eval 'tuneyard eval nli --model "
    "models/demo-base --adapter run={adapter} --dataset demo_rte_eval --out {results}'",
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("grid", nargs=-1, required=True, metavar="KEY=V1,V2...")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the runs (default: saves/sweep-NAME)."
)
@click.option(
    "--eval", "evaluation", help="Command that scores a run; {adapter} and {results} stand for its folders."
)
@click.option("--metric", help="What to read: eval_loss without --eval, accuracy with it.")
@click.option(
    "--gpus-each", type=click.IntRange(1), default=1, show_default=True, help="GPUs of each run at a time."
)
@ray_option
@code_option
@click.option("--dry-run", is_flag=True, help="Check every run and name its folder; train nothing.")
@click.option(
    "--list", "lists", is_flag=True, help="Print one command for each unfinished run; train nothing."
)
@click.option(
    "--point", metavar="NAME", help="This run alone: in the commands that --list prints with --eval."
)
@resumed_by(lambda: _("the same command resumes it: finished runs are skipped"))
def command(
    recipe: Path,
    grid: tuple[str, ...],
    out: Path | None,
    dry_run: bool,
    lists: bool,
    point: str | None,
    **options: Any,
) -> None:
    """Train RECIPE over a grid of settings (rank=4,8 alpha=8,16), and write a table and a plot.

    A setting with one value (max_steps=100) is the same in every run. Brackets enclose a list:
    lora_target=[q_proj,v_proj] is one value, lora_target=[q_proj],[q_proj,v_proj] are two.

    As many runs train at once as there are GPUs, or without a GPU as cores, memory and OMP_NUM_THREADS
    allow. With --ray the nodes of a Ray cluster train them, each run on one node; model, datasets and runs
    must be in folders that all nodes share.
    """
    if options["ray"] is not None and (lists or point is not None):
        raise RequestError(_("--ray trains every run on the cluster; give it without --list and --point"))
    if point is not None and (options["evaluation"] is None or lists or dry_run):
        raise RequestError(
            _(
                "--point {name}: it is for the commands that --list prints with --eval; of other runs "
                "--list prints `tuneyard recipe train`",
                name=point,
            )
        )
    folder = out or Path("saves") / f"sweep-{recipe.stem}"
    request = GridRequest(recipe=recipe, grid=parse_grid(grid), out=folder, **options)
    check_request(request)
    if point is not None:
        place = finish_point(request, point)
        next_step(place, command_line("recipe.sweep", ("--point", point)))
    elif lists:
        _list(request, grid, is_checked_whole=dry_run)
    elif dry_run:
        with place_of(request) as place_of_runs:
            check_runs(request, place_of_runs.target)
        say("\n".join(str(recipe.output_dir) for recipe in request.recipes))
        next_step(None, command_line("recipe.sweep", ("--dry-run",)))
    else:
        _train(request)


def _list(request: GridRequest, grid: Sequence[str], *, is_checked_whole: bool) -> None:
    """Print a command for each unfinished run, which may run elsewhere."""
    target = machine(f"{request.gpus_each}xA100-80")
    check_runs(request, target, quick=not is_checked_whole)
    words = ["tuneyard", "recipe", "sweep", str(request.recipe), *public_words(grid)]
    words += ["--out", str(request.out)]
    if request.evaluation is not None:
        words += ["--eval", public_text(request.evaluation)]
    options = same_options("--trust-remote-code")
    for line in commands(request.recipes, words, request.evaluation, target, options):
        say(line)
    next_step(None, command_line("recipe.sweep", ("--list", "--dry-run")))


def _train(request: GridRequest) -> None:
    """Train and score the runs, and print their table. `ContentError` if runs have failed."""
    with place_of(request) as place:
        check_runs(request, place.target)
        results = sweep(request, place)
    report = results.report
    if results.rows:
        report = f"{report}\n{direction(results.metric, results.meaning)}"
    say(report)
    results.refuse_failures()
    metric = request.figure
    following = ["tuneyard", "recipe", "best", results.best_run]
    if request.evaluation is None and metric != "eval_loss":
        following += ["--metric", metric]
    if request.evaluation is not None and len(request.runs) > 1:
        following = ["tuneyard", "eval", "compare", str(request.out), "--out", str(request.out / "verdict")]
        if metric != "accuracy":
            following += ["--metric", metric]
    next_step(request.out / "sweep.md", following)


if __name__ == "__main__":
    run_command(command)
