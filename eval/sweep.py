"""tuneyard eval sweep --model models/demo-base --adapter rte --adapter mnli --data rte.json --out results/s

Scores a grid of merge weights, or every checkpoint of a run. Loads the base once and writes no weights.
Chooses on one half of the rows and reports on the other. docs/eval-sweep.md explains the files.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from tuneyard.adapters.weighted import WeightedAdapter, parse_weight
from tuneyard.core.adapter_files import CONFIG
from tuneyard.core.cli import cli_command, command_line
from tuneyard.core.errors import RequestError, resumed_by, run_command
from tuneyard.core.files import read_object, write_json, write_text
from tuneyard.core.language import lang_option, tr
from tuneyard.core.next_step import next_step
from tuneyard.core.reader_language import ENGLISH, in_language
from tuneyard.core.warn import warn
from tuneyard.eval.backends import shards
from tuneyard.eval.datasets.dataset import EvalDataset, read_datasets
from tuneyard.eval.judge.ask import ComparedRuns, compare_runs
from tuneyard.eval.judge.questions.against_base import ACCURACY_NAME, AgainstBase
from tuneyard.eval.judge.questions.choice import HeldOutChoice
from tuneyard.eval.metrics import find_metric
from tuneyard.eval.nli import Nli, label_options, label_sets
from tuneyard.eval.read.find import ANSWERS_ONLY, Reading, read_scored_run
from tuneyard.eval.read.results import RESULTS, TABLE, check_new
from tuneyard.eval.read.scored_run import RunsByDataset, ScoredRun
from tuneyard.eval.read.sweeps import SWEEP
from tuneyard.eval.scoring.candidates import BASE, load_candidates, open_adapters
from tuneyard.eval.scoring.options import (
    ScoringRequest,
    model_options,
    resume_command,
    run_options,
    set_options,
    take,
)
from tuneyard.eval.scoring.pipeline import score_opened
from tuneyard.eval.show.sweep import STEP, SweepPlot, draw, plot_name
from tuneyard.eval.show.tables import comparison_json, other_answers_json, question_tables, text_of
from tuneyard.eval.statistics.selection import Split, split_halves

COMMAND = "eval.sweep"
STEPS = "trainer_state.json"
RECIPE = "merge.yaml"
NO_ADAPTER = "No weights have a better figure than {base} on the choosing half: there is no adapter to ship."


@cli_command(
    "sweep",
    "tuneyard eval sweep --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
    "--grid 0,1 --limit 16 --out results/weights",
    "tuneyard eval sweep --model models/demo-base --checkpoints saves/demo-rte --dataset "
    "demo_rte_eval --dry-run --out results/checkpoints",
)
@model_options
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Score all checkpoints of the run in DIR, instead of a grid.",
)
@click.option(
    "--grid",
    default="0,0.25,0.5,0.75,1",
    show_default=True,
    metavar="W,W,…",
    help="The weights that each adapter takes, every one with every other's.",
)
@set_options
@label_options
@click.option("--seed", type=int, default=42, show_default=True, help="Of the halves.")
@click.option("--metric", default=ACCURACY_NAME, show_default=True, metavar="NAME", help="What to choose by.")
@click.option("--dry-run", is_flag=True, help="Say how many examples would be prompted, and write nothing.")
@run_options
@lang_option
@resumed_by(lambda: resume_command(COMMAND))
def cli(checkpoints: Path | None, grid: str, seed: int, metric: str, dry_run: bool, **options: Any) -> None:
    """Find the best merge weights of one or two adapters, or the best checkpoint of a run.

    The choice is made on one half of the rows; its score on the other half is the one to believe.
    """
    request = replace(take(options), command=COMMAND)
    if request.backend != "hf":
        raise RequestError(f"--backend {request.backend} only generates: a sweep compares probabilities")
    if metric != ACCURACY_NAME:
        find_metric(metric)
    check_new(request.out, COMMAND, resume=request.resume, force=request.force)
    sets = read_datasets(request.datasets, request.data, request.cluster)
    labels = label_sets(sets, options)
    summaries = (SWEEP, TABLE, RECIPE, *(plot_name(dataset.name) for dataset in sets))
    task = Nli(labels, "choice", "word", check_generate=0, summaries=summaries, **options)
    splits = {}
    for dataset in sets:
        keys = dataset.clusters or _prompts(dataset)
        splits[dataset.name] = split_halves(keys[: request.limit], seed, str(dataset.path))
    if checkpoints:
        axes = _checkpoints(request, checkpoints)
    else:
        weights = {parse_weight(part.strip(), "--grid") for part in grid.split(",")}
        axes = _grid(request, sorted(weights))
    if dry_run:
        click.echo(_forecast(request, axes, sets))
        next_step("", command_line(COMMAND, ("--dry-run",)))
        return
    score_opened(request, task, sets, load_candidates(request, axes.reference, axes.models))
    if shards.first():
        sweep = Sweep(request.out, axes.names, axes.points, splits, metric)
        compared = judge(sweep, read_points(sweep))
        for warning in compared.warnings:
            warn(warning)
        ship = compared.answers[0].records[-1].model
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


@dataclass(frozen=True, slots=True)
class Sweep:
    """A scored sweep: its folder, the names of its axes, and each model's point on them.

    `splits` are the halves of each dataset. `metric` decides the choice: accuracy, or a metric of examples.
    """

    out: Path
    axes: Sequence[str]
    points: Mapping[str, tuple[float, ...]]
    splits: Mapping[str, Split]
    metric: str = ACCURACY_NAME


def read_points(sweep: Sweep) -> RunsByDataset:
    """Read every point's scored rows once."""
    reading = ANSWERS_ONLY
    if sweep.metric != ACCURACY_NAME:
        reading = Reading(next_to_answers=[sweep.metric])
    runs: dict[str, dict[str, ScoredRun]] = {}
    for dataset in sweep.splits:
        runs[dataset] = {}
        for model in sweep.points:
            runs[dataset][model] = read_scored_run(sweep.out / model / dataset, reading)
    return runs


def judge(sweep: Sweep, runs: RunsByDataset) -> ComparedRuns:
    """Choose a point on one half, and compare it with the base on the other half.

    These are the questions of `eval compare --choose-on half`, but the base is one of the candidates.
    `RequestError` if no row has the metric.
    """
    rows_to_choose_on = {}
    for dataset, (choosing, _) in sweep.splits.items():
        rows_to_choose_on[dataset] = {str(row) for row in choosing}
    choice = HeldOutChoice(sweep.metric, rows_to_choose_on, base_is_candidate=True)
    return compare_runs(runs, [choice, AgainstBase(sweep.metric)])


def write(sweep: Sweep, compared: ComparedRuns) -> str:
    """Write a plot for each dataset, table.md and, last, sweep.json; return the text of table.md."""
    choices = compared.answers[0].records
    ship = choices[-1].model
    for dataset, choice in zip(sweep.splits, choices, strict=False):  # the last choice is that on the mean
        draw(SweepPlot(choice, sweep.axes, sweep.points, ship), sweep.out / plot_name(dataset))
    text = text_of(compared, question_tables(compared))
    write_text(sweep.out / TABLE, text)
    with in_language(ENGLISH):  # programs read the same JSON in every language
        judged = {**comparison_json(compared.comparison), **other_answers_json(compared)}
    sweep_facts = {
        "axes": list(sweep.axes),
        "metric": sweep.metric,
        "points": {model: list(point) for model, point in sweep.points.items()},
        "ship": ship,
        "rows_to_choose_on": {dataset: choosing for dataset, (choosing, _) in sweep.splits.items()},
    }
    write_json(sweep.out / SWEEP, {**judged, **sweep_facts})
    return text


@dataclass(frozen=True, slots=True)
class Axes:
    """Every model of a sweep: its point on the axes, and its weighted adapters."""

    reference: str
    names: list[str]
    points: dict[str, tuple[float, ...]]
    models: dict[str, tuple[WeightedAdapter, ...]]


def _prompts(dataset: EvalDataset) -> list[str]:
    """The text of each example's messages."""
    prompts = []
    for conversation in dataset.conversations:
        contents = [message["content"] for message in conversation.messages]
        prompts.append(str(contents))
    return prompts


def _grid(request: ScoringRequest, weights: list[float]) -> Axes:
    """Every combination of the weights, one axis for each adapter; all weights 0 are the base."""
    reference, candidates = open_adapters(replace(request, no_base=False))
    adapters = {name: parts for name, parts in candidates.items() if parts}
    if not 1 <= len(adapters) <= 2:
        raise RequestError(f"{len(adapters)} adapters: expected one or two --adapter, or --checkpoints DIR")
    points: dict[str, tuple[float, ...]] = {}
    models: dict[str, tuple[WeightedAdapter, ...]] = {}
    for point in itertools.product(weights, repeat=len(adapters)):
        weighted: list[WeightedAdapter] = []
        for weight, parts in zip(point, adapters.values(), strict=True):
            if weight:
                weighted += [WeightedAdapter(part.adapter, weight * part.weight) for part in parts]
        if weighted:
            name = ",".join(f"{name}={weight:g}" for name, weight in zip(adapters, point, strict=True))
        elif request.no_base:
            continue
        else:
            name = BASE
        points[name], models[name] = point, tuple(weighted)
    return Axes(reference, list(adapters), points, models)


def _checkpoints(request: ScoringRequest, folder: Path) -> Axes:
    """The base (step 0), every checkpoint of a run, and its end if no checkpoint has that step."""
    if request.adapters:
        raise RequestError("--checkpoints takes the adapters of the run: leave --adapter out")
    folders: dict[int, Path] = {}
    for config in folder.glob(f"checkpoint-*/{CONFIG}"):
        number = config.parent.name.split("-")[1]
        if number.isdigit():
            folders[int(number)] = config.parent
    last = None
    if (folder / STEPS).is_file():
        last = read_object(folder / STEPS).get("global_step")
    if isinstance(last, int) and last not in folders and (folder / CONFIG).is_file():
        folders[last] = folder
    if not folders:
        raise RequestError(
            f"{folder}: no checkpoint-N with an {CONFIG}: expected the output_dir of a LoRA run"
        )
    steps = {f"step-{step}": step for step in sorted(folders)}
    adapters = tuple(f"{name}={folders[step]}/" for name, step in steps.items())
    reference, models = open_adapters(replace(request, adapters=adapters))
    points: dict[str, tuple[float, ...]] = {}
    for name in models:
        points[name] = (float(steps.get(name, 0)),)
    return Axes(reference, [STEP], points, models)


def _forecast(request: ScoringRequest, axes: Axes, sets: list[EvalDataset]) -> str:
    """Sentence on how many examples the models will answer, and how many an earlier run has answered."""
    counts = {dataset.name: len(dataset.conversations[: request.limit]) for dataset in sets}
    total = len(axes.models) * sum(counts.values())
    done = 0
    for model in axes.models:
        for dataset, count in counts.items():
            if not request.force and (request.out / model / dataset / RESULTS).is_file():
                done += count
    listed = " + ".join(f"{dataset} {count}" for dataset, count in counts.items())
    return f"{len(axes.models)} models × ({listed}) examples = {total} in all, {done} of them done before"


if __name__ == "__main__":
    run_command(cli)
