"""Plots in one style, written atomically.

Labels with Chinese letters use an installed CJK font. Without one, numbers replace these labels.
"""

import contextlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuneyard.core.files import atomic
from tuneyard.core.language import ENGLISH, catalogue, current, in_language, tr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("plots.mplstyle")
# Okabe and Ito 2008: distinct with any kind of colour vision.
COLOURS = ("#999999", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
FAINT = "#dddddd"
UNSAID = {"svg": {"Date": None, "Creator": None, "Format": None, "Type": None}, "png": {"Software": None}}
LATIN = "DejaVu Sans"  # comes with matplotlib
CJK = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Heiti SC",
    "Noto Sans CJK JP", "Noto Serif CJK SC", "AR PL UMing CN", "AR PL UKai CN", "Arial Unicode MS",
    "Droid Sans Fallback",
)  # fmt: skip

NOT_WRITTEN = (
    "The plots are in English: no installed font has Chinese letters; "
    "install one (fonts-noto-cjk; see tuneyard doctor)."
)


@dataclass(frozen=True, slots=True)
class Typeface:
    """Font families to draw with, and the labels that none of them can show, each with its number."""

    families: tuple[str, ...]
    numbered: Mapping[str, str]

    def show(self, text: str) -> str:
        """Replace every label that cannot be drawn by its number (`#1`)."""
        for label in sorted(self.numbered, key=len, reverse=True):
            text = text.replace(label, self.numbered[label])
        return text

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Draw with these families, and in the style of all plots, inside the block."""
        import matplotlib

        with matplotlib.rc_context({"font.family": list(self.families)}, STYLE):
            yield


def choose_typeface(labels: Sequence[str]) -> Typeface:
    """Choose the installed CJK fonts that the labels need, and number the labels that no font can show."""
    letters = set("".join(labels))
    families, drawable = _cover(letters)
    if letters - drawable and _add_fonts():
        families, drawable = _cover(letters)
    missing = [label for label in dict.fromkeys(labels) if set(label) - drawable]
    return Typeface(tuple(families), {label: f"#{number}" for number, label in enumerate(missing, 1)})


def plot_language() -> str:
    """Current language, or English if no installed font has the letters of its texts."""
    if choose_typeface(list(catalogue(current()).values())).numbered:
        return ENGLISH
    return current()


@contextlib.contextmanager
def plot_texts(labels: Sequence[str]) -> Iterator[Typeface]:
    """Use the language of plots inside the block, and yield the typeface for its texts and for `labels`.

    Without a font for the current language the texts are in English, and stderr reports it.
    """
    language = plot_language()
    if language != current():
        _note_english()
    with in_language(language):
        yield choose_typeface([*labels, *catalogue(language).values()])


def _note_english() -> None:
    """Print that the plots are in English, once in a command."""
    context = click.get_current_context(silent=True)
    if context is None:
        click.echo(tr(NOT_WRITTEN), err=True)
    elif NOT_WRITTEN not in context.meta:
        context.meta[NOT_WRITTEN] = True
        click.echo(tr(NOT_WRITTEN), err=True)


def _cover(letters: set[str]) -> tuple[list[str], set[str]]:
    """Choose font families that cover the letters, as far as matplotlib's list goes, with their letters."""
    from matplotlib import font_manager

    families = [LATIN]
    drawable = _letters(LATIN)
    installed = {font.name for font in font_manager.fontManager.ttflist}
    for family in CJK:
        missing = letters - drawable
        if not missing:
            break
        if family not in installed:
            continue
        family_letters = _letters(family)
        if family_letters & missing:
            families.append(family)
            drawable |= family_letters
    return families, drawable


def _add_fonts() -> bool:
    """Register fonts that were installed after matplotlib cached its list. True if there are any."""
    from matplotlib import font_manager

    listed = {font.fname for font in font_manager.fontManager.ttflist}
    new = sorted(set(font_manager.findSystemFonts()) - listed)
    for path in new:
        with contextlib.suppress(OSError, RuntimeError):  # no font that matplotlib can draw with
            font_manager.fontManager.addfont(path)
    return bool(new)


def _letters(family: str) -> set[str]:
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    return set(map(chr, FT2Font(font_manager.findfont(family)).get_charmap()))


@contextlib.contextmanager
def picture(size: tuple[float, float], path: Path, typeface: Typeface) -> Iterator["Figure"]:
    """Yield a figure of `size` inches to draw on, and write it in the end."""
    from matplotlib.figure import Figure

    with typeface.used():
        figure = Figure(figsize=size)
        yield figure
        save(figure, path)


@contextlib.contextmanager
def plot(title: str, size: tuple[float, float], path: Path, typeface: Typeface) -> Iterator["Axes"]:
    """Yield the axes of a plot of `size` inches under its title, and write it in the end."""
    with picture(size, path, typeface) as figure:
        axes = figure.add_subplot()
        title = wrapped(typeface.show(title), size[0])
        axes.set_title(title, pad=18)  # above what is written on a bar of 100 %
        yield axes


def save(figure: "Figure", path: Path) -> None:
    """Write a figure atomically, in the format of the path's suffix. `ValueError` for an unknown format.

    The same figure gives the same bytes of PNG and SVG.
    """
    form = path.suffix[1:].lower()
    buffer = BytesIO()
    figure.savefig(buffer, format=form, metadata=UNSAID.get(form))
    with atomic(path) as file:
        file.write(buffer.getvalue())


def legend_below(axes: "Axes", columns: int) -> None:
    """Show the legend under the plot."""
    axes.legend(ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def wrapped(title: str, width: float) -> str:
    """Break a title into lines that fit a plot of `width` inches. A Chinese letter counts as two.

    Line breaks of the title stay.
    """
    lines: list[str] = []
    for line in title.splitlines():
        wide = sum(ord(letter) > 0x2E80 for letter in line) / max(1, len(line))
        lines += textwrap.wrap(line, int(width * 10.5 / (1 + wide)))
    return "\n".join(lines)
