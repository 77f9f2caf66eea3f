"""tuneyard recipe sweep R.yaml key=v1,v2 …: a grid of trainings, finished ones skipped, scored, plotted.

Only a setting with several values is an axis of the grid: it names folders, table columns and plot axes. A
setting with one value is the same in every run.
"""

import hashlib
import itertools
import math
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneyard.core.cli import cli_command, command_line
from tuneyard.core.documents import markdown_table
from tuneyard.core.drawing import check_replaceable, picture, plotting
from tuneyard.core.errors import ContentError, RequestError, resumed_by, show_value
from tuneyard.core.files import read_object, write_json, write_text
from tuneyard.core.language import lang_option, tr
from tuneyard.core.metrics import Metric, direction, metric_of, read_metric
from tuneyard.core.next_step import next_step
from tuneyard.core.training_run import TRAINING
from tuneyard.recipes.best import DivergedError, read_curve
from tuneyard.recipes.check import ask_check, quick_check
from tuneyard.recipes.hardware import machine
from tuneyard.recipes.llamafactory_client import LlamaFactory
from tuneyard.recipes.output_dir import set_aside
from tuneyard.recipes.recipe import Recipe, read_recipe
from tuneyard.recipes.rules import evaluated, measured
from tuneyard.recipes.schema import LISTS, known_keys
from tuneyard.recipes.train import ask_first, train

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHORT = {"rank": "lora_rank", "alpha": "lora_alpha", "lr": "learning_rate", "epochs": "num_train_epochs"}
SUMMARY = "sweep.json"  # all runs of a grid; it has the key "grid", which that of `tuneyard eval sweep` lacks
PLOT = "sweep.png"
SCORING_RUN = "run.json"  # in a folder that a scoring command has written
SCORED = "judged.json"  # the command that scored a run, written when all its results are there
OF_ROWS = ("stage", "model_name_or_path", "template", "dataset_dir", "dataset", "eval_dataset")
LIST = r"\[[^\[\]]*\]"  # one value of several words
NOT_JUDGED = {"output_dir", "seed", "learning_rate"}  # settings that no answer of LLaMA-Factory depends on
LONGEST_NAME = 120  # bytes of a run's folder; file systems take 255 bytes, and checkpoints lie below it
TrainingRun = tuple[dict[str, str], Recipe]  # a point of the grid, and its recipe
Row = dict[str, Any]  # the settings of a run, its figure (NaN where it diverged) and its folder


@dataclass(frozen=True, slots=True)
class Grid:
    """Settings of a sweep: `axes` have several values each, `fixed` settings are the same in every run."""

    axes: dict[str, list[str]]
    fixed: dict[str, str]


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


def parse_grid(arguments: Sequence[str]) -> Grid:
    """Split `key=v1,v2` arguments into axes and fixed settings.

    `RequestError` for an unknown key, a key without values, a duplicate key, `output_dir` (each run gets its
    folder), a list without brackets, and a grid in which no setting has several values.
    """
    axes: dict[str, list[str]] = {}
    fixed: dict[str, str] = {}
    for argument in arguments:
        written_key, equals, text = argument.partition("=")
        key = SHORT.get(written_key, written_key)
        values = _values(key, text)
        if not equals or not values or key not in known_keys():
            raise RequestError(f"{argument!r}: expected a setting and its values, as in lora_rank=4,8,16")
        if key == "output_dir":
            raise RequestError(f"{argument!r}: each run has its own folder; name their parent by --out DIR")
        if key in axes or key in fixed:
            raise RequestError(f"{argument!r}: {key} is given twice; write all its values into one argument")
        if len(values) > 1:
            axes[key] = values
        else:
            fixed[key] = values[0]
    if not axes:
        raise RequestError(
            "no setting has several values; expected an axis, as in lora_rank=4,8 "
            "(one training: `tuneyard recipe train`)"
        )
    return Grid(axes, fixed)


def check_folder(out: Path) -> None:
    """Raise `RequestError` if OUT holds the results of another command: `tuneyard eval sweep` writes a
    sweep.json too, a scored folder has a run.json, a trained one a training.json."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file; expected a folder: choose another --out")
    sweep_of_weights = (out / SUMMARY).is_file() and "grid" not in read_object(out / SUMMARY)
    if sweep_of_weights or (out / SCORING_RUN).is_file() or (out / TRAINING).is_file():
        raise RequestError(f"{out} holds the results of another command: choose another --out")
    check_replaceable(out / PLOT)


def _values(key: str, text: str) -> list[str]:
    """Split at the commas outside brackets. Each value comes once, a list without its brackets.

    LLaMA-Factory reads some settings as comma-separated lists. `RequestError` for a list without brackets,
    which could also be the values of a grid.
    """
    if "[" in re.sub(LIST, "", text) or "]" in re.sub(LIST, "", text):
        raise RequestError(f"{key}={text}: a bracket has no partner; a list is written as [q_proj,v_proj]")
    pieces = re.findall(rf"(?:{LIST}|[^,\[\]])+", text)
    if key in LISTS and "," in text and "[" not in text:
        one, several = f"{key}=[{text}]", ",".join(f"[{piece}]" for piece in pieces)
        raise RequestError(
            f"{key}={text}: is this one list or several values? Write {one} for one list, "
            f"{key}={several} for {len(pieces)} runs"
        )
    values = []
    for piece in pieces:
        value = piece
        if key in LISTS and piece.startswith("[") and piece.endswith("]"):
            value = piece[1:-1]
        values.append(value.strip())
    return [value for value in dict.fromkeys(values) if value]


def plan_runs(path: Path, grid: Grid, out: Path) -> list[TrainingRun]:
    """Combine each point of the grid with its recipe, whose output_dir is a new folder in `out`."""
    fixed = [f"{key}={value}" for key, value in grid.fixed.items()]
    runs = []
    for name, values in zip(run_names(grid.axes), itertools.product(*grid.axes.values()), strict=True):
        point = dict(zip(grid.axes, values, strict=True))
        varied = [f"{key}={value}" for key, value in point.items()]
        runs.append((point, read_recipe(path, [*fixed, *varied, f"output_dir={out / name}"])))
    return runs


def sweep(runs: Sequence[TrainingRun], grid: Grid, evaluation: str | None, metric: str) -> None:
    """Bring every checked run to a finished, scored one; write sweep.json, sweep.md and sweep.png."""
    out = runs[0][1].output_dir.parent
    rows: list[Row] = []
    json_rows: list[Row] = []
    for point, recipe in runs:
        folder = recipe.output_dir
        click.echo(f"{len(rows) + 1}/{len(runs)} {folder.name}", err=True)
        train(recipe, ask=False)
        value, meaning = score(folder, evaluation, metric)
        row: Row = {**point, metric: value, "run": str(folder)}
        rows.append(row)
        if math.isnan(value):  # which JSON does not have
            row = {**row, metric: None}
        json_rows.append(row)
        record = {"metric": metric, "grid": grid.axes, "fixed": grid.fixed, "rows": json_rows}
        write_json(out / SUMMARY, record)
    text = table(rows, grid, metric, meaning)
    write_text(out / "sweep.md", text)
    plot(rows, grid.axes, metric, meaning, out / PLOT)
    click.echo(f"{text}\n{direction(metric, meaning)}")


def run_names(axes: dict[str, list[str]]) -> list[str]:
    """Folder names of a grid's runs: `lora_rank-4_lora_alpha-8`. A path counts by its last part.

    A name that would be too long for a file system ends in a hash of the whole name.
    """
    by_axis: list[list[str]] = []
    for key, values in axes.items():
        names = [re.sub(r"[^\w.+-]+", "-", Path(value).name)[-40:] for value in values]
        parts = []
        for number, name in enumerate(names):
            earlier = names[:number].count(name)
            part = f"{key}-{name}"
            if earlier:
                part += f"-{earlier + 1}"
            parts.append(part)
        by_axis.append(parts)
    folder_names = []
    for point in itertools.product(*by_axis):
        name = "_".join(point)
        encoded = name.encode()
        if len(encoded) > LONGEST_NAME:
            digest = hashlib.sha256(encoded).hexdigest()[:8]
            beginning = encoded[: LONGEST_NAME - 9].decode(errors="ignore")  # without half a character
            name = f"{beginning}-{digest}"
        folder_names.append(name)
    return folder_names


def check_first(recipes: Sequence[Recipe], metric: str | None) -> None:
    """Refuse a grid if one of its runs cannot be trained or scored.

    LLaMA-Factory checks each run that differs in more than rates and seeds. It remembers rows and layout.
    The checks that it could not make are printed once for each dataset.
    """
    checked_settings: set[tuple[str, ...]] = set()
    judged: set[str] = set()
    for recipe in recipes:
        judged.update(recipe.settings)
    judged -= NOT_JUDGED
    with LlamaFactory(several=True) as llamafactory:
        for recipe in recipes:
            checked = quick_check(recipe, machine("this"))
            problems = checked.refuse()
            rows = tuple(str(recipe.settings.get(key)) for key in OF_ROWS)
            if metric and metric not in measured(recipe):
                evaluates = ""
                if not evaluated(recipe):
                    evaluates = "; hold rows out: val_size=0.1 eval_strategy=epoch"
                only = f"a run of it does not write {metric}, only {', '.join(measured(recipe))}"
                raise ContentError(f"{recipe.path}: {only}{evaluates}; or let a command score it: --eval")
            if rows not in checked_settings:
                problems = [*problems, *ask_first(llamafactory, checked)]
            elif any(recipe.settings.get(key) != recipes[0].settings.get(key) for key in judged):
                problems = [*problems, *ask_check(llamafactory, checked, None).refuse()]
            checked_settings.add(rows)
            never = [problem for problem in problems if problem.field == "eval_steps"]
            if metric in evaluated(recipe) and never:
                raise ContentError(f"{never[0].line()}, so that no run has its {metric}")


def score(folder: Path, evaluation: str | None, metric: str) -> tuple[float, Metric]:
    """A run's best value of the metric, or the mean over the command's results, and the metric's meaning."""
    if evaluation is None:
        meaning = metric_of(metric)
        try:
            return meaning.best(value for _, value in read_curve(folder, metric)), meaning
        except DivergedError:  # one point of the grid, not the end of the others
            return float("nan"), meaning
    if not (folder / SCORED).is_file() or read_object(folder / SCORED).get("command") != evaluation:
        _evaluate(folder, evaluation)
    results = folder / "results"
    numbers: list[float] = []
    meanings: list[Metric] = []
    without_number: list[Path] = []
    for path in sorted(results.rglob("results.json")):
        result = read_object(path)
        if result.get("model") == "base":
            continue
        value, meaning = read_metric(result, metric)
        meanings.append(meaning)
        if isinstance(value, int | float):
            numbers.append(float(value))
        else:
            without_number.append(path)
    if not numbers:
        raise ContentError(f"{results}: no results.json with the number {show_value(metric)}")
    for path in without_number:
        raise ContentError(f"{path}: no number {show_value(metric)}, which the other results have")
    return statistics.fmean(numbers), meanings[0]


def _evaluate(folder: Path, evaluation: str) -> None:
    """Run the command that scores a run. Results of another command or an interrupted one are set aside."""
    results = folder / "results"
    if results.exists():
        click.echo(f"{results}: cut off, or of another command; it is now {set_aside(results)}", err=True)
    words = [word.replace("{adapter}", str(folder)) for word in shlex.split(evaluation)]
    words = [word.replace("{results}", str(results)) for word in words]
    program = words
    if words[:1] == ["python"]:
        program = [sys.executable, *words[1:]]
    if subprocess.run(program, check=False, stdout=sys.stderr).returncode:
        raise ContentError(f"{folder}: the command that scores it failed: {shlex.join(words)}")
    write_json(folder / SCORED, {"command": evaluation})


def table(rows: list[Row], grid: Grid, metric: str, meaning: Metric) -> str:
    """Format the runs as Markdown, the best first; over seeds alone, with mean and standard deviation."""
    axes = list(grid.axes)
    ordered = sorted(rows, key=lambda row: meaning.rank(row[metric]))
    cells = []
    for row in ordered:
        settings_of_run = [str(row[key]) for key in axes]
        cells.append([*settings_of_run, f"{row[metric]:.4f}"])
    lines = [markdown_table([*axes, metric], cells)]
    if grid.fixed:
        settings = ", ".join(f"{key}={value}" for key, value in grid.fixed.items())
        lines.append("\n" + tr("the same in every run: {settings}", settings=settings))
    scores = [row[metric] for row in rows if not math.isnan(row[metric])]
    if axes == ["seed"] and len(scores) > 1:
        mean, deviation = statistics.fmean(scores), statistics.stdev(scores)
        text = "mean {mean:.4f}, standard deviation {deviation:.4f} over {count} seeds"
        lines.append("\n" + tr(text, mean=mean, deviation=deviation, count=len(scores)))
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], axes: dict[str, list[str]], metric: str, meaning: Metric, path: Path) -> None:
    """Draw a PNG: a line over one axis, a heat map over two, one row for each run over more."""
    height = 4.2
    if len(axes) > 2:
        height = max(height, 1.6 + 0.24 * len(rows))
    with plotting(), picture((6.4, height), path) as figure:
        panel = figure.subplots()
        best = min(rows, key=lambda row: meaning.rank(row[metric]))
        point = ", ".join(f"{key} {best[key]}" for key in axes)
        title = "Best {metric} {value:.4g} at {point}"
        panel.set_title(tr(title, metric=metric, value=best[metric], point=point), wrap=True)
        if len(axes) == 1:
            names = [_point(row, axes) for row in rows]
            panel.plot(names, [row[metric] for row in rows], marker="o", color="C0")
            panel.set(xlabel=", ".join(axes), ylabel=direction(metric, meaning))
        elif len(axes) == 2:
            _heat_map(panel, rows, axes, metric, meaning)
        else:
            ordered = sorted(rows, key=lambda row: meaning.rank(row[metric]), reverse=True)
            names = [_point(row, axes) for row in ordered]
            panel.plot([row[metric] for row in ordered], names, "o", color="C0")
            panel.tick_params(axis="y", labelsize=7)
            panel.set(xlabel=direction(metric, meaning), ylabel=", ".join(axes))


def _point(row: Row, axes: dict[str, list[str]]) -> str:
    return ", ".join(str(row[key]) for key in axes)


def _heat_map(
    panel: "Axes", rows: list[Row], axes: dict[str, list[str]], metric: str, meaning: Metric
) -> None:
    (down, downs), (across, acrosses) = axes.items()
    values = [[math.nan] * len(acrosses) for _ in downs]
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none"}
    for row in rows:
        y, x = downs.index(row[down]), acrosses.index(row[across])
        values[y][x] = row[metric]
        panel.text(x, y, f"{row[metric]:.4g}", ha="center", va="center", bbox=box)
    colours = "cividis_r"
    if meaning.higher:
        colours = "cividis"
    panel.imshow(values, cmap=colours, aspect="auto")
    panel.set_xticks(range(len(acrosses)), acrosses)
    panel.set_yticks(range(len(downs)), downs)
    panel.set(xlabel=across, ylabel=down)
