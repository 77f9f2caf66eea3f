"""Report of a sweep: scores on both halves of each dataset, the choice on one half, and a plot.

The plot is a heat map over two weights, or a curve over one weight or the steps of a run.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tuneyard.core.documents import json_lines
from tuneyard.core.drawing import COLOURS, legend_below, plot, plotting
from tuneyard.core.errors import ContentError
from tuneyard.core.files import write_json, write_text
from tuneyard.core.language import tr, tr_counted
from tuneyard.core.metrics import Metric, metric_of
from tuneyard.core.number_format import Table, grid, interval, percent
from tuneyard.eval.judge.compared import BASE
from tuneyard.eval.metrics import find_metric
from tuneyard.eval.read.results import PREDICTIONS, TABLE
from tuneyard.eval.read.sweeps import SWEEP
from tuneyard.eval.statistics.rates import Rows, groups_of, hits, rate_of
from tuneyard.eval.statistics.selection import Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEAN = "all sets"
ACCURACY = "accuracy"
STEP = "step"  # the axis of a run's checkpoints


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of `n` rows with its 95 % interval, and their majority-class baseline (a share).

    `value` is the metric of the choice with its interval, None if the choice is by accuracy.
    """

    accuracy: float
    low: float
    high: float
    n: int
    majority: float
    value: float | None = None
    value_ci95: Sequence[float] | None = None


Halves = tuple[Score, Score]  # of the rows to choose on, and of those to report


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep's folder, the names of its axes, each model's point on them, and each dataset's halves.

    `metric` decides the choice: accuracy, or a metric of examples.
    """

    out: Path
    axes: Sequence[str]
    points: Mapping[str, tuple[float, ...]]
    splits: Mapping[str, Split]
    metric: str = ACCURACY


def plot_name(dataset: str) -> str:
    """File name of a dataset's plot."""
    return f"{dataset}.png"


def report(sweep: Sweep) -> tuple[str, str]:
    """Write sweep.json, table.md and a plot for each dataset; return the table, and the model to ship."""
    halves: dict[str, dict[str, Halves]] = {}
    for dataset in sweep.splits:
        halves[dataset] = {model: _read(sweep, model, dataset) for model in sweep.points}
    chosen = _choices(sweep, halves)
    ship = list(chosen.values())[-1]
    for dataset, models in halves.items():
        scores = {point: models[model][0] for model, point in sweep.points.items()}
        best = chosen[dataset]
        plotted = SweepPlot(
            dataset, sweep.axes, scores, sweep.points[best], sweep.points[ship], reported=models[best][1]
        )
        draw(plotted, sweep.out / plot_name(dataset))
    text = f"{_choosing(halves, chosen)}\n\n{_reporting(halves, chosen)}"
    write_text(sweep.out / TABLE, text + "\n")
    write_json(sweep.out / SWEEP, _json(sweep, halves, chosen, ship))
    return text, ship


def _choices(sweep: Sweep, halves: Mapping[str, Mapping[str, Halves]]) -> dict[str, str]:
    """The best model of each dataset, and of the mean of several, by the scores on the choosing half."""
    values: dict[str, dict[str, float]] = {}
    for dataset, models in halves.items():
        values[dataset] = {}
        for model, (score, _) in models.items():
            value = score.value
            if value is None:
                value = score.accuracy
            values[dataset][model] = value
    if len(values) > 1:
        values[MEAN] = {m: fmean(by_model[m] for by_model in values.values()) for m in sweep.points}
    metric = metric_of(ACCURACY)
    if sweep.metric != ACCURACY:
        metric = find_metric(sweep.metric).meaning
    return {name: choose(by_model, metric) for name, by_model in values.items()}


def _json(
    sweep: Sweep, halves: Mapping[str, Mapping[str, Halves]], chosen: Mapping[str, str], ship: str
) -> dict[str, object]:
    """The document of sweep.json."""
    scores: dict[str, dict[str, object]] = {}
    for dataset, models in halves.items():
        scores[dataset] = {}
        for model, (choosing, reporting) in models.items():
            scores[dataset][model] = {"choose": asdict(choosing), "report": asdict(reporting)}
    return {
        "axes": list(sweep.axes),
        "metric": sweep.metric,
        "points": {model: list(point) for model, point in sweep.points.items()},
        "chosen": chosen,
        "ship": ship,
        "sets": scores,
        "rows_to_choose_on": {dataset: choosing for dataset, (choosing, _) in sweep.splits.items()},
    }


def choose(scores: Mapping[str, float], metric: Metric) -> str:
    """Name of the best score by the metric's direction, the first of equal scores."""
    return min(scores, key=lambda name: metric.rank(scores[name]))


def _read(sweep: Sweep, model: str, name: str) -> Halves:
    """A model's scores on both halves of a dataset; `ContentError` if no row has the metric's fields."""
    rows = [row for _, row in json_lines(sweep.out / model / name / PREDICTIONS)]
    choosing, reporting = sweep.splits[name]
    first = _score([rows[row] for row in choosing], sweep.metric)
    second = _score([rows[row] for row in reporting], sweep.metric)
    return first, second


def _score(rows: Rows, name: str) -> Score:
    """Score some rows; the majority is that of these rows, as `eval.compare` computes it."""
    accuracy = rate_of(hits(rows), groups_of(rows))
    most_common = max(Counter(row["expected_output"] for row in rows).values())
    score = Score(accuracy.value, accuracy.low, accuracy.high, accuracy.n, most_common / accuracy.n)
    if name == ACCURACY:
        return score
    metric = find_metric(name)
    figure: Mapping[str, Any] | None = metric.of(rows)
    if figure is None:
        raise ContentError(f"--metric {name}: no prediction holds {' and '.join(metric.needs)}")
    return replace(score, value=figure["value"], value_ci95=figure["ci95"])


def _choosing(halves: Mapping[str, Mapping[str, Halves]], chosen: Mapping[str, str]) -> str:
    """Table of every model's score on the choosing half; an arrow marks the best."""
    columns = [[tr("chosen on"), *next(iter(halves.values()))]]
    for dataset, models in halves.items():
        column = [f"{dataset}, n = {_any(models)[0].n}"]
        for model, (score, _) in models.items():
            cell = _score_cell(score)
            if model == chosen[dataset]:
                cell += " ←"
            column.append(cell)
        columns.append(column)
    header, *rows = zip(*columns, strict=True)
    return grid(Table(header, rows))


def _reporting(halves: Mapping[str, Mapping[str, Halves]], chosen: Mapping[str, str]) -> str:
    """Table of the chosen models' scores on the held-out half, with the base and the majority class."""
    model_by_label = {}
    for name, model in chosen.items():
        where = name
        if name == MEAN:
            where = tr(MEAN)
        model_by_label[tr("best on {name}: {model}", name=where, model=model)] = model
    if BASE in next(iter(halves.values())):
        model_by_label[BASE] = BASE
    rows = []
    for label, model in model_by_label.items():
        rows.append([label, *(_score_cell(models[model][1]) for models in halves.values())])
    header, majorities = [tr("reported on")], [tr("majority-class baseline")]
    for dataset, models in halves.items():
        held_out = _any(models)[1]
        header.append(f"{dataset}, n = {held_out.n}")
        majorities.append(percent(held_out.majority))
    return grid(Table(header, [*rows, majorities]))


def _any(models: Mapping[str, Halves]) -> Halves:
    """The scores of one model; number of rows and majority are the same for all models."""
    return next(iter(models.values()))


def _score_cell(score: Score) -> str:
    accuracy = interval((score.accuracy, score.low, score.high))
    if score.value is None:
        return accuracy
    return tr("{value}, accuracy {accuracy}", value=f"{score.value:.4g}", accuracy=accuracy)


Point = tuple[float, ...]
DRAWN = "accuracy on the half that was chosen on, %"


@dataclass(frozen=True, slots=True)
class SweepPlot:
    """Data of a dataset's plot: the `scores` of every point on the choosing half.

    `chosen` is the best point of this dataset, `ship` that of all datasets. `reported` is the score of
    `chosen` on the held-out half, for the title.
    """

    name: str
    axes: Sequence[str]
    scores: Mapping[Point, Score]
    chosen: Point
    ship: Point
    reported: Score

    @property
    def title(self) -> str:
        """Two lines: the chosen point on the choosing half, which is drawn, then on the held-out half."""
        drawn, held_out = self.scores[self.chosen], self.reported
        coordinates = []
        for axis, value in zip(self.axes, self.chosen, strict=True):
            label = axis
            if axis == STEP:
                label = tr(STEP)
            coordinates.append(f"{label}={value:g}")
        first = tr(
            "{name}, chosen on (drawn): {share} of {examples} at {point}",
            name=self.name,
            share=percent(drawn.accuracy),
            point=tr(", ").join(coordinates),
            examples=tr_counted(drawn.n, "example"),
        )
        equal = sum(score.accuracy == drawn.accuracy for score in self.scores.values()) - 1
        if equal:
            first += tr(" (ties: {count})", count=equal)
        share = interval((held_out.accuracy, held_out.low, held_out.high))
        examples = tr_counted(held_out.n, "example")
        second = tr("Held out (the figure to report): {share} of {examples}", share=share, examples=examples)
        return f"{first}\n{second}"


def draw(sweep: SweepPlot, path: Path) -> None:
    """Write the plot of a dataset: two axes as a heat map, one as a curve with its 95 % band."""
    height = 4.4
    if len(sweep.axes) == 2:
        height = 5.4
    with plotting(), plot(sweep.title, (7.0, height), path) as axes:
        if len(sweep.axes) == 2:
            _heat(sweep, axes)
        else:
            _curve(sweep, axes)


def _heat(sweep: SweepPlot, axes: "Axes") -> None:
    """Draw the first axis upwards and the second to the right, each cell with its interval."""
    from matplotlib.patches import Rectangle

    ups = sorted({up for up, _ in sweep.scores})
    rights = sorted({right for _, right in sweep.scores})
    shares = [[float("nan")] * len(rights) for _ in ups]
    for (up, right), score in sweep.scores.items():
        shares[ups.index(up)][rights.index(right)] = 100 * score.accuracy
    image = axes.imshow(shares, origin="lower", cmap="cividis", aspect="auto")
    accuracies = [score.accuracy for score in sweep.scores.values()]
    middle = (min(accuracies) + max(accuracies)) / 2
    for (up, right), score in sweep.scores.items():
        text = f"{100 * score.accuracy:.1f}\n{100 * score.low:.0f}–{100 * score.high:.0f}"
        colour = "black"
        if score.accuracy < middle:  # a dark cell
            colour = "white"
        x, y = rights.index(right), ups.index(up)
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)
    marks = (
        ("best on this set", sweep.chosen, "solid", COLOURS[6]),
        ("best on all sets", sweep.ship, "dotted", "black"),
    )
    for label, (up, right), style, colour in marks:
        corner = (rights.index(right) - 0.47, ups.index(up) - 0.47)
        look: dict[str, Any] = {"fill": False, "edgecolor": colour, "linestyle": style, "linewidth": 2.5}
        axes.add_patch(Rectangle(corner, 0.94, 0.94, label=tr(label), **look))
    legend_below(axes, 2)
    axes.set_xticks(range(len(rights)), [f"{value:g}" for value in rights])
    axes.set_yticks(range(len(ups)), [f"{value:g}" for value in ups])
    axes.set(
        xlabel=tr("weight of {name}", name=sweep.axes[1]), ylabel=tr("weight of {name}", name=sweep.axes[0])
    )
    axes.figure.colorbar(image, ax=axes, label=tr("{what} (its 95 % interval)", what=tr(DRAWN)))


def _curve(sweep: SweepPlot, axes: "Axes") -> None:
    (name,) = sweep.axes
    ordered = sorted(sweep.scores.items())
    places, accuracies, lows, highs = [], [], [], []
    for point, score in ordered:
        places.append(point[0])
        accuracies.append(100 * score.accuracy)
        lows.append(100 * score.low)
        highs.append(100 * score.high)
    axes.fill_between(places, lows, highs, color=COLOURS[1], alpha=0.2, label=tr("95 % interval"))
    axes.plot(places, accuracies, color=COLOURS[1], marker="o")
    majority = 100 * ordered[0][1].majority
    axes.axhline(
        majority, color="black", linestyle="dashed", linewidth=1.2, label=tr("majority-class baseline")
    )
    best = sweep.scores[sweep.chosen]
    at = ([sweep.chosen[0]], [100 * best.accuracy])
    axes.scatter(
        *at, s=170, facecolors="none", edgecolors=COLOURS[6], linewidths=2, label=tr("chosen"), zorder=3
    )
    label = tr("weight of {name}", name=name)
    if name == STEP:
        label = tr(STEP)
    axes.set(xlabel=label, ylabel=tr(DRAWN))
    legend_below(axes, 3)
