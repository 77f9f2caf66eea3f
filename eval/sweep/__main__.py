"""tuneyard eval sweep --model models/demo-base --adapter rte --adapter mnli --data rte.json --out results/s

Searches merge weights, scores a given grid of them, or scores every checkpoint of a run. Loads the base once
and writes no weights. Chooses on one half of the rows and reports on the other. docs/eval-sweep.md explains
the files.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneyard.core.cli.main import cli_command, explicit_options, next_step, typed_command
from tuneyard.core.cli.run import run_command
from tuneyard.core.drawing.plots import PLOTTING
from tuneyard.core.errors import RequestError, import_early, resumed_by
from tuneyard.core.execution.state import CURRENT, Input, State
from tuneyard.core.files import write_json, write_text
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import say
from tuneyard.core.language.reader import in_language
from tuneyard.core.records.points_record import WeightSweep
from tuneyard.core.training.metrics import ACCURACY
from tuneyard.core.training.sweeps import POINTS
from tuneyard.eval.data.dataset import EvalDataset, read_datasets
from tuneyard.eval.figures import check_metric
from tuneyard.eval.nli import Nli, label_options, label_sets
from tuneyard.eval.runs.results import HELD_OUT, RESULTS, TABLE, CommandResult, check_folder, end_run
from tuneyard.eval.runs.sweeps import HALVES
from tuneyard.eval.scoring.command import end_scoring
from tuneyard.eval.scoring.evaluation import NextStep
from tuneyard.eval.scoring.options import PATH, model_options, run_options, set_options, with_options
from tuneyard.eval.scoring.request import ScoringRequest, request_of, resume_hint, resumed
from tuneyard.eval.statistics.selection import split_halves

if TYPE_CHECKING:
    from tuneyard.core.execution import Executor
    from tuneyard.eval.judge.ask import ComparedRuns
    from tuneyard.eval.runs.scored_run import RunsByDataset
    from tuneyard.eval.sweep.points import Axes

COMMAND = "eval.sweep"
RECIPE = "merge.yaml"
SEED = 42  # of the halves and of --search


@cli_command(
    "sweep",
    "tuneyard eval sweep --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
    "--limit 16 --out results/weights",
    "tuneyard eval sweep --model models/demo-base --checkpoints saves/demo-rte --dataset "
    "demo_rte_eval --dry-run --out results/checkpoints",
)
@partial(with_options, model_options)
@click.option(
    "--checkpoints",
    type=PATH,
    metavar="DIR",
    help="Score all checkpoints of the run in DIR, instead of weights.",
)
@click.option(
    "--grid",
    metavar="W,W,…",
    help="Score these weights of each adapter, every one with every other's, instead of searching.",
)
@click.option(
    "--search",
    type=click.IntRange(min=1),
    metavar="N",
    help="Search the weights of three or more adapters by Optuna: N points in all.",
)
@partial(with_options, [*set_options, *label_options])
@click.option("--seed", type=int, default=SEED, show_default=True, help="Seed of the halves and of --search.")
@click.option("--metric", default=ACCURACY.name, show_default=True, metavar="NAME", help="What to choose by.")
@click.option("--dry-run", is_flag=True, help="Say how many examples would be prompted, and write nothing.")
@partial(with_options, run_options)
def cli(
    checkpoints: Path | None,
    grid: str | None,
    search: int | None,
    seed: int,
    metric: str,
    dry_run: bool,
    **options: Any,
) -> None:
    """Find the best merge weights of adapters, or the best checkpoint of a run.

    For one or two adapters it scores the weights 0, 0.5 and 1, then those 0.25 around the best: at most 25
    points. The choice is made on one half of the rows; its score on the other half is the one to believe.
    """
    command_line = typed_command(COMMAND)
    explicit = explicit_options(click.get_current_context())
    with resumed_by(lambda: resume_hint(command_line)):
        scoring = request_of(options, explicit, command_line, COMMAND)
        request = SweepRequest(scoring, checkpoints, grid, search, seed, metric)
        if dry_run:
            say(forecast(request))
            next_step(None, command_line.text(without=("--dry-run",)))
        else:
            end_scoring(search_weights(request))


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """What a sweep is asked for: how its models are scored, and which ones.

    The `own` options of `scoring` are those of labels. `grid` has weights with commas between them.
    """

    scoring: ScoringRequest
    checkpoints: Path | None = None
    grid: str | None = None
    search: int | None = None
    seed: int = SEED
    metric: str = ACCURACY.name


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """A checked sweep, before a model is loaded: both halves of the rows, and the first points."""

    scoring: ScoringRequest
    evaluation: Nli
    halves: "Halves"
    sweep: "Sweep"
    steps: "Steps"
    inputs: Mapping[str, Input]
    """What the figures depend on, for run.json."""


Halves = tuple[Sequence[EvalDataset], Sequence[EvalDataset]]
"""The half of each dataset that chooses, and the other half."""


def forecast(request: SweepRequest) -> str:
    """Say how many examples a sweep would prompt. Nothing is written."""
    plan = plan_sweep(request)
    return _forecast(plan.scoring, plan.steps, plan.halves)


def state(request: SweepRequest) -> State:
    """How far a sweep is. No model is loaded, and nothing is written."""
    return _state(plan_sweep(request))


def _state(plan: SweepPlan) -> State:
    """The state of both halves. The points that a search adds follow from the inputs."""
    from tuneyard.eval.scoring.state import run_state

    out = plan.scoring.out
    choosing = run_state(plan.scoring, plan.inputs, (POINTS, TABLE))
    if choosing.kind == "new":
        return choosing
    held_out = run_state(plan.scoring, plan.inputs, (), out / HELD_OUT)
    kinds = {choosing.kind, held_out.kind}
    changes = tuple(dict.fromkeys([*choosing.changes, *held_out.changes]))
    if kinds & {"new", "unfinished"}:
        return State("unfinished", changes)
    if changes:
        return State("stale", changes)
    return CURRENT


def search_weights(request: SweepRequest) -> CommandResult:
    """Score a sweep and write its files; the next step is the merge that the other half recommends.

    `RequestError` for an OUT that is unfinished or stale, unless the request resumes or replaces it.
    """
    from tuneyard.eval.scoring.pipeline import workers_of
    from tuneyard.eval.scoring.state import refuse_existing

    plan = plan_sweep(request)
    state = _state(plan)
    out = plan.scoring.out
    if state == CURRENT and not plan.scoring.force:
        words = ["tuneyard", "eval", "compare", str(out), "--out", str(out / "verdict")]
        return CommandResult(out / POINTS, words, is_current=True)
    refuse_existing(plan.scoring, state)
    plan = replace(plan, scoring=resumed(plan.scoring))
    with workers_of(plan.scoring) as workers:
        sweep = _score(plan, workers)
    place, next_words = _report(plan.scoring, sweep)
    end_run(out)
    return CommandResult(place, next_words)


def plan_sweep(request: SweepRequest) -> SweepPlan:
    """Check a sweep, read its datasets and divide them. `RequestError` if OUT is not for it."""
    from tuneyard.eval.sweep.tables import plot_name

    scoring = request.scoring
    if not scoring.backend_kind.weights_adapters:
        raise RequestError(
            _(
                "--backend {name}: a sweep weights adapters, which only hf does: leave it out",
                name=scoring.backend,
            )
        )
    if request.metric != ACCURACY.name:
        check_metric(request.metric)
    check_folder(scoring.out, COMMAND, resume=scoring.resume, force=scoring.force)
    import_early(PLOTTING)
    datasets = read_datasets(scoring.datasets, scoring.data, scoring.cluster, folder=scoring.dataset_dir)
    summaries = (POINTS, TABLE, RECIPE, *(plot_name(dataset.name) for dataset in datasets))
    evaluation = Nli(
        label_sets(datasets, scoring.own),
        "choice",
        summaries=summaries,
        further_settings={"seed": request.seed, "rows": HALVES},
        **scoring.own,
    )
    choosing: list[EvalDataset] = []
    held_out: list[EvalDataset] = []
    rows_to_choose_on = {}
    for dataset in datasets:
        keys = dataset.clusters or _prompts(dataset)
        rows = split_halves(keys[: scoring.limit], request.seed, str(dataset.path))
        rows_to_choose_on[dataset.name] = rows[0]
        choosing.append(dataset.take(rows[0]))
        held_out.append(dataset.take(rows[1]))
    steps = _first_points(request)
    sweep = Sweep(scoring.out, steps.axes, rows_to_choose_on, request.metric)
    inputs = _inputs(request, steps.axes, datasets)
    return SweepPlan(scoring, evaluation, (choosing, held_out), sweep, steps, inputs)


def _inputs(request: SweepRequest, axes: "Axes", datasets: Sequence[EvalDataset]) -> dict[str, Input]:
    """What a sweep depends on: its adapters or checkpoints, the rows, and how the points are chosen."""
    from tuneyard.eval.scoring.candidates import check_loading
    from tuneyard.eval.scoring.state import data_inputs, model_inputs, option_inputs

    check_loading(request.scoring)
    models = axes.adapters or axes.models
    return {
        **model_inputs(request.scoring, axes.reference, models),
        **option_inputs(request.scoring),
        "--grid": request.grid,
        "--search": request.search,
        "--seed": request.seed,
        "--metric": request.metric,
        **data_inputs(datasets, request.scoring.limit),
    }


Extend = Callable[["Axes", Mapping[str, float]], "Axes"]
"""Adds points to axes by the ranks of their models (the smallest best), until there are no more to add."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The first points of a sweep, how it goes on, and how many points there are at most."""

    axes: "Axes"
    extend: Extend
    most_points: int


def _first_points(request: SweepRequest) -> Steps:
    """The points that are scored first; `RequestError` for options that exclude each other."""
    from tuneyard.adapters.model.weights import parse_weight
    from tuneyard.eval.sweep.points import MOST_POINTS, adapter_axes, checkpoint_axes, weight_axes
    from tuneyard.eval.sweep.search import WeightSearch

    scoring, grid = request.scoring, request.grid
    if request.search is not None:
        if grid is not None or request.checkpoints:
            other = "--grid" if grid is not None else "--checkpoints"
            raise RequestError(_("--search and {other}: both say what to score; leave one out", other=other))
        weight_search = WeightSearch(adapter_axes(scoring), request.search, request.seed)
        return Steps(weight_search.first, weight_search.extended, request.search)
    if request.checkpoints:
        axes = checkpoint_axes(scoring, request.checkpoints)
        return Steps(axes, _no_more, len(axes.models))
    if grid is not None:
        try:
            weights = [parse_weight(part.strip(), "--grid") for part in grid.split(",")]
        except RequestError as error:
            raise RequestError(
                _("{error}; several have commas between them: --grid 0,0.5,1", error=error)
            ) from error
        axes = weight_axes(scoring, weights)
        return Steps(axes, _no_more, len(axes.models))
    return Steps(weight_axes(scoring), _around_the_best, MOST_POINTS)


def _no_more(axes: "Axes", _ranks: Mapping[str, float]) -> "Axes":
    return axes


def _around_the_best(axes: "Axes", ranks: Mapping[str, float]) -> "Axes":
    """The axes with the points around the best one, of equal ones the first."""
    return axes.refined(min(ranks, key=lambda model: (math.isnan(ranks[model]), ranks[model])))


def _score(plan: SweepPlan, workers: "Executor | None") -> "Sweep":
    """Score all points on the half that chooses, and those that the search adds to them.

    Score the base, each adapter alone and the best point on the other half. Return the sweep with all points
    and these models.
    """
    from tuneyard.eval.judge.questions.choice import best_point, point_ranks
    from tuneyard.eval.scoring.candidates import choose_candidates, load_candidates
    from tuneyard.eval.scoring.pipeline import carry_out
    from tuneyard.eval.scoring.plan import plan_scoring

    request, evaluation, sweep = plan.scoring, plan.evaluation, plan.sweep
    choosing, held_out = plan.halves
    axes = sweep.axes
    opened = load_candidates(request, axes.reference, axes.models, workers)
    carry_out(plan_scoring(request, evaluation, choosing, opened, plan.inputs))
    request = replace(request, force=False)
    while True:
        extended = plan.steps.extend(axes, point_ranks(read_points(sweep), sweep.metric))
        added = extended.without(axes)
        if not added:
            break
        candidates = choose_candidates(request, opened.backend.tokenizer, added)
        carry_out(
            plan_scoring(request, evaluation, choosing, replace(opened, candidates=candidates), plan.inputs)
        )
        axes = extended
        sweep = replace(sweep, axes=axes)
    best = best_point(read_points(sweep), sweep.metric)
    reported = {**axes.alone(), best: axes.models[best]}
    say(_("the half that does not choose:"))
    request = replace(request, out=request.out / HELD_OUT)
    candidates = choose_candidates(request, opened.backend.tokenizer, reported)
    carry_out(
        plan_scoring(request, evaluation, held_out, replace(opened, candidates=candidates), plan.inputs)
    )
    return replace(sweep, reported=list(reported))


def _report(request: ScoringRequest, sweep: "Sweep") -> NextStep:
    """Judge a scored sweep, write its files and print the table; return the next step."""
    from tuneyard.eval.report.findings import print_finding

    compared = judge(sweep, read_points(sweep), read_reported(sweep))
    for finding in compared.findings:
        print_finding(finding)
    ship = compared.choices[-1].model
    weighted_adapters = sweep.axes.models[ship]
    recipe = request.out / RECIPE
    if weighted_adapters:
        weights_text = json.dumps(
            [f"{weighted.adapter.folder}={weighted.weight:g}" for weighted in weighted_adapters]
        )
        write_text(recipe, f"adapters: {weights_text}\n")
    else:
        recipe.unlink(missing_ok=True)
    click.echo(write(sweep, compared), nl=False)
    if not weighted_adapters:
        say(
            _(
                "No weights have a better figure than {base} on the choosing half: there is no adapter to "
                "ship.",
                base=ship,
            )
        )
    return request.out / POINTS, next_command(sweep.out, compared)


def next_command(out: Path, compared: "ComparedRuns") -> list[str]:
    """Merge the chosen weights if the held-out half recommends them, otherwise look at the figures."""
    recommended = compared.comparison.deciding[0].conclusion.recommended
    if recommended == compared.choices[-1].model and (out / RECIPE).is_file():
        return ["tuneyard", "adapter", "merge", str(out / RECIPE), "--out", f"saves/{out.name}-merge"]
    return ["tuneyard", "eval", "compare", str(out), "--out", str(out / "verdict")]


@dataclass(frozen=True, slots=True)
class Sweep:
    """A scored sweep: its folder, and its axes with each model's point on them.

    `metric` decides the choice: accuracy, or a metric of examples. `reported` are the models that are scored
    on the held-out half.
    """

    out: Path
    axes: "Axes"
    rows_to_choose_on: Mapping[str, Sequence[int]]
    metric: str = ACCURACY.name
    reported: Sequence[str] = ()


def read_points(sweep: Sweep) -> "RunsByDataset":
    """Read every point's scored rows on the half that chooses."""
    return _read(sweep, sweep.out, list(sweep.axes.points))


def read_reported(sweep: Sweep) -> "RunsByDataset":
    """Read the scored rows of the other half."""
    return _read(sweep, sweep.out / HELD_OUT, sweep.reported)


def _read(sweep: Sweep, folder: Path, models: Sequence[str]) -> "RunsByDataset":
    from tuneyard.eval.runs.find import read_scored_run

    runs = {}
    for dataset in sweep.rows_to_choose_on:
        runs[dataset] = {model: read_scored_run(folder / model / dataset) for model in models}
    return runs


def judge(sweep: Sweep, runs: "RunsByDataset", held_out: "RunsByDataset") -> "ComparedRuns":
    """Choose a point on one half, and compare it with the base on the other half.

    This is `eval compare --choose-on half`, but the base is one of the candidates. `RequestError` if no row
    has the metric.
    """
    from tuneyard.eval.judge.ask import compare_runs
    from tuneyard.eval.judge.questions.choice import choose_on_half

    choice = partial(choose_on_half, metric=sweep.metric, held_out=held_out)
    return compare_runs(runs, [choice], metric=sweep.metric)


def write(sweep: Sweep, compared: "ComparedRuns") -> str:
    """Write a plot for each dataset, table.md and, last, points.json; return the text of table.md."""
    from tuneyard.core.drawing.plots import plot_language
    from tuneyard.eval.report.tables import judged, text_of
    from tuneyard.eval.report.verdict import decisions
    from tuneyard.eval.sweep.tables import draw, plot_name

    choices = compared.choices
    ship = choices[-1].model
    with in_language(plot_language()):
        title = decisions(compared.comparison, brief=True)[0]
    for choice in choices[: len(sweep.rows_to_choose_on)]:  # another one is that on the mean
        path = sweep.out / plot_name(choice.dataset)
        draw(title, choice, sweep.axes.names, sweep.axes.points, ship, path)
    text = text_of(compared)
    write_text(sweep.out / TABLE, text)
    record: WeightSweep = {
        "format": 2,
        **judged(compared),
        "axes": list(sweep.axes.names),
        "metric": sweep.metric,
        "points": {model: list(point) for model, point in sweep.axes.points.items()},
        "ship": ship,
        "reported": list(sweep.reported),
        "rows_to_choose_on": {dataset: list(rows) for dataset, rows in sweep.rows_to_choose_on.items()},
    }
    write_json(sweep.out / POINTS, record)
    return text


def _prompts(dataset: EvalDataset) -> list[str]:
    """The text of each example's messages."""
    talks = [conversation.messages for conversation in dataset.conversations]
    return [str([message["content"] for message in messages]) for messages in talks]


def _forecast(request: ScoringRequest, steps: Steps, halves: Halves) -> str:
    """Sentence on how many examples the models will answer, and how many an earlier run has answered."""
    axes, most = steps.axes, steps.most_points
    searching = steps.extend is not _no_more
    counts, held_out = ({dataset.name: len(dataset.records) for dataset in half} for half in halves)
    listed = " + ".join(f"{dataset} {count}" for dataset, count in counts.items())
    models: str = str(len(axes.models))
    if most > len(axes.models):
        models = _("{fewest} to {most}", fewest=len(axes.models), most=most)
    reported = len(axes.alone()) + 1  # the best point may be one of them
    others = sum(held_out.values())
    total = most * sum(counts.values()) + reported * others
    done = 0
    for folder, of_half in ((request.out, counts), (request.out / HELD_OUT, held_out)):
        for results in folder.glob(f"*/*/{RESULTS}"):
            model, dataset = results.parts[-3:-1]
            if not request.force and (searching or model in axes.models):
                done += of_half.get(dataset, 0)
    return _(
        "{models} models × ({datasets}) examples, then {fewest} to {most} × {others} of the "
        "other half: at most {total} in all, {done} of them done before",
        models=models,
        datasets=listed,
        fewest=reported - 1,
        most=reported,
        others=others,
        total=total,
        done=done,
    )


if __name__ == "__main__":
    run_command(cli)
