"""tuneyard recipe sweep R.yaml key=v1,v2 …: a grid of trainings, finished ones skipped, scored, plotted.

Only a setting with several values is an axis of the grid: it names folders, table columns and plot axes. A
setting with one value is the same in every run.
"""

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import click

from tuneyard.core.cli.main import cli_command, command_line, next_step, same_options
from tuneyard.core.cli.run import run_command
from tuneyard.core.drawing.plots import PLOTTING
from tuneyard.core.errors import (
    ContentError,
    RequestError,
    TuneyardError,
    import_early,
    nearest,
    resumed_by,
)
from tuneyard.core.execution.options import ray_option
from tuneyard.core.execution.ray_cluster import RayCluster
from tuneyard.core.files import make_folder
from tuneyard.core.files.temporaries import locked
from tuneyard.core.language.message import _, counted, joined
from tuneyard.core.text.secrets import public_text, public_words
from tuneyard.core.training.metrics import METRICS, UNKNOWN, metric_of
from tuneyard.recipes.llamafactory.client import code_option
from tuneyard.recipes.machine.hardware import machine
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.sweep.grid import Grid, TrainingRun, parse_grid, plan_runs
from tuneyard.recipes.sweep.results import (
    SweepResults,
    check_folder,
    score,
    write_report,
    write_summary,
)
from tuneyard.recipes.sweep.run import check_first, commands, evaluate, finish_points, scoring_words
from tuneyard.recipes.sweep.settings import Row
from tuneyard.recipes.sweep.slots import SweepPlace, place_here, place_on_ray
from tuneyard.recipes.training.train import TrainRequest, train


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
    gpus_each: int,
    ray: str | None,
    dry_run: bool,
    lists: bool,
    point: str | None,
    runs_model_code: bool = False,
    **scored: str | None,
) -> None:
    """Train RECIPE over a grid of settings (rank=4,8 alpha=8,16), and write a table and a plot.

    A setting with one value (max_steps=100) is the same in every run. Brackets enclose a list:
    lora_target=[q_proj,v_proj] is one value, lora_target=[q_proj],[q_proj,v_proj] are two.

    As many runs train at once as there are GPUs, or without a GPU as cores, memory and OMP_NUM_THREADS
    allow. With --ray the nodes of a Ray cluster train them, each run on one node; model, datasets and runs
    must be in folders that all nodes share.
    """
    evaluation = scored["evaluation"]
    if ray is not None and (lists or point is not None):
        raise RequestError(_("--ray trains every run on the cluster; give it without --list and --point"))
    if point is not None and (evaluation is None or lists or dry_run):
        raise RequestError(
            _(
                "--point {name}: it is for the commands that --list prints with --eval; of other runs "
                "--list prints `tuneyard recipe train`",
                name=point,
            )
        )
    settings = parse_grid(grid)
    metric = scored["metric"] or ("accuracy" if evaluation else "eval_loss")
    near = nearest(metric, METRICS)
    if evaluation and near and metric_of(metric) == UNKNOWN:
        raise RequestError(
            _("--metric {metric}: no figure of a scoring command; {hint}", metric=metric, hint=near)
        )
    folder = out or Path("saves") / f"sweep-{recipe.stem}"
    check_folder(folder)
    runs = plan_runs(recipe, settings, folder)
    if point is not None:
        runs = [_run_named(point, runs)]
    recipes = [recipe for _point, recipe in runs]
    if evaluation is not None:
        scoring_words(evaluation, folder)
    if point is not None and evaluation is not None:
        train(TrainRequest(recipes[0], runs_model_code=runs_model_code))
        evaluate(recipes[0].output_dir, evaluation, has_log=False)
        next_step(recipes[0].output_dir, command_line("recipe.sweep", ("--point", point)))
        return
    trained_metric = None if evaluation else metric
    if lists:
        target = machine(f"{gpus_each}xA100-80")  # a listed command runs elsewhere
        check_first(recipes, trained_metric, target, quick=not dry_run, runs_model_code=runs_model_code)
        words = ["tuneyard", "recipe", "sweep", str(recipe), *public_words(grid), "--out", str(folder)]
        if evaluation is not None:
            words += ["--eval", public_text(evaluation)]
        code = same_options("--trust-remote-code")
        for line in commands(recipes, words, evaluation, target, code):
            click.echo(line)
        next_step(None, command_line("recipe.sweep", ("--list", "--dry-run")))
        return
    place = _place(ray, recipes, gpus_each, folder)
    with place.executor:
        check_first(recipes, trained_metric, place.target, runs_model_code=runs_model_code)
        if dry_run:
            click.echo("\n".join(str(recipe.output_dir) for recipe in recipes))
            next_step(None, command_line("recipe.sweep", ("--dry-run",)))
            return
        import_early(PLOTTING)
        best = sweep(runs, settings, evaluation, metric, place)
        following = ["tuneyard", "recipe", "best", best]
        if evaluation is None and metric != "eval_loss":
            following += ["--metric", metric]
        if evaluation is not None and len(runs) > 1:
            following = ["tuneyard", "eval", "compare", str(folder), "--out", str(folder / "verdict")]
            if metric != "accuracy":
                following += ["--metric", metric]
        next_step(folder / "sweep.md", following)


def _place(ray: str | None, recipes: Sequence[Recipe], gpus_each: int, folder: Path) -> SweepPlace:
    """This machine, or a Ray cluster whose nodes all see the files of a sweep."""
    if ray is None:
        return place_here(recipes, gpus_each)
    with contextlib.ExitStack() as on_error:
        cluster = on_error.enter_context(RayCluster(ray))
        paths = {recipe.path for recipe in recipes}
        for recipe in recipes:
            paths.add(Path(recipe.text("model_name_or_path")) / "config.json")
            paths.add(Path(recipe.text("dataset_dir") or "data") / "dataset_info.json")
        cluster.check_paths([path for path in sorted(paths) if path.exists()], [folder])
        place = place_on_ray(cluster, recipes, gpus_each)
        on_error.pop_all()
    return place


def _run_named(name: str, runs: Sequence[TrainingRun]) -> TrainingRun:
    """The run with this folder. `RequestError` if the grid has none."""
    names = [recipe.output_dir.name for _point, recipe in runs]
    if name not in names:
        hint = nearest(name, names) or _("expected the name of a run's folder, as --dry-run prints them")
        raise RequestError(_("--point {name}: the grid has no such run; {hint}", name=name, hint=hint))
    return runs[names.index(name)]


def sweep(
    runs: Sequence[TrainingRun], grid: Grid, evaluation: str | None, metric: str, place: SweepPlace
) -> str:
    """Bring every checked run to a finished, scored one; write sweep.json, sweep.md and sweep.png.

    Returns the folder of the best run, the first of the table.
    `ContentError` at the end if runs have failed.
    """
    out = runs[0][1].output_dir.parent
    errors: dict[Path, str] = {}
    with closing(finish_points([recipe for _point, recipe in runs], evaluation, place)) as ended:
        for recipe, error in ended:
            errors[recipe.output_dir] = error
            make_folder(out)
            with locked(out):
                write_summary(_results(runs, grid, evaluation, metric, errors))
    results = _results(runs, grid, evaluation, metric, errors)
    with locked(out):
        write_report(results)
    if results.failures:
        failures = results.failures
        names = joined(Path(row["run"]).name for row in failures)
        raise ContentError(
            _(
                "{failures} of {runs} failed ({names}); the same command tries them again",
                failures=len(failures),
                runs=counted(len(runs), "run", "runs"),
                names=names,
            )
        )
    best = min(results.rows, key=lambda row: results.meaning.rank(row[metric]))
    return str(best["run"])


def _results(
    runs: Sequence[TrainingRun],
    grid: Grid,
    evaluation: str | None,
    metric: str,
    errors: Mapping[Path, str],
) -> SweepResults:
    """Results of the runs that have ended, in the order of the grid. `errors`: "" for a finished run."""
    rows: list[Row] = []
    failures: list[Row] = []
    meaning = metric_of(metric)
    for point, recipe in runs:
        folder = recipe.output_dir
        if folder not in errors:
            continue
        error = errors[folder]
        if not error:
            try:
                figure, meaning = score(folder, evaluation is not None, metric)
            except TuneyardError as no_figure:
                error = no_figure.message
            else:
                rows.append({**point, metric: figure, "run": str(folder)})
        if error:
            failures.append({**point, "run": str(folder), "error": error})
    out = runs[0][1].output_dir.parent
    return SweepResults(out, grid, metric, meaning, rows, failures, evaluation is not None)


if __name__ == "__main__":
    run_command(command)
