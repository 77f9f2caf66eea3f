"""tuneyard recipe best OUTPUT_DIR: the checkpoint with the best eval_loss, and whether to train longer.

It plots trainer_state.json, or with --results the results of an evaluation of the checkpoints.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from tuneyard.core.adapter_files import CONFIG as ADAPTER_CONFIG
from tuneyard.core.cli import cli_command
from tuneyard.core.drawing import picture, plotting
from tuneyard.core.errors import ContentError, RequestError, nearest
from tuneyard.core.files import read_object, require
from tuneyard.core.language import lang_option, tr, tr_counted
from tuneyard.core.metrics import Metric, direction, metric_of, read_metric
from tuneyard.core.next_step import next_step
from tuneyard.core.reader_language import ENGLISH, in_language
from tuneyard.core.schema_errors import is_number
from tuneyard.recipes.output_dir import CHECKPOINT, checkpoints, find_flaw

COUNTS = ("n", "too_long", "seconds")  # numbers of a results.json that say nothing of quality


class DivergedError(ContentError):
    """A metric was measured and was never a finite number."""


class NotMeasuredError(ContentError):
    """No evaluation has the metric; `measured` are the numbers that there are."""

    def __init__(self, place: Path, metric: str, measured: Sequence[str], hint: str) -> None:
        super().__init__(f"{place}: no {metric}; found {', '.join(measured) or 'nothing'}; {hint}")
        self.place, self.metric, self.measured = place, metric, measured

    def as_wrong_option(self) -> RequestError:
        """The same as the error of an explicit --metric, with the nearest name."""
        numbers = f"found {', '.join(self.measured)}"
        hint = nearest(self.metric, self.measured) or "name one of these, or leave --metric out"
        return RequestError(f"--metric {self.metric}: {self.place} has no such number; {numbers}; {hint}")


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation of a run: its step and value, its checkpoint on the disk, and the advice."""

    metric: str
    step: int
    value: float
    evaluations: int
    checkpoint: str | None
    advice: str


@cli_command(
    "best",
    "tuneyard recipe train recipes/demo-rte.yaml max_steps=2 save_steps=1 eval_strategy=steps eval_steps=1 "
    "val_size=16 output_dir=saves/steps",
    "tuneyard recipe best saves/steps",
)
@click.argument("output_dir", type=click.Path(path_type=Path))
@click.option("--metric", help="A number to choose by: eval_loss, or accuracy with --results.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Folder of an evaluation with models named checkpoint-N: choose by their results.json.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@lang_option
def command(output_dir: Path, metric: str | None, results: Path | None, as_json: bool) -> None:
    """Name the best checkpoint of the run in OUTPUT_DIR and say whether it overfits or is cut short."""
    is_explicit = metric is not None
    if metric is None:
        metric = "accuracy" if results else "eval_loss"
    try:
        if results:
            curve, meaning = read_scores(results, metric)
        else:
            curve, meaning = read_curve(output_dir, metric), metric_of(metric)
    except NotMeasuredError as error:
        if is_explicit and error.measured:
            raise error.as_wrong_option() from error
        raise
    best = find_best(curve, metric, output_dir, meaning)
    plot(curve, best, output_dir / "best.png", meaning)
    if as_json:
        click.echo(json.dumps(asdict(best), ensure_ascii=False))
        return
    summary = "{metric}: {value:.4g} at step {step}, the best of {evaluations}"
    figure = direction(metric, meaning)
    evaluations = tr_counted(best.evaluations, "evaluation")
    click.echo(tr(summary, metric=figure, value=best.value, step=best.step, evaluations=evaluations))
    checkpoint = best.checkpoint or tr("not on the disk any more (save_total_limit)")
    click.echo(tr("checkpoint: {path}", path=checkpoint))
    click.echo(_advice(curve, best.step))
    click.echo(tr("curve: {path}", path=output_dir / "best.png"))
    weights = Path(best.checkpoint or output_dir)
    if (weights / ADAPTER_CONFIG).is_file():
        command = ["tuneyard", "adapter", "show", weights]
    else:
        command = ["tuneyard", "eval", "chat", "--model", weights]
    next_step(weights, command)


def read_curve(output_dir: Path, metric: str) -> list[tuple[int, float]]:
    """The (step, value) of every evaluation. `NotMeasuredError` lists the metrics that the run has."""
    require(output_dir, "output_dir of a training")
    states = [folder / "trainer_state.json" for folder in [output_dir, *checkpoints(output_dir)][:2]]
    saved_states = [path for path in states if path.is_file()]
    if not saved_states:
        raise RequestError(f"{output_dir}: no trainer_state.json: no training has saved here yet")
    state = saved_states[0]
    history = read_object(state).get("log_history")
    rows = [row for row in history if isinstance(row, dict)] if isinstance(history, list) else []
    points = [(row.get("step"), row.get(metric)) for row in rows]
    curve = {int(step): float(value) for step, value in points if is_number(step) and is_number(value)}
    if curve:
        return sorted(curve.items())
    if any(metric in row for row in rows):
        raise DivergedError(
            f"{state}: {metric} was never a finite number: it diverged, try a smaller learning_rate"
        )
    measured: set[str] = set()
    for row in rows:
        measured.update(key for key in row if is_number(row[key]))
    measured -= {"step", "epoch"}
    hint = "choose one with --metric"
    if "eval_loss" not in measured:
        hint = "the recipe has no eval_strategy"
    raise NotMeasuredError(state, metric, sorted(measured), hint)


def read_scores(results: Path, metric: str) -> tuple[list[tuple[int, float]], Metric]:
    """Read (step, mean over the datasets) of every scored checkpoint, and the meaning of the metric.

    A checkpoint that lacks a dataset of the others is left out and listed. `NotMeasuredError` without any.
    """
    scores_by_step: dict[int, dict[str, float]] = defaultdict(dict)
    meaning = metric_of(metric)
    measured: set[str] = set()
    for path in sorted(require(results, "folder of results").rglob("results.json")):
        result = read_object(path)
        name = CHECKPOINT.fullmatch(str(result.get("model")))
        value, meaning_here = read_metric(result, metric)
        if not name:
            continue
        if not is_number(value):
            measured.update(_figures(result))
            continue
        meaning = meaning_here
        scores = scores_by_step[int(name[1])]
        dataset = str(result.get("set", path.parent.name))
        if "n" in result:
            dataset += f" ({result['n']} rows)"
        if dataset in scores:
            raise ContentError(f"{path}: {name[0]} was scored twice on {dataset}; keep one of its folders")
        scores[dataset] = float(value)
    if not scores_by_step:
        hint = "score the checkpoints, each as a model named checkpoint-N"
        raise NotMeasuredError(results, metric, sorted(measured), hint)
    datasets = set().union(*scores_by_step.values())
    curve, left_out = [], []
    for step, scores in sorted(scores_by_step.items()):
        missing = sorted(datasets - scores.keys())
        if missing:
            left_out.append(f"checkpoint-{step} has no {metric} of {', '.join(missing)}")
        else:
            curve.append((step, statistics.fmean(scores.values())))
    if not curve:
        raise ContentError(f"{results}: no checkpoint was scored on all datasets: {'; '.join(left_out)}")
    for line in left_out:
        click.echo(f"left out: {line}", err=True)
    return curve, meaning


def _figures(result: dict[str, object]) -> list[str]:
    """Names of the figures in a results.json, also those of its `metrics`."""
    declared = result.get("metrics")
    names = list(declared) if isinstance(declared, dict) else []
    names += [key for key, value in result.items() if is_number(value) and key not in COUNTS]
    return names


def find_best(curve: list[tuple[int, float]], metric: str, output_dir: Path, meaning: Metric) -> Best:
    """Best point of a curve, its checkpoint (None unless complete), and an advice from its place."""
    step, value = min(curve, key=lambda point: (meaning.rank(point[1]), point[0]))  # of equals the earlier
    folder = output_dir / f"checkpoint-{step}"
    is_complete = folder.is_dir() and not find_flaw(folder)
    with in_language(ENGLISH):  # programs read the same JSON in every language
        advice = _advice(curve, step)
    return Best(metric, step, value, len(curve), str(folder) if is_complete else None, advice)


def _advice(curve: list[tuple[int, float]], step: int) -> str:
    if len(curve) == 1:
        return tr("only one evaluation: nothing to compare with; a smaller eval_steps shows the course")
    if step == curve[-1][0]:
        return tr("the best is the last: it was still getting better, train longer")
    if step == curve[0][0]:
        return tr(
            "the best is the first: it overfits from the start; fewer epochs, a smaller learning rate or rank"
        )
    after = sum(other > step for other, _ in curve)
    evaluations = tr_counted(after, "evaluation")
    return tr(
        "it got no better in the {evaluations} that followed: later checkpoints overfit",
        evaluations=evaluations,
    )


def plot(curve: list[tuple[int, float]], best: Best, path: Path, meaning: Metric) -> None:
    """Draw the curve with its best point marked, as PNG."""
    with plotting(), picture((6.4, 4), path) as figure:
        axes = figure.subplots()
        axes.plot(*zip(*curve, strict=True), marker="o", color="C0")
        axes.plot([best.step], [best.value], marker="*", markersize=16, color="C5", linestyle="none")
        text = "Best at step {step}: {metric} {value:.4g}"
        title = tr(text, step=best.step, metric=best.metric, value=best.value)
        axes.set_title(title)
        axes.set(xlabel=tr("step"), ylabel=direction(best.metric, meaning))
