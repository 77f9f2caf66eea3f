"""tuneyard recipe sweep R.yaml key=v1,v2 …: a grid of trainings, finished ones skipped, scored, plotted.

Only a setting with several values is an axis of the grid: it names folders, table columns and plot axes. A
setting with one value is the same in every run.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from tuneyard.core.cli import cli_command, command_line
from tuneyard.core.errors import resumed_by
from tuneyard.core.language import lang_option
from tuneyard.core.next_step import next_step
from tuneyard.recipes.sweep.grid import Grid, TrainingRun, parse_grid, plan_runs
from tuneyard.recipes.sweep.results import Row, check_folder, score, write_report, write_summary
from tuneyard.recipes.sweep.run import check_first, finish


@cli_command(
    "sweep",
    "tuneyard recipe sweep recipes/demo-rte.yaml rank=4,8,16 val_size=0.1 eval_strategy=epoch --dry-run",
    "tuneyard recipe sweep recipes/demo-rte.yaml seed=42,43,44 --dry-run --eval 'tuneyard eval nli --model "
    "models/demo-base --adapter {adapter} --dataset demo_rte_eval --out {results}'",
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
@click.option("--dry-run", is_flag=True, help="Check every run and name its folder; train nothing.")
@lang_option
@resumed_by(lambda: "the same command resumes it: finished runs are skipped")
def command(
    recipe: Path, grid: tuple[str, ...], out: Path | None, dry_run: bool, **scored: str | None
) -> None:
    """Train RECIPE over a grid of settings (rank=4,8 alpha=8,16), and write a table and a plot.

    A setting with one value (max_steps=100) is the same in every run. A list stands in brackets:
    lora_target=[q_proj,v_proj] is one value, lora_target=[q_proj],[q_proj,v_proj] are two.
    """
    evaluation = scored["evaluation"]
    settings = parse_grid(grid)
    metric = scored["metric"] or ("accuracy" if evaluation else "eval_loss")
    folder = out or Path("saves") / f"sweep-{recipe.stem}"
    check_folder(folder)
    runs = plan_runs(recipe, settings, folder)
    check_first([recipe for _, recipe in runs], None if evaluation else metric)
    if dry_run:
        click.echo("\n".join(str(recipe.output_dir) for _, recipe in runs))
        next_step("", command_line("recipe.sweep", ("--dry-run",)))
    else:
        sweep(runs, settings, evaluation, metric)
        next_step(folder / "sweep.md", ["tuneyard", "recipe", "best", runs[0][1].output_dir])


def sweep(runs: Sequence[TrainingRun], grid: Grid, evaluation: str | None, metric: str) -> None:
    """Bring every checked run to a finished, scored one; write sweep.json, sweep.md and sweep.png."""
    out = runs[0][1].output_dir.parent
    rows: list[Row] = []
    for point, recipe in runs:
        folder = recipe.output_dir
        click.echo(f"{len(rows) + 1}/{len(runs)} {folder.name}", err=True)
        finish(recipe, evaluation)
        value, meaning = score(folder, evaluation is not None, metric)
        rows.append({**point, metric: value, "run": str(folder)})
        write_summary(rows, grid, metric, out)
    write_report(rows, grid, metric, meaning, out)
