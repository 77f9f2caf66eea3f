"""Pictures of adapters: norms by layer, spectra, the distribution of their elements, cosine similarity."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tuneyard.adapters.model.lora import FactorStatistics
from tuneyard.adapters.show.statistics import AdapterStatistics, Matrix
from tuneyard.core.drawing.plots import picture, plotting
from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, joined, marked, tr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK = 0.6  # a cell of a larger |cosine| has white letters
PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg")
PANEL_WIDTH, PANEL_HEIGHT = 5.5, 3.6  # inches


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its file name, its size in inches, and the function that draws it on a figure."""

    name: str
    width: float
    height: float
    paint: "Callable[[Figure], None]"


def check_folder(folder: Path) -> None:
    """`RequestError` if `--plot` names a file."""
    if folder.is_file() or folder.suffix.lower() in PICTURES:
        raise RequestError(
            _("--plot {path}: expected a folder, in which each picture is a PNG file", path=folder)
        )


def draw(folder: Path, measured: list[AdapterStatistics[FactorStatistics]], cosines: Matrix) -> list[Path]:
    """Write the pictures as PNG files, and list them."""
    paths = []
    with plotting():
        for each in _pictures(measured, cosines):
            path = folder / f"{each.name}.png"
            with picture((each.width, each.height), path) as figure:
                each.paint(figure)
            paths.append(path)
    return paths


def _pictures(measured: list[AdapterStatistics[FactorStatistics]], cosines: Matrix) -> list[Picture]:
    """Plan the pictures of adapters."""
    names = [adapter.name for adapter in measured]
    pictures = [
        Picture("norms", PANEL_WIDTH * len(measured), PANEL_HEIGHT, partial(_norms, measured)),
        Picture("spectrum", PANEL_WIDTH, PANEL_HEIGHT, partial(_spectrum, measured)),
    ]
    for number, (name, adapter) in enumerate(zip(names, measured, strict=True), 1):
        file_name = f"values-{name}"
        if names.count(name) > 1:
            file_name += f"-{number}"
        pictures.append(Picture(file_name, PANEL_WIDTH * 2, PANEL_HEIGHT, partial(_values, adapter)))
    if len(measured) > 1:
        width, height = cosine_size(len(measured))
        pictures.append(Picture("cosine", width, height, partial(_cosine, names, cosines)))
    return pictures


def _panels(figure: "Figure", columns: int) -> "list[Axes]":
    return list(figure.subplots(1, columns, squeeze=False)[0])


def _label(axis: "Axes", title: str, x: str, y: str) -> None:
    axis.set(title=title, xlabel=x, ylabel=y)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _norms(measured: list[AdapterStatistics[FactorStatistics]], figure: "Figure") -> None:
    for axis, adapter in zip(_panels(figure, len(measured)), measured, strict=True):
        points_by_target: dict[str, list[tuple[int, float]]] = {}
        for module in adapter.modules:
            points = points_by_target.setdefault(module.target, [])
            if module.layer is not None:
                points.append((module.layer, module.norm))
        for target, points in points_by_target.items():
            layers = [layer for layer, _unused in points]
            norms = [norm for _unused, norm in points]
            axis.plot(layers, norms, ".-", label=target)
        axis.set_ylim(bottom=0)
        largest = max(adapter.modules, key=lambda module: module.norm)
        finding = marked("{name}: largest change in {target}, layer {layer}")
        title = tr(finding, name=adapter.name, target=largest.target, layer=largest.layer)
        axis.locator_params(axis="x", integer=True)
        _label(axis, title, tr("layer"), tr("norm of ΔW (Frobenius)"))


def _spectrum(measured: list[AdapterStatistics[FactorStatistics]], figure: "Figure") -> None:
    axis = figure.subplots()
    ranks = []
    for adapter in measured:
        shares_by_place: dict[int, list[float]] = {}
        for module in adapter.modules:
            if not module.norm:
                continue
            largest = module.singular_values[0]
            for place, value in enumerate(module.singular_values, 1):
                shares_by_place.setdefault(place, []).append(value / largest)
        medians = [median(shares) for shares in shares_by_place.values()]
        axis.plot(list(shares_by_place), medians, ".-", label=adapter.name)
        effective_rank = median(module.effective_rank for module in adapter.modules)
        ranks.append(f"{adapter.name} {effective_rank:.1f}")
    axis.set_ylim(0, 1.05)
    axis.locator_params(axis="x", integer=True)
    title = tr("effective rank (median): {ranks}", ranks=joined(ranks))
    _label(axis, title, tr("singular value of ΔW, largest first"), tr("share of the largest (median)"))


def _values(adapter: AdapterStatistics[FactorStatistics], figure: "Figure") -> None:
    for axis, side in zip(_panels(figure, 2), "AB", strict=True):
        for histogram in adapter.histograms:
            if histogram.side != side:
                continue
            bins = len(histogram.counts)
            step = 2 * histogram.reach / bins
            edges = [-histogram.reach + step * k for k in range(bins + 1)]
            total = sum(histogram.counts)
            densities = [count / (total * step) for count in histogram.counts]
            axis.stairs(densities, edges, label=histogram.target)
        axis.locator_params(axis="x", nbins=5)  # room for small values such as 0.00025
        title = tr("{name}: elements of {side}", name=adapter.name, side=side)
        _label(axis, title, tr("value"), tr("density"))


def cosine_size(adapters: int) -> tuple[float, float]:
    """Width and height in inches of the similarity matrix, with room for each name."""
    return 3.2 + 0.9 * adapters, 2.0 + 0.8 * adapters


def _cosine(names: list[str], cosines: Matrix, figure: "Figure") -> None:
    axis = figure.subplots()
    colours = [[value or 0.0 for value in row] for row in cosines]
    image = axis.imshow(colours, cmap="PuOr", vmin=-1, vmax=1)
    for i, row in enumerate(cosines):
        for k, value in enumerate(row):
            text, colour = "–", "black"
            if value is not None:
                text = f"{value:.2f}"
                if abs(value) > DARK:
                    colour = "white"
            axis.text(k, i, text, ha="center", va="center", color=colour)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title(tr("cosine similarity of ΔW"))
    figure.colorbar(image, ax=axis)
