"""Plot of a sweep for each dataset: every point's figure on the half of the rows that chose.

The plot is a heat map over two weights, or a curve over one weight or the steps of a run. Of three and more
weights it has the best points, one a line.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.core.drawing.plots import COLOURS, legend_below, plot, plotting
from tuneyard.core.language.message import _, tr
from tuneyard.core.language.number_format import number
from tuneyard.core.training.metrics import Metric, direction
from tuneyard.eval.judge.conclusions import Choice
from tuneyard.eval.runs.sweeps import STEP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, ...]
LISTED = 25
"""The most points of a plot that has one a line."""
DRAWN = _("accuracy on the half that was chosen on, %")


def plot_name(dataset: str) -> str:
    """File name of a dataset's plot."""
    return f"{dataset}.png"


def draw(
    title: str, choice: Choice, names: Sequence[str], points: Mapping[str, Point], ship: str, path: Path
) -> None:
    """Write the plot of a dataset: two axes as a heat map, one as a curve with its 95 % band, more as a list.

    `title` is the decision, `names` are the axes, `points` those of the models, `ship` is the model that was
    chosen on all datasets.
    """
    height = 4.4
    if len(names) == 2:
        height = 5.4
    elif len(names) > 2:
        height = 2.0 + 0.25 * min(len(points), LISTED)
    with plotting(), plot(title, (7.0, height), path) as axes:
        if len(names) == 2:
            _heat(axes, choice, names, points, ship)
        elif len(names) > 2:
            _list(axes, choice)
        else:
            _curve(axes, choice, names[0], points)


def _heat(axes: "Axes", choice: Choice, names: Sequence[str], points: Mapping[str, Point], ship: str) -> None:
    """Draw the first axis upwards and the second to the right, each cell with its interval."""
    from matplotlib.patches import Rectangle

    figures = {points[model]: figure for model, figure in choice.choosing.models.items()}
    scale = _scale(choice.metric)
    ups = sorted({up for up, _unused in figures})
    rights = sorted({right for _unused, right in figures})
    shares = [[float("nan")] * len(rights) for _unused in ups]
    values = [figure.value for figure in figures.values()]
    middle = (min(values) + max(values)) / 2
    for (up, right), figure in figures.items():
        value, low, high = (number(scale * each) for each in figure.with_limits)
        text = f"{value}\n{low}–{high}"
        colour = "black"
        if figure.value < middle:  # a dark cell
            colour = "white"
        x, y = rights.index(right), ups.index(up)
        shares[y][x] = scale * figure.value
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)
    image = axes.imshow(shares, origin="lower", cmap="cividis", aspect="auto")
    marks = (
        (_("best on this set"), points[choice.model], "solid", COLOURS[6]),
        (_("best on all sets"), points[ship], "dotted", "black"),
    )
    for label, (up, right), style, colour in marks:
        corner = (rights.index(right) - 0.47, ups.index(up) - 0.47)
        look: dict[str, Any] = {"fill": False, "edgecolor": colour, "linestyle": style, "linewidth": 2.5}
        axes.add_patch(Rectangle(corner, 0.94, 0.94, label=tr(label), **look))
    legend_below(axes, 2)
    axes.set_xticks(range(len(rights)), [f"{value:g}" for value in rights])
    axes.set_yticks(range(len(ups)), [f"{value:g}" for value in ups])
    axes.set(
        xlabel=tr("weight of {name}", name=names[1]),
        ylabel=tr("weight of {name}", name=names[0]),
    )
    axes.figure.colorbar(image, ax=axes, label=tr("{what} (its 95 % interval)", what=_label(choice.metric)))


def _curve(axes: "Axes", choice: Choice, name: str, points: Mapping[str, Point]) -> None:
    figures, scale = choice.choosing.models, _scale(choice.metric)
    models = sorted(figures, key=lambda model: points[model])
    places = [points[model][0] for model in models]
    values = [scale * figures[model].value for model in models]
    lows = [scale * figures[model].low for model in models]
    highs = [scale * figures[model].high for model in models]
    axes.fill_between(places, lows, highs, color=COLOURS[1], alpha=0.2, label=tr("95 % interval"))
    axes.plot(places, values, color=COLOURS[1], marker="o")
    if choice.metric.counts_correct and not math.isnan(choice.choosing.majority):
        majority, label = 100 * choice.choosing.majority, tr("majority-class baseline")
        axes.axhline(majority, color="black", linestyle="dashed", linewidth=1.2, label=label)
    at = ([points[choice.model][0]], [scale * figures[choice.model].value])
    axes.scatter(
        *at, s=170, facecolors="none", edgecolors=COLOURS[6], linewidths=2, label=tr("chosen"), zorder=3
    )
    label = tr("weight of {name}", name=name)
    if name == STEP:
        label = tr(STEP)
    axes.set(xlabel=label, ylabel=_label(choice.metric))
    legend_below(axes, 3)


def _list(axes: "Axes", choice: Choice) -> None:
    """Draw the best points one a line, the best at the top, each with its interval."""
    figures, scale, rank = choice.choosing.models, _scale(choice.metric), choice.metric.rank
    models = sorted(figures, key=lambda model: rank(figures[model].value))[:LISTED]
    places = range(len(models))
    values = [scale * figures[model].value for model in models]
    below = [scale * (figures[model].value - figures[model].low) for model in models]
    above = [scale * (figures[model].high - figures[model].value) for model in models]
    label = tr("95 % interval")
    axes.errorbar(values, places, xerr=(below, above), color=COLOURS[1], fmt="o", capsize=2, label=label)
    chosen = models.index(choice.model)
    axes.scatter(
        values[chosen], chosen, s=170, facecolors="none", edgecolors=COLOURS[6], label=tr("chosen"), zorder=3
    )
    axes.set_yticks(places, models)
    axes.invert_yaxis()
    axes.set(xlabel=_label(choice.metric))
    legend_below(axes, 2)


def _scale(metric: Metric) -> float:
    """The factor of the drawn values: those in percent are shares."""
    if metric.in_percent:
        return 100.0
    return 1.0


def _label(metric: Metric) -> str:
    """What the values are, with their unit."""
    if metric.counts_correct:
        return tr(DRAWN)
    return direction(metric.name, metric)
