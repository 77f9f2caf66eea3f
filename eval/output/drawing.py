"""What all plots share: a page, bars with their intervals, and a typeface that has the letters.

Chinese labels are drawn with an installed CJK font. Where there is none they are numbered (#1, #2, …)
instead of shown as boxes, and the numbers' key is given to the caller.
"""

import contextlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from core.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart with any kind of colour vision.
COLOURS = ("#999999", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
HATCHES = (None, "//", "..", "xx")
LATIN = "DejaVu Sans"  # comes with matplotlib
CJK = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Heiti SC",
    "Noto Sans CJK JP", "Noto Serif CJK SC", "AR PL UMing CN", "AR PL UKai CN", "Arial Unicode MS",
    "Droid Sans Fallback",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Typeface:
    """Font families to draw with, and the labels that none of them can show, each with its number."""

    families: tuple[str, ...]
    numbered: Mapping[str, str]

    def show(self, text: str) -> str:
        """Return the text with every label that cannot be drawn replaced by its number."""
        for label in sorted(self.numbered, key=len, reverse=True):
            text = text.replace(label, self.numbered[label])
        return text


def choose_typeface(labels: Sequence[str]) -> Typeface:
    """Choose the first installed CJK font if the labels need one, and number what no font has."""
    from matplotlib import font_manager

    letters = set("".join(labels))
    families, known = [LATIN], _letters(LATIN)
    installed = {font.name for font in font_manager.fontManager.ttflist}
    for family in CJK:
        if letters <= known:
            break
        if family in installed and not letters & _letters(family) <= known:
            families.append(family)
            known |= _letters(family)
    missing = [label for label in dict.fromkeys(labels) if not set(label) <= known]
    return Typeface(tuple(families), {label: f"#{number}" for number, label in enumerate(missing, 1)})


def _letters(family: str) -> set[str]:
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    return set(map(chr, FT2Font(font_manager.findfont(family)).get_charmap()))


@contextlib.contextmanager
def page(path: Path, title: str, width: float, height: float, typeface: Typeface) -> "Iterator[Axes]":
    """Yield axes to draw on; the page is written as a PNG to `path`, atomically, on leaving."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.family": list(typeface.families), "axes.unicode_minus": False}):
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        wrapped = textwrap.wrap(typeface.show(title), int(width * 10.5))
        axes.set_title("\n".join(wrapped), fontsize=11, loc="left")
        yield axes
        _save(figure, path)


def _save(figure: "Figure", path: Path) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    with atomic(path) as file:
        file.write(buffer.getvalue())


def colour(index: int) -> tuple[str, str | None]:
    """Return the fill colour and hatch of the series `index`; hatches begin where the colours end."""
    return COLOURS[index % len(COLOURS)], HATCHES[index // len(COLOURS) % len(HATCHES)]
