"""tuneyard recipe best OUTPUT_DIR: the checkpoint with the best eval_loss, and whether to train longer.

It plots trainer_state.json. With --results it chooses by scored checkpoints: on one half of the examples, and
the figure to report is that of the other half.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from tuneyard.core.cli.main import cli_command
from tuneyard.core.cli.next_step import next_step
from tuneyard.core.documents.schema_errors import is_number
from tuneyard.core.drawing.plots import picture, plotting
from tuneyard.core.errors import ContentError, RequestError, counted, nearest
from tuneyard.core.files import read_object, require
from tuneyard.core.language.reader_language import ENGLISH, in_language
from tuneyard.core.language.translation import lang_option, tr, tr_counted
from tuneyard.core.training.metrics import ACCURACY, Metric, direction, metric_of
from tuneyard.core.weights.adapter_files import CONFIG as ADAPTER_CONFIG
from tuneyard.recipes.judging import BASE, PLAIN, RESULTS, VERDICT, Judgement, judge, scored_folders
from tuneyard.recipes.output_dir import CHECKPOINT, checkpoints, find_flaw


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
    """The best evaluation of a run: its step and value, its checkpoint on the disk, and the advice.

    `held_out` has the figure on the examples that did not choose, with its 95 % limits.
    """

    metric: str
    step: int
    value: float
    evaluations: int
    checkpoint: str | None
    advice: str
    held_out: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class ChosenCheckpoint:
    """The best evaluation among those of a run: (step, figure) of each, and the verdict on scored ones."""

    curve: list[tuple[int, float]]
    meaning: Metric
    best: Best
    judgement: Judgement | None = None

    def lines(self) -> list[str]:
        """The choice for the terminal: figures, verdict, checkpoint and advice."""
        best = self.best
        summary = "{metric}: {value:.4g} at step {step}, the best of {evaluations}"
        figure = direction(best.metric, self.meaning)
        evaluations = tr_counted(best.evaluations, "evaluation")
        lines = [tr(summary, metric=figure, value=best.value, step=best.step, evaluations=evaluations)]
        if best.held_out is not None:
            values = [best.held_out[name] for name in ("value", "low", "high")]
            text = "on the examples that did not choose it: {figure}, n = {n:,}"
            lines.append(tr(text, figure=self.meaning.interval_text(values), n=int(best.held_out["n"])))
        if self.judgement is not None:
            lines.append(self.judgement.decision)
        checkpoint = best.checkpoint or tr("not on the disk any more (save_total_limit)")
        lines.append(tr("checkpoint: {path}", path=checkpoint))
        lines.append(_advice(self.curve, best.step))
        return lines


@cli_command(
    "best",
    "tuneyard recipe train recipes/demo-rte.yaml max_steps=2 save_steps=1 eval_strategy=steps eval_steps=1 "
    "val_size=16 output_dir=saves/steps",
    "tuneyard recipe best saves/steps",
)
@click.argument("output_dir", type=click.Path(path_type=Path))
@click.option(
    "--metric",
    help="A number to choose by. Default: eval_loss. With --results a figure of each example: accuracy by "
    "default, rougeL, token_f1, eval_loss, …",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Folder of an evaluation of the base and of models named checkpoint-N: choose on half of its "
    "examples, report on the other half.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@lang_option
def command(output_dir: Path, metric: str | None, results: Path | None, as_json: bool) -> None:
    """Name the best checkpoint of the run in OUTPUT_DIR and say whether it overfits or is cut short."""
    require(output_dir, "output_dir of a training")
    if results:
        chosen = choose_by_results(output_dir, results, metric or PLAIN)
    else:
        chosen = choose_by_training(output_dir, metric)
    best = chosen.best
    plot(chosen.curve, best, output_dir / "best.png", chosen.meaning)
    if as_json:
        click.echo(json.dumps(asdict(best), ensure_ascii=False))
        return
    click.echo("\n".join(chosen.lines()))
    click.echo(tr("curve: {path}", path=output_dir / "best.png"))
    weights = Path(best.checkpoint or output_dir)
    if (weights / ADAPTER_CONFIG).is_file():
        next_step(weights, ["tuneyard", "adapter", "show", weights])
    else:
        next_step(weights, ["tuneyard", "eval", "chat", "--model", weights])


def choose_by_training(output_dir: Path, metric: str | None) -> ChosenCheckpoint:
    """Choose by the evaluations of the training itself: `metric`, or eval_loss.

    `NotMeasuredError` if it has no such figure, `RequestError` if the user named the metric.
    """
    name = metric or "eval_loss"
    meaning = metric_of(name)
    try:
        curve = read_curve(output_dir, name)
    except NotMeasuredError as error:
        if metric is not None and error.measured:
            raise error.as_wrong_option() from error
        raise
    return ChosenCheckpoint(curve, meaning, find_best(curve, name, output_dir, meaning))


def choose_by_results(output_dir: Path, results: Path, metric: str) -> ChosenCheckpoint:
    """Choose among scored checkpoints on one half of the examples; the best has the other half's figure."""
    judgement = judge_checkpoints(results, metric, output_dir / VERDICT)
    curve, meaning, held_out = read_choice(judgement.table)
    best = replace(find_best(curve, metric, output_dir, meaning), held_out=held_out)
    return ChosenCheckpoint(curve, meaning, best, judgement)


def read_curve(output_dir: Path, metric: str) -> list[tuple[int, float]]:
    """The (step, value) of every evaluation. `NotMeasuredError` lists the metrics that the run has."""
    require(output_dir, "output_dir of a training")
    states = [folder / "trainer_state.json" for folder in [output_dir, *checkpoints(output_dir)][:2]]
    saved_states = [path for path in states if path.is_file()]
    if not saved_states:
        runs = sorted(path.parent for path in output_dir.glob("*/trainer_state.json"))
        if runs:
            raise RequestError(
                f"{output_dir}: no training of its own, found {counted(len(runs), 'run')} in it; name one: "
                f"tuneyard recipe best {shlex.quote(str(runs[0]))}"
            )
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


def judge_checkpoints(results: Path, metric: str, out: Path) -> Judgement:
    """Choose among the scored checkpoints on half of the examples, by `eval compare` into `out`.

    A checkpoint that lacks a dataset of the others is left out and listed. `RequestError` without two
    checkpoints and the base.
    """
    by_model = scored_folders(require(results, "folder of results"))
    base = by_model.get(BASE, [])
    by_step = {}
    for model, folders in by_model.items():
        name = CHECKPOINT.fullmatch(model)
        if name:
            by_step[int(name[1])] = folders
    if len(by_step) < 2 or not base:
        models = ", ".join(by_model) or "nothing"
        raise RequestError(
            f"{results}: found {models}; expected the base and two models named checkpoint-N or more: score "
            "them without --no-base, each as --adapter checkpoint-N=OUTPUT_DIR/checkpoint-N"
        )
    sets_by_step = {step: _sets(folders) for step, folders in sorted(by_step.items())}
    every_set = set().union(*sets_by_step.values())
    scored: dict[str, Sequence[Path]] = {
        BASE: [folder for name, folder in _sets(base).items() if name in every_set]
    }
    left_out = []
    for step, sets in sets_by_step.items():
        missing = sorted(every_set - sets.keys())
        if missing:
            left_out.append(f"checkpoint-{step} has no results of {', '.join(missing)}")
        else:
            scored[f"checkpoint-{step}"] = list(sets.values())
    if len(scored) < 3:
        raise ContentError(
            f"{results}: only one checkpoint was scored on all datasets: {'; '.join(left_out)}"
        )
    for line in left_out:
        click.echo(f"left out: {line}", err=True)
    title = tr("Checkpoints of {name}", name=out.parent.name)
    return judge(scored, metric, ["--choose-on", "half"], out, title)


def _sets(folders: Sequence[Path]) -> dict[str, Path]:
    """Folder of each dataset. `ContentError` if one was scored twice."""
    by_set: dict[str, Path] = {}
    for folder in folders:
        result = read_object(folder / RESULTS)
        dataset = str(result.get("set", folder.name))
        if dataset in by_set:
            model = result.get("model")
            raise ContentError(
                f"{folder / RESULTS}: {model} was scored twice on {dataset}; keep one of its folders"
            )
        by_set[dataset] = folder
    return by_set


def read_choice(table: Mapping[str, Any]) -> tuple[list[tuple[int, float]], Metric, Mapping[str, float]]:
    """(step, figure) of each checkpoint on the choosing half, the metric, the figure on the other half."""
    choice = table["choice"][-1]
    meaning, key = ACCURACY, PLAIN
    if choice["metric"] != PLAIN:
        meaning = Metric(str(table["unit"]), table["higher_is_better"] is True, choice["metric"])
        key = "figure"
    curve = []
    for model, scores in choice["choosing"]["models"].items():
        name = CHECKPOINT.fullmatch(model)
        if name:
            curve.append((int(name[1]), float(scores[key]["value"])))
    return sorted(curve), meaning, choice["held_out"]["models"][choice["model"]][key]


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
    if curve[-1][1] == dict(curve)[step]:
        return tr("the last evaluation is equal to the best: this figure shows no overfitting, eval_loss may")
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
