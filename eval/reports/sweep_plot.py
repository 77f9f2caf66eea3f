"""A sweep as a picture: a heat map over two weights, or a curve over one weight or the steps of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.typeface import choose_typeface
from eval.reports.drawing import COLOURS, new_figure, save, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

    from eval.statistics.selection import Score

Point = tuple[float, ...]
DRAWN = "accuracy on the rows to choose on, %"


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
        limits = f"{100 * one.low:.1f}–{100 * one.high:.1f}"
        return (
            f"{self.name}: {100 * one.accuracy:.1f} % ({limits}) of {one.n} held-out rows at {at}; "
            f"chosen on {best.n} other rows, which are drawn here"
        )


def draw(landscape: SweepPlot, path: Path) -> None:
    """Write the picture of a set: two axes as a heat map, one as a curve with its 95 % band."""
    typeface = choose_typeface([landscape.name, *landscape.axes])
    width = 7.0
    with typeface.used():
        figure = new_figure(width, 5.4 if len(landscape.axes) == 2 else 4.4)
        axes = figure.add_subplot()
        axes.set_title(wrapped(typeface.show(landscape.title), width), fontsize=11, loc="left")
        names = [typeface.show(name) for name in landscape.axes]
        if len(names) == 2:
            _heat(landscape, axes, names)
        else:
            _curve(landscape, axes, names[0])
        save(figure, path)


def _heat(landscape: SweepPlot, axes: "Axes", names: Sequence[str]) -> None:
    """Draw the first axis upwards and the second to the right, each cell with its interval."""
    ups, rights = (sorted({point[i] for point in landscape.scores}) for i in (0, 1))
    shares = [
        [100 * f.accuracy if (f := landscape.scores.get((up, right))) else float("nan") for right in rights]
        for up in ups
    ]
    middle = sum(edge(f.accuracy for f in landscape.scores.values()) for edge in (min, max)) / 2
    image = axes.imshow(shares, origin="lower", cmap="cividis", aspect="auto")
    for (up, right), found in landscape.scores.items():
        at = (rights.index(right), ups.index(up))
        low, high = (100 * limit for limit in (found.low, found.high))
        dark = found.accuracy < middle
        text = f"{100 * found.accuracy:.1f}\n{low:.0f}–{high:.0f}"
        axes.text(*at, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    marks = {"best on this set": (landscape.chosen, "solid"), "best on all sets": (landscape.ship, "dotted")}
    for label, (point, style) in marks.items():
        corner = (rights.index(point[1]) - 0.47, ups.index(point[0]) - 0.47)
        axes.add_patch(_frame(corner, style, label))
    axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
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


def _curve(landscape: SweepPlot, axes: "Axes", name: str) -> None:
    ordered = sorted(landscape.scores.items())
    places = [point[0] for point, _ in ordered]
    lows, highs = [100 * found.low for _, found in ordered], [100 * found.high for _, found in ordered]
    axes.fill_between(places, lows, highs, color=COLOURS[1], alpha=0.2, label="95 % interval")
    axes.plot(places, [100 * found.accuracy for _, found in ordered], color=COLOURS[1], marker="o")
    majority = 100 * ordered[0][1].majority
    axes.axhline(majority, color="black", linestyle="dashed", linewidth=1.2, label="majority-class baseline")
    best = landscape.scores[landscape.chosen]
    at = ([landscape.chosen[0]], [100 * best.accuracy])
    axes.scatter(*at, s=170, facecolors="none", edgecolors=COLOURS[6], linewidths=2, label="chosen", zorder=3)
    axes.set(xlabel=name if name == "step" else f"weight of {name}", ylabel=DRAWN)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
