"""How figures and tables are written, in every report, plot and sentence: one rule for each kind."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from core.language import tr

NONE = "–"


def percent(share: float) -> str:
    """Return a share as `93.3 %`."""
    return f"{100 * share:.1f} %"


def limits(low: float, high: float) -> str:
    """Return the limits of a share in percent, `90.1–95.2`."""
    return f"{100 * low:.1f}–{100 * high:.1f}"


def interval(share: Sequence[float] | None) -> str:
    """Return (value, low, high) as `93.3 % (90.1–95.2)`, a dash where there is none."""
    return NONE if share is None else f"{percent(share[0])} ({limits(*share[1:])})"


def points(share: float) -> str:
    """Return a difference of shares in percentage points with its sign, `+43.3` or `−1.0`."""
    text = f"{100 * share:+.1f}"
    return "+0.0" if text == "-0.0" else text.replace("-", "−")


def points_interval(value: float, low: float, high: float, unit: str = "") -> str:
    """Return a difference with its limits, `+43.3 (+39.1 to +47.5)`."""
    return tr(
        "{value}{unit} ({low} to {high})", value=points(value), unit=unit, low=points(low), high=points(high)
    )


def show_p(p: float) -> str:
    """Return `= 0.032`, or `< 0.001` where it is smaller."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def p_cell(p: float) -> str:
    """Return a p as the cell of a table."""
    return show_p(p).removeprefix("= ")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as they are shown; the first column names what the others tell of."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def grid(table: Table) -> str:
    """Return a Markdown table that is aligned in a terminal too (wide letters fill two columns)."""
    cells = [[text.replace("|", "\\|") for text in line] for line in (table.header, *table.rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = [cells[0], ["-" * width for width in widths], *cells[1:]]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (text + " " * (width - _width(text)) for text, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
