"""A sweep as a picture: a heat map over two weights, or a curve over one weight or the steps of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.typeface import choose_typeface
from eval.reports.drawing import COLOURS, legend_below, plot
from eval.reports.numbers import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

    from eval.statistics.selection import Score

Point = tuple[float, ...]
DRAWN = "accuracy on the examples to choose on, %"


@dataclass(frozen=True, slots=True)
class SweepPlot:
    """The accuracies of a set by point of the sweep on the rows to choose on, the point chosen on them, and
    the one to ship; `reported` is what the chosen point reached on the other rows."""

    name: str
    axes: Sequence[str]
    scores: "Mapping[Point, Score]"
    chosen: Point
    ship: Point
    reported: "Score"

    @property
    def title(self) -> str:
        """The finding in a line: the figure to believe, which the choice had no part in."""
        one, best = self.reported, self.scores[self.chosen]
        at = ", ".join(f"{axis} {value:g}" for axis, value in zip(self.axes, self.chosen, strict=True))
        share = interval((one.accuracy, one.low, one.high))
        equal = sum(score.accuracy == best.accuracy for score in self.scores.values()) - 1
        ties = f" (ties: {equal})" if equal else ""
        return (
            f"{self.name}: {share} of {one.n} held-out examples at {at}; "
            f"chosen on {best.n} others, which are drawn here{ties}"
        )


def draw(sweep: SweepPlot, path: Path) -> None:
    """Write the plot of a dataset: two axes as a heat map, one as a curve with its 95 % band."""
    typeface = choose_typeface([sweep.name, *sweep.axes])
    names = [typeface.show(name) for name in sweep.axes]
    with plot(sweep.title, (7.0, 5.4 if len(names) == 2 else 4.4), path, typeface) as axes:
        if len(names) == 2:
            _heat(sweep, axes, names)
        else:
            _curve(sweep, axes, names[0])


def _heat(sweep: SweepPlot, axes: "Axes", names: Sequence[str]) -> None:
    """Draw the first axis upwards and the second to the right, each cell with its interval."""
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
    for label, (point, style) in marks.items():
        corner = (rights.index(point[1]) - 0.47, ups.index(point[0]) - 0.47)
        axes.add_patch(_frame(corner, style, label))
    legend_below(axes, 2)
    axes.set_xticks(range(len(rights)), [f"{value:g}" for value in rights])
    axes.set_yticks(range(len(ups)), [f"{value:g}" for value in ups])
    axes.set(xlabel=f"weight of {names[1]}", ylabel=f"weight of {names[0]}")
    axes.figure.colorbar(image, ax=axes, label=f"{DRAWN} (its 95 % interval)")


def _frame(corner: tuple[float, float], style: str, label: str) -> "Rectangle":
    from matplotlib.patches import Rectangle

    colour = COLOURS[6] if style == "solid" else "black"
    look = Rectangle(corner, 0.94, 0.94, fill=False, edgecolor=colour, linestyle=style, label=label)
    look.set_linewidth(2.5)
    return look


def _curve(sweep: SweepPlot, axes: "Axes", name: str) -> None:
    ordered = sorted(sweep.scores.items())
    places = [point[0] for point, _ in ordered]
    lows, highs = [100 * found.low for _, found in ordered], [100 * found.high for _, found in ordered]
    axes.fill_between(places, lows, highs, color=COLOURS[1], alpha=0.2, label="95 % interval")
    axes.plot(places, [100 * found.accuracy for _, found in ordered], color=COLOURS[1], marker="o")
    majority = 100 * ordered[0][1].majority
    axes.axhline(majority, color="black", linestyle="dashed", linewidth=1.2, label="majority-class baseline")
    best = sweep.scores[sweep.chosen]
    at = ([sweep.chosen[0]], [100 * best.accuracy])
    axes.scatter(*at, s=170, facecolors="none", edgecolors=COLOURS[6], linewidths=2, label="chosen", zorder=3)
    axes.set(xlabel=name if name == "step" else f"weight of {name}", ylabel=DRAWN)
    legend_below(axes, 3)
