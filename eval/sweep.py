"""tuneyard eval sweep --model models/demo-base --adapter rte --adapter mnli --data rte.json --out results/s

Searches merge weights, scores a given grid of them, or scores every checkpoint of a run. Loads the base once
and writes no weights. Chooses on one half of the rows and reports on the other. docs/eval-sweep.md explains
the files.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from tuneyard.adapters.weighted import parse_weight
from tuneyard.core.cli.main import cli_command, command_line
from tuneyard.core.cli.next_step import next_step
from tuneyard.core.errors import RequestError, resumed_by, run_command
from tuneyard.core.errors.warn import warn
from tuneyard.core.execution import Executor
from tuneyard.core.files import write_json, write_text
from tuneyard.core.language.translation import lang_option, tr, tr_counted
from tuneyard.core.training.metrics import ACCURACY
from tuneyard.eval.datasets.dataset import EvalDataset, read_datasets
from tuneyard.eval.judge.ask import ComparedRuns, compare_runs
from tuneyard.eval.judge.question import Question
from tuneyard.eval.judge.questions.choice import choose_on_half
from tuneyard.eval.metrics import find_metric
from tuneyard.eval.nli import Nli, label_options, label_sets
from tuneyard.eval.read.find import ANSWERS_ONLY, Reading, read_scored_run
from tuneyard.eval.read.results import RESULTS, RUN, TABLE, check_new, read_identity
from tuneyard.eval.read.scored_run import RunsByDataset, ScoredRun
from tuneyard.eval.read.sweeps import SWEEP
from tuneyard.eval.scoring.candidates import load_candidates
from tuneyard.eval.scoring.options import (
    ScoringRequest,
    model_options,
    resume_command,
    run_options,
    set_options,
    take,
)
from tuneyard.eval.scoring.pipeline import score_opened
from tuneyard.eval.scoring.remote import workers_of
from tuneyard.eval.scoring.weights import MOST_POINTS, Axes, checkpoint_axes, weight_axes
from tuneyard.eval.show.sweep import SweepPlot, draw, plot_name
from tuneyard.eval.show.tables import judged, text_of
from tuneyard.eval.statistics.selection import Split, split_halves

COMMAND = "eval.sweep"
RECIPE = "merge.yaml"
NO_ADAPTER = "No weights have a better figure than {base} on the choosing half: there is no adapter to ship."


@cli_command(
    "sweep",
    "tuneyard eval sweep --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
    "--limit 16 --out results/weights",
    "tuneyard eval sweep --model models/demo-base --checkpoints saves/demo-rte --dataset "
    "demo_rte_eval --dry-run --out results/checkpoints",
)
@model_options
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Score all checkpoints of the run in DIR, instead of weights.",
)
@click.option(
    "--grid",
    metavar="W,W,…",
    help="Score these weights of each adapter, every one with every other's, instead of searching.",
)
@set_options
@label_options
@click.option(
    "--seed", type=int, default=42, show_default=True, help="Seed that divides the examples into halves."
)
@click.option("--metric", default=ACCURACY.name, show_default=True, metavar="NAME", help="What to choose by.")
@click.option("--dry-run", is_flag=True, help="Say how many examples would be prompted, and write nothing.")
@run_options
@lang_option
@resumed_by(lambda: resume_command(COMMAND))
def cli(
    checkpoints: Path | None, grid: str | None, seed: int, metric: str, dry_run: bool, **options: Any
) -> None:
    """Find the best merge weights of one or two adapters, or the best checkpoint of a run.

    It scores the weights 0, 0.5 and 1, then those 0.25 around the best: at most 25 points. The choice is made
    on one half of the rows; its score on the other half is the one to believe.
    """
    request = replace(take(options), command=COMMAND)
    if request.backend != "hf":
        raise RequestError(
            f"--backend {request.backend}: a sweep weights adapters, which only hf does: leave it out"
        )
    if metric != ACCURACY.name:
        find_metric(metric)
    check_new(request.out, COMMAND, resume=request.resume, force=request.force)
    sets = read_datasets(request.datasets, request.data, request.cluster, folder=request.dataset_dir)
    labels = label_sets(sets, options)
    summaries = (SWEEP, TABLE, RECIPE, *(plot_name(dataset.name) for dataset in sets))
    task = Nli(labels, "choice", "word", check_generate=0, summaries=summaries, **options)
    splits = {}
    for dataset in sets:
        keys = dataset.clusters or _prompts(dataset)
        splits[dataset.name] = split_halves(keys[: request.limit], seed, str(dataset.path))
    searching = False
    if checkpoints:
        axes = checkpoint_axes(request, checkpoints)
    elif grid is not None:
        axes = weight_axes(request, [parse_weight(part.strip(), "--grid") for part in grid.split(",")])
    else:
        axes = weight_axes(request)
        searching = True
    if dry_run:
        click.echo(_forecast(request, axes, sets, searching=searching))
        next_step(None, command_line(COMMAND, ("--dry-run",)))
        return
    sweep = Sweep(request.out, axes.names, axes.points, splits, metric)
    with workers_of(request) as workers:
        axes = _score(request, task, sets, axes, sweep, workers, searching=searching)
    _report(request, axes, replace(sweep, points=axes.points))


def _score(
    request: ScoringRequest,
    task: Nli,
    sets: Sequence[EvalDataset],
    axes: Axes,
    sweep: "Sweep",
    workers: Executor | None,
    *,
    searching: bool,
) -> Axes:
    """Score all points and, `searching`, further ones around the best; return the axes with all points."""
    unscored = [model for model in axes.models if not _is_scored(request, model, sets)]
    opened = load_candidates(request, axes.reference, axes.models, workers)
    began = time.monotonic()
    score_opened(request, task, sets, opened)
    while searching:
        refined = axes.refined(choose(sweep, read_points(sweep)))
        added = refined.without(axes)
        if not added:
            break
        unscored += [model for model in added if not _is_scored(request, model, sets)]
        score_opened(replace(request, force=False), task, sets, opened.with_weights(added))
        axes = refined
        sweep = replace(sweep, points=axes.points)
    if unscored:
        click.echo(_speed(len(unscored), time.monotonic() - began))
    return axes


def _report(request: ScoringRequest, axes: Axes, sweep: "Sweep") -> None:
    """Judge a scored sweep, write its files and print the table."""
    compared = judge(sweep, read_points(sweep))
    for warning in compared.warnings:
        warn(warning)
    ship = compared.choices[-1].model
    parts = axes.models[ship]
    recipe = request.out / RECIPE
    if parts:
        weights_text = json.dumps([f"{part.adapter.folder}={part.weight:g}" for part in parts])
        write_text(recipe, f"adapters: {weights_text}\n")
    else:
        recipe.unlink(missing_ok=True)
    click.echo(write(sweep, compared), nl=False)
    if parts:
        merge = ["tuneyard", "adapter", "merge", recipe]
        next_step(request.out / SWEEP, [*merge, "--out", f"saves/{request.out.name}-merge"])
    else:
        click.echo(tr(NO_ADAPTER, base=ship))
        next_step(
            request.out / SWEEP,
            ["tuneyard", "eval", "compare", request.out, "--out", request.out / "verdict"],
        )


def _speed(points: int, seconds: float) -> str:
    """Sentence on the points that this run scored, and how many it scored a minute."""
    per_minute = f"{60 * points / seconds:.1f}"
    return tr(
        "{points} scored in {seconds} s: {per_minute} points a minute",
        points=tr_counted(points, "point"),
        seconds=f"{seconds:.0f}",
        per_minute=per_minute,
    )


@dataclass(frozen=True, slots=True)
class Sweep:
    """A scored sweep: its folder, the names of its axes, and each model's point on them.

    `splits` are the halves of each dataset. `metric` decides the choice: accuracy, or a metric of examples.
    """

    out: Path
    axes: Sequence[str]
    points: Mapping[str, tuple[float, ...]]
    splits: Mapping[str, Split]
    metric: str = ACCURACY.name


def read_points(sweep: Sweep) -> RunsByDataset:
    """Read every point's scored rows once."""
    reading = ANSWERS_ONLY
    if sweep.metric != ACCURACY.name:
        reading = Reading(next_to_answers=[sweep.metric])
    runs: dict[str, dict[str, ScoredRun]] = {}
    for dataset in sweep.splits:
        runs[dataset] = {}
        for model in sweep.points:
            runs[dataset][model] = read_scored_run(sweep.out / model / dataset, reading)
    return runs


def choose(sweep: Sweep, runs: RunsByDataset) -> str:
    """The best point on the choosing half, of equal ones the first."""
    return _choice(sweep)(runs, next(iter(sweep.points))).choices[-1].model


def judge(sweep: Sweep, runs: RunsByDataset) -> ComparedRuns:
    """Choose a point on one half, and compare it with the base on the other half.

    This is `eval compare --choose-on half`, but the base is one of the candidates. `RequestError` if no row
    has the metric.
    """
    return compare_runs(runs, [_choice(sweep)], metric=sweep.metric)


def _choice(sweep: Sweep) -> Question:
    """The question which point is the best on the choosing half."""
    rows_to_choose_on = {}
    for dataset, (choosing, _) in sweep.splits.items():
        rows_to_choose_on[dataset] = {str(row) for row in choosing}
    return partial(choose_on_half, metric=sweep.metric, rows=rows_to_choose_on, is_sweep=True)


def write(sweep: Sweep, compared: ComparedRuns) -> str:
    """Write a plot for each dataset, table.md and, last, sweep.json; return the text of table.md."""
    choices = compared.choices
    ship = choices[-1].model
    for dataset, choice in zip(sweep.splits, choices, strict=False):  # the last choice is that on the mean
        draw(SweepPlot(choice, sweep.axes, sweep.points, ship), sweep.out / plot_name(dataset))
    text = text_of(compared, compared.tables)
    write_text(sweep.out / TABLE, text)
    sweep_facts = {
        "axes": list(sweep.axes),
        "metric": sweep.metric,
        "points": {model: list(point) for model, point in sweep.points.items()},
        "ship": ship,
        "rows_to_choose_on": {dataset: choosing for dataset, (choosing, _) in sweep.splits.items()},
    }
    write_json(sweep.out / SWEEP, {**judged(compared), **sweep_facts})
    return text


def _prompts(dataset: EvalDataset) -> list[str]:
    """The text of each example's messages."""
    prompts = []
    for conversation in dataset.conversations:
        contents = [message["content"] for message in conversation.messages]
        prompts.append(str(contents))
    return prompts


def _is_scored(request: ScoringRequest, model: str, sets: Sequence[EvalDataset]) -> bool:
    """True if an earlier run has scored a model on every dataset."""
    if request.force:
        return False
    return all((request.out / model / dataset.name / RESULTS).is_file() for dataset in sets)


def _forecast(request: ScoringRequest, axes: Axes, sets: Sequence[EvalDataset], *, searching: bool) -> str:
    """Sentence on how many examples the models will answer, and how many an earlier run has answered."""
    counts = {dataset.name: len(dataset.conversations[: request.limit]) for dataset in sets}
    each = sum(counts.values())
    listed = " + ".join(f"{dataset} {count}" for dataset, count in counts.items())
    models = f"{len(axes.models)}"
    total = f"{len(axes.models) * each}"
    names = list(axes.models)
    if searching:
        models += f" to {MOST_POINTS}"
        total += f" to {MOST_POINTS * each}"
        if (request.out / RUN).is_file():
            names += [model for model in read_identity(request.out)["models"] if model not in axes.models]
    done = 0
    for model in names:
        for dataset, count in counts.items():
            if not request.force and (request.out / model / dataset / RESULTS).is_file():
                done += count
    return f"{models} models × ({listed}) examples = {total} in all, {done} of them done before"


if __name__ == "__main__":
    run_command(cli)
