"""Plot of a sweep for each dataset: every point's accuracy on the half of the rows that chose.

The plot is a heat map over two weights, or a curve over one weight or the steps of a run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.core.drawing.plots import COLOURS, legend_below, plot, plotting
from tuneyard.core.language.translation import tr
from tuneyard.eval.judge.question import Choice
from tuneyard.eval.judge.questions.choice import CHOOSING
from tuneyard.eval.read.sweeps import STEP
from tuneyard.eval.statistics.estimate import Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = "accuracy on the half that was chosen on, %"
Point = tuple[float, ...]


def plot_name(dataset: str) -> str:
    """File name of a dataset's plot."""
    return f"{dataset}.png"


@dataclass(frozen=True, slots=True)
class SweepPlot:
    """Data of a dataset's plot: the choice on this dataset, and each model's point on the axes.

    `title` is the decision. `ship` is the model that was chosen on all datasets.
    """

    title: str
    choice: Choice
    axes: Sequence[str]
    points: Mapping[str, Point]
    ship: str

    @property
    def accuracies(self) -> dict[Point, Mean]:
        """Accuracy of every point on the choosing half."""
        accuracies = self.choice.accuracies[CHOOSING]
        return {self.points[model]: accuracy for model, accuracy in accuracies.items()}

    @property
    def chosen(self) -> Point:
        """The best point of this dataset."""
        return self.points[self.choice.model]


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

    accuracies = sweep.accuracies
    ups = sorted({up for up, _ in accuracies})
    rights = sorted({right for _, right in accuracies})
    shares = [[float("nan")] * len(rights) for _ in ups]
    for (up, right), accuracy in accuracies.items():
        shares[ups.index(up)][rights.index(right)] = 100 * accuracy.value
    image = axes.imshow(shares, origin="lower", cmap="cividis", aspect="auto")
    values = [accuracy.value for accuracy in accuracies.values()]
    middle = (min(values) + max(values)) / 2
    for (up, right), accuracy in accuracies.items():
        text = f"{100 * accuracy.value:.1f}\n{100 * accuracy.low:.0f}–{100 * accuracy.high:.0f}"
        colour = "black"
        if accuracy.value < middle:  # a dark cell
            colour = "white"
        x, y = rights.index(right), ups.index(up)
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)
    marks = (
        ("best on this set", sweep.chosen, "solid", COLOURS[6]),
        ("best on all sets", sweep.points[sweep.ship], "dotted", "black"),
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
    ordered = sorted(sweep.accuracies.items())
    places = [point[0] for point, _ in ordered]
    values = [100 * accuracy.value for _, accuracy in ordered]
    lows = [100 * accuracy.low for _, accuracy in ordered]
    highs = [100 * accuracy.high for _, accuracy in ordered]
    axes.fill_between(places, lows, highs, color=COLOURS[1], alpha=0.2, label=tr("95 % interval"))
    axes.plot(places, values, color=COLOURS[1], marker="o")
    majority = 100 * sweep.choice.majority[CHOOSING]
    axes.axhline(
        majority, color="black", linestyle="dashed", linewidth=1.2, label=tr("majority-class baseline")
    )
    best = sweep.accuracies[sweep.chosen]
    at = ([sweep.chosen[0]], [100 * best.value])
    axes.scatter(
        *at, s=170, facecolors="none", edgecolors=COLOURS[6], linewidths=2, label=tr("chosen"), zorder=3
    )
    label = tr("weight of {name}", name=name)
    if name == STEP:
        label = tr(STEP)
    axes.set(xlabel=label, ylabel=tr(DRAWN))
    legend_below(axes, 3)
