"""Plots in one style, written atomically. Files that Tuneyard did not draw are never replaced.

matplotlib looks for each letter in one list of font families: its own, then the installed CJK families.
"""

import contextlib
import functools
import itertools
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.errors import RequestError
from tuneyard.core.files import write_bytes, write_text
from tuneyard.core.files.bounded_reading import read_regular
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import warn_once
from tuneyard.core.language.reader import ENGLISH, current, in_language

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Size = tuple[float, float]
"""Width and height in inches."""
PLOTTING = "matplotlib.figure"
"""The module to import early if a command draws a plot at its end."""
STYLE = Path(__file__).with_name("plots.mplstyle")
# Okabe and Ito 2008: distinct with any kind of colour vision.
COLOURS = ("#999999", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
MAKER = "Tuneyard"
METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": MAKER},
    "svg": {"Creator": MAKER, "Date": None, "Format": None, "Type": None},
    "pdf": {"Creator": MAKER},
}
MARKS = {  # what a picture of ours contains by its METADATA
    "png": f"Software\0{MAKER}".encode(),
    "svg": f"<dc:title>{MAKER}</dc:title>".encode(),
    "pdf": f"/Creator ({MAKER})".encode(),
}
CHINESE_LETTERS = "中文图表，。：；（）、“”"
"""Letters and signs that each font of Chinese has."""
LATIN = "DejaVu Sans"  # comes with matplotlib
CJK = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Heiti SC",
    "Noto Sans CJK JP", "Noto Serif CJK SC", "AR PL UMing CN", "AR PL UKai CN", "Arial Unicode MS",
    "Droid Sans Fallback",
)  # fmt: skip

NOT_WRITTEN = _(
    "The plots are in English: no installed font has Chinese letters; "
    "install one (fonts-noto-cjk; see tuneyard doctor)."
)
NUMBERED = _(
    "No installed font has some letters of the plots: their texts are numbered, and a .txt beside each plot "
    "lists them. Install a font that has them (fonts-noto-cjk for Chinese; see tuneyard doctor)."
)
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
LONGEST = 600
"""Characters of a text on a plot: laying out a name of 100,000 takes minutes."""
MISSING_GLYPH = r"Glyph \d+ \("  # matplotlib's warning


@functools.cache
def fonts(preferred: tuple[str, ...]) -> tuple[list[str], set[int]]:
    """Font families of all plots, the Latin one and those `preferred` that are installed; the code points of
    all letters that they have.

    Fonts that were installed after matplotlib cached its list are added to it.
    """
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    manager = font_manager.fontManager
    listed = {font.fname for font in manager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - listed):
        with contextlib.suppress(OSError, RuntimeError):  # no font that matplotlib can draw with
            manager.addfont(path)
    installed = {font.name for font in manager.ttflist}
    families = [LATIN, *(family for family in preferred if family in installed)]
    letters: set[int] = set()
    for family in families:
        letters.update(FT2Font(font_manager.findfont(family)).get_charmap())
    return families, letters


def has_font_for(text: str) -> bool:
    """True if the installed fonts have every letter of the text."""
    _unused, letters = fonts(CJK)
    return letters.issuperset(map(ord, text))


def plot_language() -> str:
    """Current language, or English if no installed font has Chinese letters."""
    if current() == ENGLISH or has_font_for(CHINESE_LETTERS):
        return current()
    return ENGLISH


@contextlib.contextmanager
def plotting() -> Iterator[None]:
    """Draw plots inside the block, in one style and with the fonts and the language of plots.

    stderr reports plots in English for want of a font.
    """
    import matplotlib

    families, _unused = fonts(CJK)
    language = plot_language()
    if language != current():
        warn_once(NOT_WRITTEN)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", MISSING_GLYPH)  # those letters are numbered
        with in_language(language), matplotlib.rc_context({"font.family": families}, STYLE):
            yield


@contextlib.contextmanager
def picture(size: Size, path: Path) -> Iterator["Figure"]:
    """Yield a figure of `size` inches to draw on, and write it in the end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    yield figure
    save(figure, path)


@contextlib.contextmanager
def plot(title: str, size: Size, path: Path) -> Iterator["Axes"]:
    """Yield the axes of a plot of `size` inches under its title, and write it in the end."""
    figure, axes = new_plot(title, size)
    yield axes
    save(figure, path)


def new_plot(title: str, size: Size) -> tuple["Figure", "Axes"]:
    """An empty plot of `size` inches under its title, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    axes = figure.add_subplot()
    axes.set_title(wrapped(title, size[0]), pad=18)  # above what is written on a bar of 100 %
    return figure, axes


def save(figure: "Figure", path: Path) -> None:
    """Write a figure atomically, in the format of the path's suffix. `ValueError` for an unknown format.

    `RequestError` if it would replace a file that Tuneyard did not draw.
    """
    check_replaceable(path)
    texts: list[str] = []
    if path.suffix.lower() != ".svg":  # its text is drawn by the program that shows it
        texts = number_unreadable(figure)
    write_bytes(path, figure_bytes(figure, path.suffix[1:].lower()))
    if texts:
        write_text(path.with_suffix(".txt"), list_of(texts))


def number_unreadable(figure: "Figure") -> list[str]:
    """Put [1], [2], … in place of the texts that no installed font can draw. The texts, by their numbers.

    A picture never has boxes in place of letters.
    """
    number_by_text: dict[str, int] = {}

    def readable(text: str) -> str:
        pieces = []
        for is_drawn, run in itertools.groupby(text, lambda letter: letter == "\n" or has_font_for(letter)):
            piece = "".join(run)
            if not is_drawn:
                piece = f"[{number_by_text.setdefault(piece, len(number_by_text) + 1)}]"
            pieces.append(piece)
        return "".join(pieces)

    _replace_texts(figure, lambda text: not has_font_for(text.replace("\n", "")), readable)
    if number_by_text:
        warn_once(NUMBERED)
    return list(number_by_text)


def _replace_texts(figure: "Figure", is_wrong: Callable[[str], bool], mended: Callable[[str], str]) -> None:
    """Mend the wrong texts of a figure. Labels of ticks are made again at each drawing, from their axis."""
    from matplotlib.text import Text

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label.get_text() for label in axis.get_ticklabels()]
            if any(map(is_wrong, labels)):
                axis.set_ticks(axis.get_ticklocs(), list(map(mended, labels)))
    for text in figure.findobj(Text):
        if isinstance(text, Text) and is_wrong(text.get_text()):
            text.set_text(mended(text.get_text()))


def list_of(texts: Sequence[str]) -> str:
    """The file beside a plot with numbered texts: a line for each."""
    return "".join(f"[{number}] {text}\n" for number, text in enumerate(texts, 1))


def figure_bytes(figure: "Figure", form: str) -> bytes:
    """A figure as a file of the format `form`. The same figure gives the same bytes of PNG and SVG."""
    _replace_texts(figure, lambda text: len(text) > LONGEST, lambda text: f"{text[:LONGEST]}…")
    buffer = BytesIO()
    figure.savefig(buffer, format=form, metadata=METADATA.get(form))
    if form == "svg":  # matplotlib writes the control characters of a name, which no XML may have
        return _NOT_IN_XML.sub("\ufffd", buffer.getvalue().decode()).encode()
    return buffer.getvalue()


def check_replaceable(path: Path) -> None:
    """Raise `RequestError` if a plot at `path` would replace a file that Tuneyard did not draw."""
    if not path.is_file():
        return
    mark = MARKS.get(path.suffix[1:].lower())
    if mark is None or mark not in read_regular(path):
        raise RequestError(
            _(
                "{path}: a plot would replace this file, which Tuneyard did not draw; rename the "
                "file, or choose another folder",
                path=path,
            )
        )


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
