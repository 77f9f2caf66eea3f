"""python -m recipes sweep R.yaml key=v1,v2 …: a grid of trainings, finished ones skipped, scored, plotted."""

import itertools
import math
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from core.cli import cli_command
from core.documents import markdown_table
from core.drawing import choose_typeface, picture
from core.errors import ContentError, RequestError, show_value
from core.files import read_object, write_json, write_text
from core.metrics import Metric, direction, metric_of, read_metric
from recipes.best import DivergedError, read_curve
from recipes.check import quick_check
from recipes.hardware import machine
from recipes.output import set_aside
from recipes.recipe import Recipe, read_recipe
from recipes.rules import evaluated, measured
from recipes.schema import known_keys
from recipes.train import ask_first, train

SHORT = {"rank": "lora_rank", "alpha": "lora_alpha", "lr": "learning_rate", "epochs": "num_train_epochs"}
SCORED = "judged.json"  # the command that scored a run, written when all its results are there
OF_ROWS = ("stage", "model_name_or_path", "template", "dataset_dir", "dataset", "eval_dataset")
Run = tuple[dict[str, str], Recipe]  # a point of the grid, and its recipe
Row = dict[str, Any]  # the settings of a run, its figure (NaN where it diverged) and its folder


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
def command(
    recipe: Path, grid: tuple[str, ...], out: Path | None, dry_run: bool, **scored: str | None
) -> None:
    """Train RECIPE over a grid of settings (rank=4,8 alpha=8,16), and table and plot what came out."""
    values, evaluation = parse_grid(grid), scored["evaluation"]
    metric = scored["metric"] or ("accuracy" if evaluation else "eval_loss")
    runs = plan_runs(recipe, values, out or Path("saves") / f"sweep-{recipe.stem}")
    check_first([recipe for _, recipe in runs], None if evaluation else metric)
    if dry_run:
        click.echo("\n".join(str(recipe.output_dir) for _, recipe in runs))
    else:
        sweep(runs, values, evaluation, metric)


def parse_grid(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return each key's values; `RequestError` for an unknown key or a key without values."""
    grid: dict[str, list[str]] = {}
    for argument in arguments:
        key, equals, values = argument.partition("=")
        key = SHORT.get(key, key)
        found = [value for value in values.split(",") if value]
        if not equals or not found or key not in known_keys():
            raise RequestError(f"{argument!r}: expected a setting and its values, as in lora_rank=4,8,16")
        grid[key] = list(dict.fromkeys(found))
    return grid


def plan_runs(path: Path, grid: dict[str, list[str]], out: Path) -> list[Run]:
    """Return each point of the grid with its recipe, whose output_dir is a folder of its own in `out`."""
    runs = []
    for name, values in zip(run_names(grid), itertools.product(*grid.values()), strict=True):
        point = dict(zip(grid, values, strict=True))
        settings = [*(f"{key}={value}" for key, value in point.items()), f"output_dir={out / name}"]
        runs.append((point, read_recipe(path, settings)))
    return runs


def sweep(runs: Sequence[Run], grid: dict[str, list[str]], evaluation: str | None, metric: str) -> None:
    """Bring every checked run to a finished, scored one; write sweep.json, sweep.md and sweep.png."""
    out = runs[0][1].output_dir.parent
    rows: list[Row] = []
    for point, recipe in runs:
        folder = recipe.output_dir
        click.echo(f"{len(rows) + 1}/{len(runs)} {folder.name}", err=True)
        train(recipe, ask=False)
        value, meaning = score(folder, evaluation, metric)
        rows.append({**point, metric: value, "run": str(folder)})
        known = [{**row, metric: None if math.isnan(row[metric]) else row[metric]} for row in rows]
        write_json(out / "sweep.json", {"metric": metric, "grid": grid, "rows": known})
    said = table(rows, grid, metric, meaning)
    write_text(out / "sweep.md", said)
    plot(rows, grid, metric, meaning, out / "sweep.png")
    click.echo(f"{said}\n{direction(metric, meaning)}")


def run_names(grid: dict[str, list[str]]) -> list[str]:
    """Return the folder names of a grid's runs: `lora_rank-4_lora_alpha-8`, of a path its last part."""
    short: list[list[str]] = []
    for key, values in grid.items():
        names = [re.sub(r"[^\w.+-]+", "-", Path(value).name)[-40:] for value in values]
        seen = [names[:number].count(name) for number, name in enumerate(names)]
        short.append([f"{key}-{name}{f'-{n + 1}' * (n > 0)}" for name, n in zip(names, seen, strict=True)])
    return ["_".join(parts) for parts in itertools.product(*short)]


def check_first(recipes: Sequence[Recipe], metric: str | None) -> None:
    """Refuse a grid of which a run cannot be trained or scored; each dataset is asked about once."""
    asked: set[tuple[str, ...]] = set()
    for recipe in recipes:
        known = quick_check(recipe, machine("this"))
        problems = known.refuse()
        rows = tuple(str(recipe.settings.get(key)) for key in OF_ROWS)
        if metric and metric not in measured(recipe):
            evaluates = "" if evaluated(recipe) else "; hold rows out: val_size=0.1 eval_strategy=epoch"
            only = f"a run of it does not write {metric}, only {', '.join(measured(recipe))}"
            raise ContentError(f"{recipe.path}: {only}{evaluates}; or let a command score it: --eval")
        if rows not in asked:
            problems = [*problems, *ask_first(known)]
        asked.add(rows)
        if metric in evaluated(recipe) and (never := [p for p in problems if p.field == "eval_steps"]):
            raise ContentError(f"{never[0].line()}, so that no run has its {metric}")


def score(folder: Path, evaluation: str | None, metric: str) -> tuple[float, Metric]:
    """Return a run's best figure of that name, or the mean of what the command wrote, and what it means."""
    if evaluation is None:
        meaning = metric_of(metric)
        try:
            return meaning.best(value for _, value in read_curve(folder, metric)), meaning
        except DivergedError:  # one point of the grid, not the end of the others
            return float("nan"), meaning
    if not (folder / SCORED).is_file() or read_object(folder / SCORED).get("command") != evaluation:
        _evaluate(folder, evaluation)
    results = folder / "results"
    found = {path: read_object(path) for path in sorted(results.rglob("results.json"))}
    figures = {path: read_metric(one, metric) for path, one in found.items() if one.get("model") != "base"}
    numbers = [float(value) for value, _ in figures.values() if isinstance(value, int | float)]
    if not numbers:
        raise ContentError(f"{results}: no results.json with the number {show_value(metric)}")
    for path, (value, _) in figures.items():
        if not isinstance(value, int | float):
            raise ContentError(f"{path}: no number {show_value(metric)}, which the other results have")
    return statistics.fmean(numbers), next(meaning for _, meaning in figures.values())


def _evaluate(folder: Path, evaluation: str) -> None:
    """Run the command that scores a run to its end; what another or one cut off has left is set aside."""
    results = folder / "results"
    if results.exists():
        click.echo(f"{results}: cut off, or of another command; it is now {set_aside(results)}", err=True)
    words = [word.replace("{adapter}", str(folder)) for word in shlex.split(evaluation)]
    words = [word.replace("{results}", str(results)) for word in words]
    program = [sys.executable, *words[1:]] if words[:1] == ["python"] else words
    if subprocess.run(program, check=False, stdout=sys.stderr).returncode:
        raise ContentError(f"{folder}: the command that scores it failed: {shlex.join(words)}")
    write_json(folder / SCORED, {"command": evaluation})


def table(rows: list[Row], grid: dict[str, list[str]], metric: str, meaning: Metric) -> str:
    """Return the runs as a Markdown table, the best first; over seeds alone, with mean and deviation."""
    ordered = sorted(rows, key=lambda row: meaning.rank(row[metric]))
    cells = [[*(str(row[key]) for key in grid), f"{row[metric]:.4f}"] for row in ordered]
    lines = [markdown_table([*grid, metric], cells)]
    scores = [row[metric] for row in rows if not math.isnan(row[metric])]
    if list(grid) == ["seed"] and len(scores) > 1:
        mean, deviation = statistics.fmean(scores), statistics.stdev(scores)
        lines.append(f"\nmean {mean:.4f}, standard deviation {deviation:.4f} over {len(scores)} seeds")
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], grid: dict[str, list[str]], metric: str, meaning: Metric, path: Path) -> None:
    """Draw a heat map over two keys, else one point for each run, as PNG."""
    typeface = choose_typeface([*grid, *itertools.chain(*grid.values())])
    with picture((6.4, 4.2), path, typeface) as figure:
        axes = figure.subplots()
        best = min(rows, key=lambda row: meaning.rank(row[metric]))
        named = ", ".join(f"{key} {best[key]}" for key in grid)
        axes.set_title(f"Best {metric} {best[metric]:.4g} at {named}")
        if len(grid) == 2:
            (down, downs), (across, acrosses) = grid.items()
            scores = {(row[down], row[across]): row[metric] for row in rows}
            values = [[scores[one, other] for other in acrosses] for one in downs]
            axes.imshow(values, cmap="cividis" if meaning.higher else "cividis_r", aspect="auto")
            for (i, one), (j, other) in itertools.product(enumerate(downs), enumerate(acrosses)):
                box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none"}
                axes.text(j, i, f"{scores[one, other]:.4g}", ha="center", va="center", bbox=box)
            axes.set_xticks(range(len(acrosses)), acrosses)
            axes.set_yticks(range(len(downs)), downs)
            axes.set(xlabel=across, ylabel=down)
        else:
            names = [", ".join(str(row[key]) for key in grid) for row in rows]
            axes.plot(names, [row[metric] for row in rows], marker="o", color="C0")
            axes.set(xlabel=", ".join(grid), ylabel=direction(metric, meaning))
