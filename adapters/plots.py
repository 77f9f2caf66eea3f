"""Pictures of adapters: norms by layer, spectra, the distribution of their elements, cosine similarity."""

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from adapters.statistics import AdapterStatistics, Histogram
from adapters.tables import Matrix
from core.typeface import choose_typeface

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK = 0.6  # a cell of a larger |cosine| has white letters


def draw(
    folder: Path, measured: list[AdapterStatistics], cosines: Matrix, shapes: list[list[Histogram]]
) -> list[Path]:
    """Write the pictures into `folder` and return their paths; names that no font has are numbered."""
    typeface = choose_typeface([found.name for found in measured])
    for name, number in typeface.numbered.items():
        click.echo(f"plots: {number} is {name}, which no installed font can write", err=True)
    names = [found.name for found in measured]
    drawn = [replace(found, name=typeface.show(found.name)) for found in measured]
    folder.mkdir(parents=True, exist_ok=True)
    with typeface.used():
        pictures = {"norms": _norms(drawn), "spectrum": _spectrum(drawn)}
        for i, (name, found, own) in enumerate(zip(names, drawn, shapes, strict=True), 1):
            number = f"-{i}" if names.count(name) > 1 else ""
            pictures[f"values-{name}{number}"] = _values(found, own)
        if len(drawn) > 1:
            pictures["cosine"] = _cosine([found.name for found in drawn], cosines)
        return [_save(figure, folder / f"{name}.png") for name, figure in pictures.items()]


def _figure(width: float, height: float, columns: int = 1) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height))
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _save(figure: "Figure", path: Path) -> Path:
    figure.savefig(path)
    return path


def _norms(measured: list[AdapterStatistics]) -> "Figure":
    figure, axes = _figure(5.5, 3.6, len(measured))
    for axis, found in zip(axes, measured, strict=True):
        largest = max(found.modules, key=lambda module: module.norm)
        axis.set_title(f"{found.name}: largest change in {largest.target}, layer {largest.layer}")
        for i, target in enumerate(dict.fromkeys(module.target for module in found.modules)):
            points = [(m.layer, m.norm) for m in found.modules if m.target == target and m.layer is not None]
            axis.plot([p[0] for p in points], [p[1] for p in points], "o-", ms=3, color=f"C{i}", label=target)
        axis.set_xlabel("layer")
        axis.set_ylabel("norm of ΔW (Frobenius)")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _spectrum(measured: list[AdapterStatistics]) -> "Figure":
    figure, (axis,) = _figure(5.5, 3.6)
    for i, found in enumerate(measured):
        rows = [[v / m.singular_values[0] for v in m.singular_values] for m in found.modules if m.norm]
        longest = max((len(row) for row in rows), default=0)
        middle = [median(row[k] for row in rows if len(row) > k) for k in range(longest)]
        axis.plot(range(1, longest + 1), middle, "o-", ms=3, color=f"C{i}", label=found.name)
    ranks = ", ".join(f"{f.name} {median(m.effective_rank for m in f.modules):.1f}" for f in measured)
    axis.set_title(f"effective rank (median): {ranks}")
    axis.set_xlabel("singular value of ΔW, largest first")
    axis.set_ylabel("share of the largest (median)")
    axis.set_ylim(0, 1.05)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _values(found: AdapterStatistics, shapes: list[Histogram]) -> "Figure":
    figure, axes = _figure(5.5, 3.6, 2)
    for axis, side in zip(axes, "AB", strict=True):
        own = [shape for shape in shapes if shape.side == side]
        for i, shape in enumerate(own):
            step = 2 * shape.reach / len(shape.counts)
            edges = [-shape.reach + step * k for k in range(len(shape.counts) + 1)]
            total = sum(shape.counts) * step
            heights = [count / total for count in shape.counts]
            axis.stairs(heights, edges, color=f"C{i}", label=shape.target)
        axis.set_title(f"{found.name}: elements of {side}")
        axis.set_xlabel("value")
        axis.set_ylabel("density")
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
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
