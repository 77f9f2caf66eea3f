"""python -m eval.sweep --model models/demo-base --adapter rte --adapter mnli --data rte.json --out results/s

Scores a grid of merge weights, or every checkpoint of a run, with the base loaded once and no weights
written; chooses on one half of the rows and reports on the other. docs/eval-sweep.md explains the files.
"""

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from tuneyard.adapters.weighted import WeightedAdapter, parse_weight
from tuneyard.core.adapter_files import CONFIG
from tuneyard.core.cli import cli_command
from tuneyard.core.errors import RequestError, resumed_by, run
from tuneyard.core.files import read_object, write_text
from tuneyard.core.language import lang_option
from tuneyard.eval.backends import shards
from tuneyard.eval.datasets.dataset import EvalDataset, read_datasets
from tuneyard.eval.metrics import find_metric
from tuneyard.eval.nli import Nli, label_options, label_sets
from tuneyard.eval.read.results import RESULTS, TABLE, check_new
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
from tuneyard.eval.show.sweep import ACCURACY, Sweep, plot_name, report
from tuneyard.eval.statistics.selection import split_halves

COMMAND = "eval.sweep"
STEPS = "trainer_state.json"
RECIPE = "merge.yaml"


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
@click.option("--metric", default=ACCURACY, show_default=True, metavar="NAME", help="What to choose by.")
@click.option("--dry-run", is_flag=True, help="Say how many examples would be prompted, and write nothing.")
@run_options
@lang_option
@resumed_by(lambda: resume_command(COMMAND))
def cli(checkpoints: Path | None, grid: str, seed: int, metric: str, dry_run: bool, **given: Any) -> None:
    """Find the best merge weights of one or two adapters, or the best checkpoint of a run.

    The choice is made on one half of the rows; its score on the other half is the one to believe.
    """
    request = replace(take(given), command=COMMAND)
    if request.backend != "hf":
        raise RequestError(f"--backend {request.backend} only generates: a sweep compares probabilities")
    if metric != ACCURACY:
        find_metric(metric)
    check_new(request.out, COMMAND, resume=request.resume, force=request.force)
    sets = read_datasets(request.datasets, request.data, request.cluster)
    labels = label_sets(sets, given)
    summaries = (SWEEP, TABLE, RECIPE, *(plot_name(one.name) for one in sets))
    task = Nli(labels, "choice", "word", check_generate=0, summaries=summaries, **given)
    splits = {}
    for one in sets:  # by cluster where rows have one, else by what is asked
        keys = one.clusters or [str([m["content"] for m in talk.messages]) for talk in one.conversations]
        splits[one.name] = split_halves(keys[: request.limit], seed, str(one.path))
    if checkpoints:
        axes = _checkpoints(request, checkpoints)
    else:
        axes = _grid(request, sorted({parse_weight(part.strip(), "--grid") for part in grid.split(",")}))
    if dry_run:
        click.echo(_forecast(request, axes, sets))
        return
    score_opened(request, task, sets, load_candidates(request, axes.reference, axes.models))
    if shards.first():
        text, ship = report(Sweep(request.out, axes.names, axes.points, splits, metric))
        click.echo(text)
        chosen = [f"{part.adapter.folder}={part.weight:g}" for part in axes.models[ship]]
        if chosen:  # a recipe of `tuneyard adapter merge`; none where the base is best
            write_text(request.out / RECIPE, f"adapters: {json.dumps(chosen)}\n")
        else:
            (request.out / RECIPE).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Axes:
    """Every model of a sweep: its place on the axes, and its adapters by weight."""

    reference: str
    names: list[str]
    points: dict[str, tuple[float, ...]]
    models: dict[str, tuple[WeightedAdapter, ...]]


def _grid(request: ScoringRequest, weights: list[float]) -> Axes:
    reference, wanted = open_adapters(replace(request, no_base=False))
    adapters = {name: parts for name, parts in wanted.items() if parts}
    if not 1 <= len(adapters) <= 2:
        raise RequestError(f"{len(adapters)} adapters: expected one or two --adapter, or --checkpoints DIR")
    points: dict[str, tuple[float, ...]] = {}
    models: dict[str, tuple[WeightedAdapter, ...]] = {}
    for point in itertools.product(weights, repeat=len(adapters)):
        parts = tuple(
            WeightedAdapter(part.adapter, weight * part.weight)
            for weight, own in zip(point, adapters.values(), strict=True)
            for part in own
            if weight
        )
        name = ",".join(f"{name}={weight:g}" for name, weight in zip(adapters, point, strict=True))
        if parts or not request.no_base:
            name = name if parts else BASE
            points[name], models[name] = point, parts
    return Axes(reference, list(adapters), points, models)


def _checkpoints(request: ScoringRequest, folder: Path) -> Axes:
    """Return the base (step 0), every checkpoint of a run, and its end where that is none of them."""
    if request.adapters:
        raise RequestError("--checkpoints takes the adapters of the run: leave --adapter out")
    found = {path.parent.name.split("-")[1]: path.parent for path in folder.glob(f"checkpoint-*/{CONFIG}")}
    steps = {int(number): path for number, path in found.items() if number.isdigit()}
    last = read_object(folder / STEPS).get("global_step") if (folder / STEPS).is_file() else None
    if isinstance(last, int) and last not in steps and (folder / CONFIG).is_file():
        steps[last] = folder
    if not steps:
        raise RequestError(
            f"{folder}: no checkpoint-N with an {CONFIG}: expected the output_dir of a LoRA run"
        )
    named = {f"step-{step}": step for step in sorted(steps)}
    given = tuple(f"{name}={steps[step]}/" for name, step in named.items())
    reference, models = open_adapters(replace(request, adapters=given))
    return Axes(reference, ["step"], {name: (float(named.get(name, 0)),) for name in models}, models)


def _forecast(request: ScoringRequest, axes: Axes, sets: list[EvalDataset]) -> str:
    """Say how many rows go through the model, and how many of them a run before has answered."""
    rows = {dataset.name: len(dataset.conversations[: request.limit]) for dataset in sets}
    every = len(axes.models) * sum(rows.values())
    done = sum(
        rows[name] for model in axes.models for name in rows
        if not request.force and (request.out / model / name / RESULTS).is_file()
    )  # fmt: skip
    listed = " + ".join(f"{name} {count}" for name, count in rows.items())
    return f"{len(axes.models)} models × ({listed}) examples = {every} in all, {done} of them done before"


if __name__ == "__main__":
    run(cli)
