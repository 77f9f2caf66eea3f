"""How figures and tables are written, in every table, plot and sentence: one rule for each kind of figure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuneyard.core.language.message import counted, tr
from tuneyard.core.text.markdown import markdown_table

NONE = "–"
SIGNIFICANT = 0.05  # a p is printed with as many digits as show its side of this
MOST_DIGITS = 8


def percent(share: float, more_digits: int = 0) -> str:
    """A share as `93.3 %` (`93.3%` in Chinese), with `more_digits` than that."""
    return tr("{figure} %", figure=f"{100 * share:.{1 + more_digits}f}")


def points(share: float, border: float = 0, sign: str = "+") -> str:
    """A difference of shares in percentage points with its sign, `+43.3` or `−1.0`, and 0 without a sign.

    A difference near 0 or `border` gets enough digits to be on the correct side, `−0.03`.
    """
    text = _on_its_side(100 * share, sign, 1, (0, 100 * border))
    if float(text) == 0:
        return "0.0"
    return text.replace("-", "−")


def _on_its_side(value: float, sign: str, digits: int, borders: Sequence[float]) -> str:
    """A number with `digits` after the point, or more until it is on the same side of all borders as its
    value. No more than `MOST_DIGITS` show that: a number nearer to a border has `digits`."""
    sides = [(value > border, value < border) for border in borders]
    for more in range(digits, MOST_DIGITS):
        text = f"{value:{sign}.{more}f}"
        printed = float(text)
        if [(printed > border, printed < border) for border in borders] == sides:
            return text
    return f"{value:{sign}.{digits}f}"


def limits(show: Callable[[float], str], figures: Sequence[float], unit: str = "") -> str:
    """(value, low, high) with `show` for each of them, `1.54 (1.48 to 1.61)`, `+43.3 (+39.1 to +47.5)`."""
    value, low, high = map(show, figures)
    if math.isinf(figures[1]):
        return tr("{value}{unit} (too few rows for an interval)", value=value, unit=unit)
    return tr("{value}{unit} ({low} to {high})", value=value, unit=unit, low=low, high=high)


def number(value: float, sign: str = "", more_digits: int = 0) -> str:
    """A number with three significant digits and `more_digits`, with every digit before the point."""
    if value == 0:
        return "0"
    text = f"{value:{sign}.{3 + more_digits}g}"
    if 999.5 <= abs(value) < 1e6:
        text = f"{value:{sign},.{more_digits}f}"
    return text.replace("-", "−")


def show_p(p: float, equals: str = "= ") -> str:
    """A p as `= 0.032`, or `< 0.001` if it is smaller. Near 0.05 more digits show which side it is on:
    `= 0.0496`, `= 0.0504`. The cell of a table has no `equals` ("")."""
    if p < 0.001:
        return "< 0.001"
    if p >= 0.1:
        return f"{equals}{p:.2f}"
    text = f"{p:.3f}"
    if float(text) == SIGNIFICANT:
        text = _on_its_side(p, "", 4, (SIGNIFICANT,))
    return f"{equals}{text}"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as texts. The first column names the subject of its row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def grid(table: Table) -> str:
    """A table in Markdown."""
    return markdown_table(table.header, table.rows)


def size_words(size: float) -> str:
    """Format bytes in the largest decimal unit that fits at least once: `3.6 MB`."""
    units = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}
    for unit, scale in units.items():
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return counted(round(size), "byte", "bytes")
