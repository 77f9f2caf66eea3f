"""--repeat N: sampled answers drawn N times, with the mean and the spread of their figures.

Each draw is a run of its own in OUT/draw-1, OUT/draw-2, …, with seeds that follow one another. OUT/repeats.md
and repeats.json have each figure's mean over the draws. A row counts by its own mean over the draws, so that
the interval is for other rows and other draws. The standard deviation is that of the draws' figures.
"""

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TypedDict

from tuneyard.core.errors import RequestError
from tuneyard.core.execution.state import Input, State
from tuneyard.core.files import write_json, write_text
from tuneyard.core.language.message import _, joined, tr
from tuneyard.core.language.messages import say
from tuneyard.core.language.number_format import NONE, Table, grid, number, percent
from tuneyard.core.records.record import read_record
from tuneyard.core.records.results_record import ResultsRecord
from tuneyard.core.training.metrics import ACCURACY, SHARE, Metric
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.runs.find import read_scored_run
from tuneyard.eval.runs.results import (
    PREDICTIONS,
    REPEATS,
    RESULTS,
    RUN,
    STEPS,
    begin_suite_run,
    check_folder,
    end_run,
    read_lines,
    read_run,
    undone_without_predictions,
)
from tuneyard.eval.runs.scored_run import ScoredRun, measurable
from tuneyard.eval.scoring.candidates import Opened
from tuneyard.eval.scoring.evaluation import Evaluation, NextStep
from tuneyard.eval.scoring.pipeline import carry_out
from tuneyard.eval.scoring.plan import plan_scoring
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.scoring.state import run_state, steps_state
from tuneyard.eval.statistics.rates import Mean, average, metric_mean

FIRST_SEED = 1
TABLE = "repeats.md"
DRAW = re.compile(r"draw-[1-9]\d*")


class RepeatedFigure(TypedDict):
    """A figure of one model on one dataset over all draws. Shares are 0 to 1.

    `ci95` and `stderr` are those of the mean. `sd` is the standard deviation of `values`, one for each draw.
    """

    value: float
    n: int
    stderr: float | None
    ci95: list[float] | None
    sd: float
    values: list[float]
    majority: float | None


Repeats = dict[str, dict[str, dict[str, RepeatedFigure]]]
"""Figures by model, dataset and name."""


def draw_folders(out: Path, count: int) -> list[Path]:
    """The folder of each draw."""
    return [out / f"draw-{draw}" for draw in range(1, count + 1)]


def check_draws(out: Path, count: int | None, command: str, *, resume: bool, force: bool) -> None:
    """Refuse an OUT that has draws if `count` is None, or a single run if it is not. `RequestError`."""
    has_run, has_draws = bool(read_run(out)["settings"]), STEPS in read_run(out)
    if count is None and has_draws:
        raise RequestError(
            _("{out}: has the draws of --repeat: repeat that option, or choose another --out", out=out)
        )
    if count is not None and has_run:
        raise RequestError(
            _("{out}: has a run without --repeat: leave --repeat out, or choose another --out", out=out)
        )
    for folder in draw_folders(out, count or 0):
        check_folder(folder, command, resume=resume, force=force)


def seeds_of(request: ScoringRequest) -> dict[Path, int]:
    """The folder of each draw, with its seed."""
    first = FIRST_SEED if request.seed is None else request.seed
    return {folder: first + n for n, folder in enumerate(draw_folders(request.out, request.repeat or 1))}


def draws_state(request: ScoringRequest, inputs: Mapping[str, Input], needed: Sequence[str] = ()) -> State:
    """State of all draws together."""
    states = {}
    for folder, seed in seeds_of(request).items():
        states[folder.name] = run_state(request, {**inputs, "--seed": seed}, needed, folder)
    return steps_state(request.out, states)


def score_draws(
    request: ScoringRequest,
    evaluation: Evaluation,
    datasets: Sequence[EvalDataset],
    opened: Opened,
    inputs: Mapping[str, Input],
) -> NextStep:
    """Score each draw, and print and write their mean and spread. The next step is that of the first draw.

    `RequestError` if the model samples nothing: all draws would be the same.
    """
    seeds = seeds_of(request)
    folders = list(seeds)
    next_steps: list[NextStep] = []
    for folder, seed in seeds.items():
        of_draw = replace(request, out=folder, seed=seed)
        plan = plan_scoring(of_draw, evaluation, datasets, opened, {**inputs, "--seed": seed})
        if not plan.opened.backend.sampling.get("temperature"):
            raise RequestError(
                _(
                    "--repeat: the model's generation_config does not sample: all draws would be the "
                    "same; leave --repeat out, or set do_sample and temperature in generation_config.json"
                )
            )
        if not next_steps:
            _begin(request, folders)
        say(_("\n{name}: seed {seed}", name=folder.name, seed=seed))
        with undone_without_predictions(request.out):
            next_steps.append(carry_out(plan))
    repeats: Repeats = {}
    means: dict[str, RepeatedFigure] = {}
    for candidate in opened.candidates:
        model = candidate.name
        repeats[model] = {}
        for dataset in datasets:
            repeats[model][dataset.name] = repeated([folder / model / dataset.name for folder in folders])
        accuracies = [each[ACCURACY.name] for each in repeats[model].values() if ACCURACY.name in each]
        if len(accuracies) > 1:
            means[model] = mean_of_datasets(accuracies)
    table = grid(repeats_table(repeats, means))
    write_json(request.out / REPEATS, {"seeds": list(seeds.values()), "figures": repeats, "mean": means})
    write_text(request.out / TABLE, f"{table}\n")
    say(joined(["", table], "\n"))
    end_run(request.out, names=[REPEATS, TABLE])
    _unused, words = next_steps[0]
    return request.out / TABLE, words


def _begin(request: ScoringRequest, folders: Sequence[Path]) -> None:
    """Mark OUT as the folder of these draws. --force deletes further draws that were there.

    Folders are found by their names, not by those in run.json, which may be anybody's.
    """
    if request.force:
        for folder in sorted(request.out.glob("draw-*")):
            is_draw = DRAW.fullmatch(folder.name) and (folder / RUN).is_file() and not folder.is_symlink()
            if is_draw and folder not in folders:
                shutil.rmtree(folder)
    begin_suite_run(request.out, request.command, [folder.name for folder in folders])


def repeated(folders: Sequence[Path]) -> dict[str, RepeatedFigure]:
    """Accuracy and the other shares of the rows, over the draws in these folders (OUT/DRAW/MODEL/DATASET)."""
    majority = read_record(folders[0] / RESULTS, ResultsRecord).get("majority")
    runs = _read_runs(folders)
    metrics: dict[str, Metric] = {}
    if "accuracy" in runs[0].facts:
        metrics[ACCURACY.name] = ACCURACY
    metrics |= {name: metric for name, metric in runs[0].metrics.items() if metric.unit == SHARE}
    figures = {}
    for name, metric in metrics.items():
        values = [_mean(run, metric).value for run in runs]
        mean = _mean(replace(runs[0], trainings=runs), metric)
        baseline = None
        if metric is ACCURACY and isinstance(majority, float):
            baseline = majority
        figures[name] = _figure(mean, values, baseline)
    return figures


def mean_of_datasets(accuracies: Sequence[RepeatedFigure]) -> RepeatedFigure:
    """The unweighted mean of the accuracies on several datasets, over all draws and in each draw."""
    figures = []
    for each in accuracies:
        low, high = each["ci95"] or (-math.inf, math.inf)
        figures.append(Mean(each["value"], low, high, each["n"], each["stderr"] or math.inf))
    mean = average(figures)
    draws = zip(*(each["values"] for each in accuracies), strict=True)
    return _figure(mean, [fmean(values) for values in draws], None)


def _figure(mean: Mean, values: list[float], majority: float | None) -> RepeatedFigure:
    """A figure from its mean over the draws and its values in each of them."""
    has_interval = math.isfinite(mean.low)
    return RepeatedFigure(
        value=mean.value,
        n=mean.n,
        stderr=mean.stderr if has_interval else None,
        ci95=[mean.low, mean.high] if has_interval else None,
        sd=stdev(values),
        values=values,
        majority=majority,
    )


def _read_runs(folders: Sequence[Path]) -> list[ScoredRun]:
    """The run in each folder, by accuracy or another figure that its rows have."""
    metric = ACCURACY.name
    if "accuracy" not in read_record(folders[0] / RESULTS, ResultsRecord):
        rows = read_lines(folders[0] / PREDICTIONS).values()
        metric = next(iter(measurable(rows)), metric)
    return [read_scored_run(folder, metric) for folder in folders]


def _mean(run: ScoredRun, metric: Metric) -> Mean:
    """Mean of a run over the rows that have the metric."""
    values, groups = [], []
    for place, value in enumerate(run.column(metric.name)):
        if value is not None:
            values.append(float(value))
            groups.append(run.groups[place] if run.groups else str(place))
    return metric_mean(metric, values, groups, [1.0] * len(values))


def repeats_table(repeats: Repeats, means: Mapping[str, RepeatedFigure]) -> Table:
    """Table with a row for each model, dataset and figure, and each dataset's majority-class baseline.

    `means` are the accuracies over all datasets by model.
    """
    rows = []
    majorities: dict[str, RepeatedFigure] = {}
    for model, by_dataset in repeats.items():
        for dataset, figures in by_dataset.items():
            for name, figure in figures.items():
                rows.append(_row(model, dataset, name, figure))
                if figure["majority"] is not None:
                    majorities.setdefault(dataset, figure)
        if model in means:
            rows.append(_row(model, tr("mean"), ACCURACY.name, means[model]))
    for dataset, figure in majorities.items():
        share = percent(figure["majority"] or 0.0)
        baseline = tr("majority-class baseline")
        rows.append([baseline, dataset, ACCURACY.name, str(figure["n"]), share, NONE, NONE])
    header = (
        _("model"),
        _("dataset"),
        _("figure"),
        "n",
        _("mean (95 % interval)"),
        _("standard deviation"),
        _("draws"),
    )
    return Table([tr(column) for column in header], rows)


def _row(model: str, dataset: str, name: str, figure: RepeatedFigure) -> list[str]:
    """Cells of a figure: accuracies in percent, other shares as numbers."""
    is_accuracy = name == ACCURACY.name
    show = percent if is_accuracy else number
    mean = show(figure["value"])
    if figure["ci95"]:
        metric = Metric(SHARE, higher=True, in_percent=is_accuracy)
        mean = metric.interval_text((figure["value"], *figure["ci95"]))
    draws = ", ".join(show(value) for value in figure["values"])
    return [model, dataset, name, str(figure["n"]), mean, show(figure["sd"]), draws]
