"""tuneyard recipe best OUTPUT_DIR: the checkpoint with the best eval_loss, and whether to train longer.

It plots trainer_state.json. `tuneyard eval compare RESULTS --choose-on half` chooses among scored ones.
"""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from tuneyard.core.cli.main import cli_command, next_step
from tuneyard.core.cli.run import run_command
from tuneyard.core.documents import is_number
from tuneyard.core.drawing.plots import picture, plotting
from tuneyard.core.errors import ContentError, RequestError, nearest
from tuneyard.core.files import read_object, require
from tuneyard.core.language.message import _, counted, joined, marked, tr
from tuneyard.core.language.messages import print_json, say
from tuneyard.core.training.metrics import Metric, direction, metric_of
from tuneyard.recipes.output_dir import checkpoints, find_flaw


class DivergedError(ContentError):
    """A metric was measured and was never a finite number."""


class NotMeasuredError(ContentError):
    """No evaluation has the metric."""


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
@click.argument("output_dir", type=click.Path(path_type=Path, file_okay=False))
@click.option("--metric", help="A number to choose by. Default: eval_loss.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(output_dir: Path, metric: str | None, as_json: bool) -> None:
    """Name the best checkpoint of the run in OUTPUT_DIR and say whether it overfits or is cut short."""
    from tuneyard.recipes.output_dir.after_training import after_best

    name = metric or "eval_loss"
    try:
        curve = read_curve(output_dir, name)
    except NotMeasuredError as error:
        if metric is None:
            raise
        raise RequestError(_("--metric {metric}: {error}", metric=metric, error=error)) from error
    meaning = metric_of(name)
    best = find_best(curve, name, output_dir, meaning)
    plot(curve, best, output_dir / "best.png", meaning)
    if as_json:
        print_json(asdict(best))
        return
    summary = marked("{metric}: {value:.4g} at step {step}, the best of {evaluations}")
    figure = direction(name, meaning)
    evaluations = counted(best.evaluations, "evaluation", "evaluations")
    say(_(summary, metric=figure, value=best.value, step=best.step, evaluations=evaluations))
    checkpoint = best.checkpoint or _("not on the disk any more (save_total_limit)")
    say(_("checkpoint: {path}", path=checkpoint))
    say(best.advice)
    say(_("curve: {path}", path=output_dir / "best.png"))
    weights = Path(best.checkpoint or output_dir)
    next_step(weights, after_best(output_dir, weights))


def read_curve(output_dir: Path, metric: str) -> list[tuple[int, float]]:
    """The (step, value) of every evaluation. `NotMeasuredError` lists the metrics that the run has."""
    require(output_dir, _("folder of a training (as saves/NAME)"))
    states = [folder / "trainer_state.json" for folder in [output_dir, *checkpoints(output_dir)][:2]]
    saved_states = [path for path in states if path.is_file()]
    if not saved_states:
        runs = sorted(path.parent for path in output_dir.glob("[!.]*/trainer_state.json"))
        if runs:
            raise RequestError(
                _(
                    "{path}: no training of its own, found {runs} in it; name one: tuneyard recipe best "
                    "{folder}",
                    path=output_dir,
                    runs=counted(len(runs), "run", "runs"),
                    folder=shlex.quote(str(runs[0])),
                )
            )
        raise RequestError(
            _(
                "{path}: no trainer_state.json: no training has saved here yet: go on with it "
                "(tuneyard recipe train), or name another",
                path=output_dir,
            )
        )
    state = saved_states[0]
    history = read_object(state).get("log_history")
    rows = [row for row in history if isinstance(row, dict)] if isinstance(history, list) else []
    curve = {}
    for row in rows:
        step, value = row.get("step"), row.get(metric)
        if is_number(step) and is_number(value):
            curve[int(step)] = float(value)
    if curve:
        return sorted(curve.items())
    if any(metric in row for row in rows):
        raise DivergedError(
            _(
                "{path}: {metric} was never a finite number: it diverged, try a smaller learning_rate",
                path=state,
                metric=metric,
            )
        )
    measured: set[str] = set()
    for row in rows:
        measured.update(key for key in row if is_number(row[key]))
    measured -= {"step", "epoch"}
    hint = nearest(metric, measured) or _("name one of these: --metric")
    if not any(name.startswith("eval_") for name in measured):
        hint = _(
            "the recipe has no eval_strategy; write `eval_strategy: steps`, `eval_steps` and "
            "`val_size: 0.1` (for accuracy also `compute_accuracy: true`), and train again"
        )
    names: str = _("nothing")
    if measured:
        names = joined(sorted(measured))
    raise NotMeasuredError(
        _("{path}: no {metric}; found {names}; {hint}", path=state, metric=metric, names=names, hint=hint)
    )


def find_best(curve: list[tuple[int, float]], metric: str, output_dir: Path, meaning: Metric) -> Best:
    """Best point of a curve, its checkpoint (None unless complete), and an advice from its place."""
    step, value = min(curve, key=lambda point: (meaning.rank(point[1]), point[0]))  # of equals the earlier
    folder = output_dir / f"checkpoint-{step}"
    is_complete = folder.is_dir() and not find_flaw(folder)
    return Best(metric, step, value, len(curve), str(folder) if is_complete else None, _advice(curve, step))


def _advice(curve: list[tuple[int, float]], step: int) -> str:
    if len(curve) == 1:
        return _("only one evaluation: nothing to compare with; a smaller eval_steps shows the course")
    if step == curve[-1][0]:
        return _("the best is the last: it was still getting better, train longer")
    if curve[-1][1] == dict(curve)[step]:
        return _("the last evaluation is equal to the best: this figure shows no overfitting, eval_loss may")
    if step == curve[0][0]:
        return _(
            "the best is the first: it overfits from the start; fewer epochs, a smaller learning rate or rank"
        )
    after = sum(other > step for other, _value in curve)
    evaluations = counted(after, "evaluation", "evaluations")
    return _(
        "it got no better in the {evaluations} that followed: later checkpoints overfit",
        evaluations=evaluations,
    )


def plot(curve: list[tuple[int, float]], best: Best, path: Path, meaning: Metric) -> None:
    """Draw the curve with its best point marked, as PNG."""
    with plotting(), picture((6.4, 4), path) as figure:
        axes = figure.subplots()
        axes.plot(*zip(*curve, strict=True), marker="o", color="C0")
        axes.plot([best.step], [best.value], marker="*", markersize=16, color="C5", linestyle="none")
        text = marked("Best at step {step}: {metric} {value:.4g}")
        title = tr(text, step=best.step, metric=best.metric, value=best.value)
        axes.set_title(title)
        axes.locator_params(axis="x", integer=True)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.set(xlabel=tr("step"), ylabel=direction(best.metric, meaning))


if __name__ == "__main__":
    run_command(command)
