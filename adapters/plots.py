"""Pictures of adapters: norms by layer, spectra, the distribution of their elements, cosine similarity."""

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from adapters.statistics import AdapterStatistics, Matrix
from core.drawing import choose_typeface, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK = 0.6  # a cell of a larger |cosine| has white letters


def draw(folder: Path, measured: list[AdapterStatistics], cosines: Matrix) -> list[Path]:
    """Write the pictures into `folder` and return their paths; names that no font has are numbered."""
    names = [found.name for found in measured]
    typeface = choose_typeface(names)
    for name, number in typeface.numbered.items():
        click.echo(f"plots: {number} is {name}, which no installed font can write", err=True)
    drawn = [replace(found, name=typeface.show(found.name)) for found in measured]
    with typeface.used():
        pictures = {"norms": _norms(drawn), "spectrum": _spectrum(drawn)}
        for i, (name, found) in enumerate(zip(names, drawn, strict=True), 1):
            number = f"-{i}" if names.count(name) > 1 else ""
            pictures[f"values-{name}{number}"] = _values(found)
        if len(drawn) > 1:
            pictures["cosine"] = _cosine([found.name for found in drawn], cosines)
        for name, figure in pictures.items():
            save(figure, folder / f"{name}.png")
    return [folder / f"{name}.png" for name in pictures]


def _figure(width: float, height: float, columns: int = 1) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height))
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _label(axis: "Axes", title: str, x: str, y: str) -> None:
    axis.set(title=title, xlabel=x, ylabel=y)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _norms(measured: list[AdapterStatistics]) -> "Figure":
    figure, axes = _figure(5.5, 3.6, len(measured))
    for axis, found in zip(axes, measured, strict=True):
        for i, target in enumerate(dict.fromkeys(module.target for module in found.modules)):
            points = [(m.layer, m.norm) for m in found.modules if m.target == target and m.layer is not None]
            axis.plot([p[0] for p in points], [p[1] for p in points], "o-", ms=3, color=f"C{i}", label=target)
        axis.set_ylim(bottom=0)
        largest = max(found.modules, key=lambda module: module.norm)
        title = f"{found.name}: largest change in {largest.target}, layer {largest.layer}"
        _label(axis, title, "layer", "norm of ΔW (Frobenius)")
    return figure


def _spectrum(measured: list[AdapterStatistics]) -> "Figure":
    figure, (axis,) = _figure(5.5, 3.6)
    for i, found in enumerate(measured):
        rows = [[v / m.singular_values[0] for v in m.singular_values] for m in found.modules if m.norm]
        longest = max((len(row) for row in rows), default=0)
        middle = [median(row[k] for row in rows if len(row) > k) for k in range(longest)]
        axis.plot(range(1, longest + 1), middle, "o-", ms=3, color=f"C{i}", label=found.name)
    axis.set_ylim(0, 1.05)
    ranks = ", ".join(f"{f.name} {median(m.effective_rank for m in f.modules):.1f}" for f in measured)
    title = f"effective rank (median): {ranks}"
    _label(axis, title, "singular value of ΔW, largest first", "share of the largest (median)")
    return figure


def _values(found: AdapterStatistics) -> "Figure":
    figure, axes = _figure(5.5, 3.6, 2)
    for axis, side in zip(axes, "AB", strict=True):
        for i, shape in enumerate(shape for shape in found.histograms if shape.side == side):
            bins = len(shape.counts)
            step = 2 * shape.reach / bins
            edges = [-shape.reach + step * k for k in range(bins + 1)]
            heights = [count / (sum(shape.counts) * step) for count in shape.counts]
            axis.stairs(heights, edges, color=f"C{i}", label=shape.target)
        _label(axis, f"{found.name}: elements of {side}", "value", "density")
    return figure


def _cosine(names: list[str], cosines: Matrix) -> "Figure":
    figure, (axis,) = _figure(3.2 + 0.9 * len(names), 2.0 + 0.8 * len(names))
    shown = [[0.0 if value is None else value for value in row] for row in cosines]
    image = axis.imshow(shown, cmap="PuOr", vmin=-1, vmax=1)
    for i, row in enumerate(cosines):
        for k, value in enumerate(row):
            colour = "white" if abs(value or 0) > DARK else "black"
            text = "–" if value is None else f"{value:.2f}"
            axis.text(k, i, text, ha="center", va="center", color=colour)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title("cosine similarity of ΔW")
    figure.colorbar(image, ax=axis)
    return figure
