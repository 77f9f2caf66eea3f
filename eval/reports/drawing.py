"""Grouped bars with their intervals, standing or lying, in colours and letters that everybody can read."""

import contextlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.files import atomic
from core.language import tr
from core.typeface import Typeface

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008: distinct with any kind of colour vision.
COLOURS = ("#999999", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
FAINT = "#dddddd"
HATCHES = (None, "//", "..", "xx")
AXIS = "accuracy, % (whiskers: 95 % interval)"
GAP = 0.46  # half the length of a baseline's mark; places are 1 apart
STUB = 1.5  # percent
Share = tuple[float, float, float]  # value, low and high limit


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn: for each series (a model) its share at each place (a set or a type), None for no bar;
    `baselines` are the majority class's shares, one for each place, or empty."""

    title: str
    places: Sequence[str]
    series: Mapping[str, Sequence[Share | None]]
    baselines: Sequence[float] = ()


def draw_standing(chart: Chart, typeface: Typeface, path: Path) -> None:
    """Write the chart as standing bars with their values above them: for few places."""
    count = len(chart.series)
    width = max(6.0, 1.6 + len(chart.places) * (0.5 + 0.45 * count))
    with plot(chart.title, (min(20.0, width), 4.8), path, typeface) as axes:
        for index, (name, shares) in enumerate(chart.series.items()):
            at, values, errors = _bars(shares, index, count)
            axes.bar(at, _seen(values), 0.75 / count, **_look(index, typeface.show(name)))
            axes.errorbar(at, values, errors, fmt="none", ecolor="black", elinewidth=1, capsize=3)
            for place, value, above in zip(at, values, errors[1], strict=True):
                axes.text(place, value + above + 1.5, f"{value:.1f}", ha="center", va="bottom", fontsize=8)
        for place, share in enumerate(chart.baselines):
            axes.plot([place - GAP, place + GAP], [100 * share] * 2, **_mark(place))
        axes.set_xticks(range(len(chart.places)), [typeface.show(place) for place in chart.places])
        axes.set(ylabel=tr(AXIS), ylim=(0, 100), yticks=range(0, 101, 20))
        axes.grid(axis="y")
        legend_below(axes, min(5, count + 1))


def draw_lying(chart: Chart, typeface: Typeface, path: Path) -> None:
    """Write the chart as lying bars: for many places, or long names."""
    count, places = len(chart.series), len(chart.places)
    with plot(chart.title, (8.0, 1.6 + places * (0.15 + 0.16 * count)), path, typeface) as axes:
        for index, (name, shares) in enumerate(chart.series.items()):
            at, values, errors = _bars(shares, index, count)
            axes.barh(at, _seen(values), 0.75 / count, **_look(index, typeface.show(name)))
            axes.errorbar(values, at, xerr=errors, fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5)
        for place, share in enumerate(chart.baselines):
            axes.plot([100 * share] * 2, [place - GAP, place + GAP], **_mark(place))
        axes.set_yticks(range(places), [typeface.show(place) for place in chart.places], fontsize=9)
        axes.set(xlabel=tr(AXIS), xlim=(0, 100), ylim=(places - 0.4, -0.6))
        axes.grid(axis="x")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


@contextlib.contextmanager
def plot(title: str, size: tuple[float, float], path: Path, typeface: Typeface) -> Iterator["Axes"]:
    """Yield the axes of a plot of `size` inches under its title, and write it in the end."""
    from matplotlib.figure import Figure

    with typeface.used():
        figure = Figure(figsize=size)
        axes = figure.add_subplot()
        title = wrapped(typeface.show(title), size[0])
        axes.set_title(title, pad=18)  # above what is written on a bar of 100 %
        yield axes
        save(figure, path)


def legend_below(axes: "Axes", columns: int) -> None:
    """Show the legend under the plot."""
    axes.legend(ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def wrapped(title: str, width: float) -> str:
    """Return a title in lines that fit a plot of that many inches; a Chinese letter counts as two."""
    wide = sum(ord(letter) > 0x2E80 for letter in title) / max(1, len(title))
    return "\n".join(textwrap.wrap(title, int(width * 10.5 / (1 + wide))))


def _bars(
    shares: Sequence[Share | None], index: int, count: int
) -> tuple[list[float], list[float], list[list[float]]]:
    """Places, values and (below, above) errors in percent of series `index` of `count`."""
    shift = (index - (count - 1) / 2) * 0.8 / count
    there = [(place + shift, share) for place, share in enumerate(shares) if share is not None]
    values = [100 * value for _, (value, _, _) in there]
    below = [100 * (value - low) for _, (value, low, _) in there]
    above = [100 * (high - value) for _, (value, _, high) in there]
    return [place for place, _ in there], values, [below, above]


def _seen(values: Sequence[float]) -> list[float]:
    """The lengths of the bars: a bar of 0 % is a stub, else it would look like a model that is not there."""
    return [value or STUB for value in values]


def _look(index: int, label: str) -> dict[str, Any]:
    """How the bars of a series look; hatches begin where the colours end."""
    return {
        "label": label,
        "color": COLOURS[index % len(COLOURS)],
        "hatch": HATCHES[index // len(COLOURS) % len(HATCHES)],
        "edgecolor": "white",
    }


def _mark(place: int) -> dict[str, Any]:
    label = tr("majority-class baseline") if place == 0 else ""
    return {"color": "black", "linestyle": "dashed", "linewidth": 1.2, "label": label}


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG or SVG, as its path ends, atomically; the same figure gives the same bytes."""
    form = path.suffix[1:]
    unsaid = {"svg": {"Date": None, "Creator": None, "Format": None, "Type": None}, "png": {"Software": None}}
    buffer = BytesIO()
    figure.savefig(buffer, format=form, metadata=unsaid[form])
    with atomic(path) as file:
        file.write(buffer.getvalue())
