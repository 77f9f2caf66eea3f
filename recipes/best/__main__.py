"""tuneyard recipe best OUTPUT_DIR: the checkpoint with the best eval_loss, and whether to train longer.

It plots trainer_state.json. `tuneyard eval compare RESULTS --choose-on half` chooses among scored ones.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import click

from tuneyard.core.cli.main import cli_command, next_step
from tuneyard.core.cli.run import run_command
from tuneyard.core.drawing.plots import picture, plotting
from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, counted, marked, tr
from tuneyard.core.language.messages import print_json, say
from tuneyard.core.training.metrics import Metric, direction, metric_of
from tuneyard.recipes.output_dir.checkpoints import find_flaw
from tuneyard.recipes.output_dir.curve import NotMeasuredError, read_curve


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
