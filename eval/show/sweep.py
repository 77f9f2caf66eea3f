"""From a sweep's predictions to its choice, on one half of each set, reported on the other; and its picture:
a heat map over two weights, or a curve over one weight or the steps of a run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tuneyard.core.documents import json_lines
from tuneyard.core.drawing import COLOURS, legend_below, plot, plot_texts
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
    """Accuracy of some rows with its 95 % interval, their number, and their baseline (a share); `value` is
    the metric that is chosen by, with its interval, None for the accuracy itself."""

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
    """A sweep's folder, the names of its axes, where each model stands on them, each set's halves, and what
    the choice is made by: accuracy, or a metric of examples."""

    out: Path
    axes: Sequence[str]
    points: Mapping[str, tuple[float, ...]]
    splits: Mapping[str, Split]
    metric: str = ACCURACY


def plot_name(dataset: str) -> str:
    """Return the file name of a dataset's plot."""
    return f"{dataset}.png"


def report(sweep: Sweep) -> tuple[str, str]:
    """Write sweep.json, table.md and a plot for each set; return the table, and the model to ship."""
    found = {name: {model: _read(sweep, model, name) for model in sweep.points} for name in sweep.splits}
    values = {
        name: {model: one.accuracy if one.value is None else one.value for model, (one, _) in models.items()}
        for name, models in found.items()
    }
    if len(found) > 1:
        values[MEAN] = {m: fmean(own[m] for own in values.values()) for m in sweep.points}
    meaning = metric_of(ACCURACY) if sweep.metric == ACCURACY else find_metric(sweep.metric).meaning
    chosen = {name: choose(own, meaning) for name, own in values.items()}
    ship = [*chosen.values()][-1]
    for name, models in found.items():
        scores = {point: models[model][0] for model, point in sweep.points.items()}
        best = chosen[name]
        plotted = SweepPlot(
            name, sweep.axes, scores, sweep.points[best], sweep.points[ship], reported=models[best][1]
        )
        draw(plotted, sweep.out / plot_name(name))
    text = f"{_choosing(found, chosen)}\n\n{_reporting(found, chosen)}"
    write_text(sweep.out / TABLE, text + "\n")
    told = {
        "axes": list(sweep.axes),
        "metric": sweep.metric,
        "points": {model: list(point) for model, point in sweep.points.items()},
        "chosen": chosen,
        "ship": ship,
        "sets": {
            name: {
                model: dict(zip(("choose", "report"), map(asdict, halves), strict=True))
                for model, halves in models.items()
            }
            for name, models in found.items()
        },
        "rows_to_choose_on": {name: first for name, (first, _) in sweep.splits.items()},
    }
    write_json(sweep.out / SWEEP, told)
    return text, ship


def choose(scores: Mapping[str, float], metric: Metric) -> str:
    """Return the name of the best score by the metric's direction; of equals the first."""
    return min(scores, key=lambda name: metric.rank(scores[name]))


def _read(sweep: Sweep, model: str, name: str) -> Halves:
    """Return a model's scores on both halves of a set; `ContentError` where no row holds what the metric
    needs."""
    rows = [row for _, row in json_lines(sweep.out / model / name / PREDICTIONS)]
    first, second = (_score([rows[row] for row in half], sweep.metric) for half in sweep.splits[name])
    return first, second


def _score(rows: Rows, name: str) -> Score:
    """How some rows were answered; the majority is theirs alone, as `eval.compare` judges them."""
    found = rate_of(hits(rows), groups_of(rows))
    commonest = max(Counter(row["expected_output"] for row in rows).values())
    scored = Score(found.value, *found.ci95, found.n, commonest / found.n)
    if name == ACCURACY:
        return scored
    metric = find_metric(name)
    figure: Mapping[str, Any] | None = metric.of(rows)
    if figure is None:
        raise ContentError(f"--metric {name}: no prediction holds {' and '.join(metric.needs)}")
    return replace(scored, value=figure["value"], value_ci95=figure["ci95"])


def _choosing(found: Mapping[str, Mapping[str, Halves]], chosen: Mapping[str, str]) -> str:
    """Return every model's accuracy on the half that was chosen on, the best marked."""
    columns = [[tr("chosen on"), *next(iter(found.values()))]]
    for name, models in found.items():
        cells = [_shown(first) + " ←" * (chosen[name] == model) for model, (first, _) in models.items()]
        columns.append([f"{name}, n = {_any(models)[0].n}", *cells])
    header, *rows = zip(*columns, strict=True)
    return grid(Table(header, rows))


def _reporting(found: Mapping[str, Mapping[str, Halves]], chosen: Mapping[str, str]) -> str:
    """Return the chosen models' accuracy on the other half, beside the base and the majority class there."""
    named = {}
    for name, model in chosen.items():
        where = tr(MEAN) if name == MEAN else name
        named[tr("best on {name}: {model}", name=where, model=model)] = model
    named |= {BASE: BASE} if BASE in next(iter(found.values())) else {}
    rows = [[told, *(_shown(models[model][1]) for models in found.values())] for told, model in named.items()]
    majorities = (percent(_any(models)[1].majority) for models in found.values())
    header = [tr("reported on"), *(f"{name}, n = {_any(models)[1].n}" for name, models in found.items())]
    return grid(Table(header, [*rows, [tr("majority-class baseline"), *majorities]]))


def _any(models: Mapping[str, Halves]) -> Halves:
    return next(iter(models.values()))


def _shown(found: Score) -> str:
    accuracy = interval((found.accuracy, found.low, found.high))
    if found.value is None:
        return accuracy
    return tr("{value}, accuracy {accuracy}", value=f"{found.value:.4g}", accuracy=accuracy)


Point = tuple[float, ...]
DRAWN = "accuracy on the half that was chosen on, %"


@dataclass(frozen=True, slots=True)
class SweepPlot:
    """What is drawn of a dataset: `scores` of every point on the half that was chosen on.

    `chosen` is the best point of this dataset, `ship` that of all datasets; `reported` is the score of
    `chosen` on the held-out half, which is not drawn.
    """

    name: str
    axes: Sequence[str]
    scores: Mapping[Point, Score]
    chosen: Point
    ship: Point
    reported: Score

    @property
    def title(self) -> str:
        """Two lines: the chosen point on the half that is drawn, then on the held-out half."""
        drawn, held_out = self.scores[self.chosen], self.reported
        axes = [tr(STEP) if axis == STEP else axis for axis in self.axes]
        point = tr(", ").join(f"{axis}={value:g}" for axis, value in zip(axes, self.chosen, strict=True))
        first = tr(
            "{name}, chosen on (drawn): {share} of {examples} at {point}",
            name=self.name,
            share=percent(drawn.accuracy),
            point=point,
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
    with plot_texts([sweep.name, *sweep.axes]) as typeface:
        names = [typeface.show(name) for name in sweep.axes]
        with plot(sweep.title, (7.0, 5.4 if len(names) == 2 else 4.4), path, typeface) as axes:
            if len(names) == 2:
                _heat(sweep, axes, names)
            else:
                _curve(sweep, axes, names[0])


def _heat(sweep: SweepPlot, axes: "Axes", names: Sequence[str]) -> None:
    """Draw the first axis upwards and the second to the right, each cell with its interval."""
    from matplotlib.patches import Rectangle

    ups, rights = (sorted({point[i] for point in sweep.scores}) for i in (0, 1))
    shares = [
        [100 * f.accuracy if (f := sweep.scores.get((up, right))) else float("nan") for right in rights]
        for up in ups
    ]
    middle = sum(edge(f.accuracy for f in sweep.scores.values()) for edge in (min, max)) / 2
    image = axes.imshow(shares, origin="lower", cmap="cividis", aspect="auto")
    for (up, right), found in sweep.scores.items():
        at = (rights.index(right), ups.index(up))
        low, high = (100 * limit for limit in (found.low, found.high))
        dark = found.accuracy < middle
        text = f"{100 * found.accuracy:.1f}\n{low:.0f}–{high:.0f}"
        axes.text(*at, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    marks = {"best on this set": (sweep.chosen, "solid"), "best on all sets": (sweep.ship, "dotted")}
    for (label, (point, style)), colour in zip(marks.items(), (COLOURS[6], "black"), strict=True):
        corner = (rights.index(point[1]) - 0.47, ups.index(point[0]) - 0.47)
        look: dict[str, Any] = {"fill": False, "edgecolor": colour, "linestyle": style, "linewidth": 2.5}
        axes.add_patch(Rectangle(corner, 0.94, 0.94, label=tr(label), **look))
    legend_below(axes, 2)
    axes.set_xticks(range(len(rights)), [f"{value:g}" for value in rights])
    axes.set_yticks(range(len(ups)), [f"{value:g}" for value in ups])
    axes.set(xlabel=tr("weight of {name}", name=names[1]), ylabel=tr("weight of {name}", name=names[0]))
    axes.figure.colorbar(image, ax=axes, label=tr("{what} (its 95 % interval)", what=tr(DRAWN)))


def _curve(sweep: SweepPlot, axes: "Axes", name: str) -> None:
    ordered = sorted(sweep.scores.items())
    places = [point[0] for point, _ in ordered]
    lows, highs = [100 * found.low for _, found in ordered], [100 * found.high for _, found in ordered]
    axes.fill_between(places, lows, highs, color=COLOURS[1], alpha=0.2, label=tr("95 % interval"))
    axes.plot(places, [100 * found.accuracy for _, found in ordered], color=COLOURS[1], marker="o")
    majority = 100 * ordered[0][1].majority
    axes.axhline(
        majority, color="black", linestyle="dashed", linewidth=1.2, label=tr("majority-class baseline")
    )
    best = sweep.scores[sweep.chosen]
    at = ([sweep.chosen[0]], [100 * best.accuracy])
    axes.scatter(
        *at, s=170, facecolors="none", edgecolors=COLOURS[6], linewidths=2, label=tr("chosen"), zorder=3
    )
    axes.set(xlabel=tr(STEP) if name == STEP else tr("weight of {name}", name=name), ylabel=tr(DRAWN))
    legend_below(axes, 3)
