"""Letters for plots: an installed CJK font where labels need one, and numbers, not boxes, without."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STYLE = Path(__file__).with_name("plots.mplstyle")
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
        """Return the text with every label that cannot be drawn replaced by its number (`#1`)."""
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
    families, known = _cover(letters)
    if letters - known and _add_fonts():
        families, known = _cover(letters)
    missing = [label for label in dict.fromkeys(labels) if set(label) - known]
    return Typeface(tuple(families), {label: f"#{number}" for number, label in enumerate(missing, 1)})


def _cover(letters: set[str]) -> tuple[list[str], set[str]]:
    """Return the families that are needed of those that matplotlib knows, and the letters that they have."""
    from matplotlib import font_manager

    families, known = [LATIN], _letters(LATIN)
    installed = {font.name for font in font_manager.fontManager.ttflist}
    for family in CJK:
        if letters - known and family in installed and (own := _letters(family)) & (letters - known):
            families.append(family)
            known |= own
    return families, known


def _add_fonts() -> bool:
    """Take in fonts that were installed after matplotlib cached its list; return whether there are any."""
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
