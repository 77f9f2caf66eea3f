"""Plots that are read at arm's length: the title says the finding, every bar has its interval."""

import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from core.files import atomic
from eval.measure.comparison import Comparison, Figure
from eval.output.tables import percent, points, show_p

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

# Okabe and Ito 2008: told apart with any kind of colour vision.
COLOURS = ("#999999", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def accuracy_plot(comparison: Comparison, path: Path) -> None:
    """Write grouped bars: accuracy by set, then the mean, with 95 % intervals and the majority class."""
    sections = [*comparison.sets, *([comparison.mean] if comparison.mean else [])]
    models = comparison.models
    drawing, axes = _drawing(width=max(6.0, 1.6 + len(sections) * (0.5 + 0.45 * len(models))))
    width = 0.8 / len(models)
    for index, model in enumerate(models):
        at = [(place, s.figures[model]) for place, s in enumerate(sections) if model in s.figures]
        offset = (index - (len(models) - 1) / 2) * width
        _bars(axes, [place + offset for place, _ in at], [figure for _, figure in at], width, model, index)
    for place, section in enumerate(sections):
        label = "majority class" if place == 0 else ""
        ends, level = [place - 0.46, place + 0.46], [100 * section.majority] * 2
        axes.plot(ends, level, "--", color="black", linewidth=1.2, label=label)
    axes.set_xticks(range(len(sections)), [f"{s.name}\nn = {s.n:,}" for s in sections])
    axes.set_ylabel("accuracy, % (whiskers: 95 % interval)")
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.set_title("\n".join(textwrap.wrap(_finding(comparison), 76)), fontsize=11, loc="left")
    axes.legend(ncols=min(5, len(models) + 1), loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    _save(drawing, path)


def _finding(comparison: Comparison) -> str:
    section = comparison.mean or comparison.sets[0]
    best = section.best
    if best is None:
        return f"No model is shown to be better than {comparison.base} ({section.name})"
    test = next(t for t in section.against_base if t.model == best)
    where = f"on average over {len(comparison.sets)} sets" if comparison.mean else f"on {section.name}"
    rivals = "".join(f", not told from {t.against}" for t in section.rivals)
    gain = f"{points(test.value)[1:]} points {where} (p {show_p(test.p)})"
    return f"{best} beats {comparison.base} by {gain}{rivals}"


def _bars(
    axes: "Axes", places: Sequence[float], figures: Sequence[Figure], width: float, label: str, index: int
) -> None:
    heights = [100 * figure.accuracy for figure in figures]
    below = [100 * (figure.accuracy - figure.low) for figure in figures]
    above = [100 * (figure.high - figure.accuracy) for figure in figures]
    colour = COLOURS[index % len(COLOURS)]
    hatch = (None, "//", "..", "xx")[index // len(COLOURS) % 4]
    axes.bar(places, heights, width * 0.94, label=label, color=colour, hatch=hatch, edgecolor="white")
    axes.errorbar(places, heights, [below, above], fmt="none", ecolor="black", elinewidth=1, capsize=3)
    for place, figure in zip(places, figures, strict=True):
        text = percent(figure.accuracy).removesuffix(" %")
        axes.text(place, 100 * figure.high + 1.5, text, ha="center", va="bottom", fontsize=8)


def _drawing(width: float) -> "tuple[Drawing, Axes]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(min(width, 20.0), 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    return drawing, axes


def _save(drawing: "Drawing", path: Path) -> None:
    buffer = BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    with atomic(path) as file:
        file.write(buffer.getvalue())
