"""Pictures of adapters: norms by layer, spectra, the distribution of their elements, cosine similarity."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from tuneyard.adapters.statistics import AdapterStatistics, Matrix
from tuneyard.core.drawing import plot_texts, save
from tuneyard.core.errors import RequestError
from tuneyard.core.language import tr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

DARK = 0.6  # a cell of a larger |cosine| has white letters
FILE_ENDINGS = (".png", ".svg", ".pdf")
OTHER_PICTURES = (".avif", ".bmp", ".eps", ".gif", ".jpeg", ".jpg", ".ps", ".tif", ".tiff", ".webp")
PANEL_WIDTH, PANEL_HEIGHT = 5.5, 3.6  # inches


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: the name of its file, its size in inches, and the function that draws it on a figure."""

    name: str
    width: float
    height: float
    paint: "Callable[[FigureBase], None]"


def is_one_file(target: Path) -> bool:
    """Whether `--plot` names one file for all pictures; otherwise it names the folder of one file each.

    `RequestError` for the ending of another kind of picture, and where the other kind of path exists.
    """
    ending = target.suffix.lower()
    if ending in OTHER_PICTURES:
        raise RequestError(f"--plot {target}: expected a folder, or a file in {', '.join(FILE_ENDINGS)}")
    if ending in FILE_ENDINGS and target.is_dir():
        raise RequestError(f"--plot {target}: a folder; expected a file, or a folder without {ending}")
    if ending not in FILE_ENDINGS and target.is_file():
        raise RequestError(
            f"--plot {target}: a file; expected a folder, or a file in {', '.join(FILE_ENDINGS)}"
        )
    return ending in FILE_ENDINGS


def draw(target: Path, measured: list[AdapterStatistics], cosines: Matrix) -> list[Path]:
    """Write all pictures into the file `target`, or one PNG each into the folder `target`; return the paths.

    Names that no font can write are numbered.
    """
    names = [adapter.name for adapter in measured]
    with plot_texts(names) as typeface:
        for name, number in typeface.numbered.items():
            told = "plots: {number} is {name}, which no installed font can write"
            click.echo(tr(told, number=number, name=name), err=True)
        shown = [replace(adapter, name=typeface.show(adapter.name)) for adapter in measured]
        pictures = _pictures(names, shown, cosines)
        with typeface.used():
            return _save(pictures, target)


def _save(pictures: list[Picture], target: Path) -> list[Path]:
    """Write the pictures as `draw` describes it, and return the paths."""
    from matplotlib.figure import Figure

    if is_one_file(target):
        save(_stacked(pictures), target)
        return [target]
    paths = []
    for picture in pictures:
        figure = Figure(figsize=(picture.width, picture.height))
        picture.paint(figure)
        path = target / f"{picture.name}.png"
        save(figure, path)
        paths.append(path)
    return paths


def _pictures(names: list[str], measured: list[AdapterStatistics], cosines: Matrix) -> list[Picture]:
    """Return the pictures of adapters; `names` are for files, the names in `measured` are those to draw."""
    pictures = [
        Picture("norms", PANEL_WIDTH * len(measured), PANEL_HEIGHT, partial(_norms, measured)),
        Picture("spectrum", PANEL_WIDTH, PANEL_HEIGHT, partial(_spectrum, measured)),
    ]
    for i, (name, adapter) in enumerate(zip(names, measured, strict=True), 1):
        number = f"-{i}" if names.count(name) > 1 else ""
        paint = partial(_values, adapter)
        pictures.append(Picture(f"values-{name}{number}", PANEL_WIDTH * 2, PANEL_HEIGHT, paint))
    if len(measured) > 1:
        width, height = cosine_size(len(measured))
        paint = partial(_cosine, [adapter.name for adapter in measured], cosines)
        pictures.append(Picture("cosine", width, height, paint))
    return pictures


def _stacked(pictures: list[Picture]) -> "Figure":
    """Draw all pictures one below another, as wide as the widest."""
    from matplotlib.figure import Figure

    heights = [picture.height for picture in pictures]
    figure = Figure(figsize=(max(picture.width for picture in pictures), sum(heights)))
    rows = figure.subfigures(len(pictures), 1, height_ratios=heights, squeeze=False)
    for picture, (row,) in zip(pictures, rows, strict=True):
        picture.paint(row)
    return figure


def _panels(figure: "FigureBase", columns: int) -> "list[Axes]":
    return list(figure.subplots(1, columns, squeeze=False)[0])


def _label(axis: "Axes", title: str, x: str, y: str) -> None:
    axis.set(title=title, xlabel=x, ylabel=y)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _norms(measured: list[AdapterStatistics], figure: "FigureBase") -> None:
    for axis, found in zip(_panels(figure, len(measured)), measured, strict=True):
        for i, target in enumerate(dict.fromkeys(module.target for module in found.modules)):
            points = [(m.layer, m.norm) for m in found.modules if m.target == target and m.layer is not None]
            axis.plot([p[0] for p in points], [p[1] for p in points], "o-", ms=3, color=f"C{i}", label=target)
        axis.set_ylim(bottom=0)
        largest = max(found.modules, key=lambda module: module.norm)
        told = "{name}: largest change in {target}, layer {layer}"
        title = tr(told, name=found.name, target=largest.target, layer=largest.layer)
        _label(axis, title, tr("layer"), tr("norm of ΔW (Frobenius)"))


def _spectrum(measured: list[AdapterStatistics], figure: "FigureBase") -> None:
    (axis,) = _panels(figure, 1)
    for i, found in enumerate(measured):
        rows = [[v / m.singular_values[0] for v in m.singular_values] for m in found.modules if m.norm]
        longest = max((len(row) for row in rows), default=0)
        middle = [median(row[k] for row in rows if len(row) > k) for k in range(longest)]
        axis.plot(range(1, longest + 1), middle, "o-", ms=3, color=f"C{i}", label=found.name)
    axis.set_ylim(0, 1.05)
    ranks = ", ".join(f"{f.name} {median(m.effective_rank for m in f.modules):.1f}" for f in measured)
    title = tr("effective rank (median): {ranks}", ranks=ranks)
    _label(axis, title, tr("singular value of ΔW, largest first"), tr("share of the largest (median)"))


def _values(found: AdapterStatistics, figure: "FigureBase") -> None:
    for axis, side in zip(_panels(figure, 2), "AB", strict=True):
        for i, shape in enumerate(shape for shape in found.histograms if shape.side == side):
            bins = len(shape.counts)
            step = 2 * shape.reach / bins
            edges = [-shape.reach + step * k for k in range(bins + 1)]
            heights = [count / (sum(shape.counts) * step) for count in shape.counts]
            axis.stairs(heights, edges, color=f"C{i}", label=shape.target)
        title = tr("{name}: elements of {side}", name=found.name, side=side)
        _label(axis, title, tr("value"), tr("density"))


def cosine_size(adapters: int) -> tuple[float, float]:
    """Return width and height in inches of the picture of similarities: each name needs its cell."""
    return 3.2 + 0.9 * adapters, 2.0 + 0.8 * adapters


def _cosine(names: list[str], cosines: Matrix, figure: "FigureBase") -> None:
    (axis,) = _panels(figure, 1)
    shown = [[0.0 if value is None else value for value in row] for row in cosines]
    image = axis.imshow(shown, cmap="PuOr", vmin=-1, vmax=1)
    for i, row in enumerate(cosines):
        for k, value in enumerate(row):
            colour = "white" if abs(value or 0) > DARK else "black"
            text = "–" if value is None else f"{value:.2f}"
            axis.text(k, i, text, ha="center", va="center", color=colour)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title(tr("cosine similarity of ΔW"))
    figure.colorbar(image, ax=axis)
