"""How figures and tables are written, in every table, plot and sentence: one rule for each kind of figure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tuneyard.core.documents import markdown_table
from tuneyard.core.language import tr

NONE = "–"
SIGNIFICANT = 0.05  # a p is printed with as many digits as show its side of this
MOST_DIGITS = 8


def percent(share: float) -> str:
    """Return a share as `93.3 %`."""
    return f"{100 * share:.1f} %"


def interval(share: Sequence[float] | None) -> str:
    """Return (value, low, high) as `93.3 % (90.1–95.2)`, a dash where there is none."""
    if share is None:
        return NONE
    value, low, high = share
    return f"{percent(value)} ({100 * low:.1f}–{100 * high:.1f})"


def points(share: float) -> str:
    """Return a difference of shares in percentage points with its sign, `+43.3` or `−1.0`; one near 0 with as
    many digits as show its sign, `−0.03`, and 0 without one."""
    for digits in range(1, MOST_DIGITS):
        text = f"{100 * share:+.{digits}f}"
        if float(text):
            return text.replace("-", "−")
    return "0.0"


def points_interval(value: float, low: float, high: float) -> str:
    """Return a difference of shares with its limits, `+43.3 (+39.1 to +47.5)`."""
    return limits(points, (value, low, high))


def limits(show: Callable[[float], str], figures: Sequence[float], unit: str = "") -> str:
    """Return (value, low, high) as `show` writes each of them, `1.54 (1.48 to 1.61)`."""
    value, low, high = map(show, figures)
    return tr("{value}{unit} ({low} to {high})", value=value, unit=unit, low=low, high=high)


def number(value: float, sign: str = "") -> str:
    """Return three digits that count, those before the point all, with the true minus sign."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    whole = 999.5 <= abs(value) < 1e6
    text = f"{value:{sign},.0f}" if whole else f"{value:{sign}.3g}"
    return text.replace("-", "−")


@dataclass(frozen=True, slots=True)
class Scale:
    """How a metric is written: a value, (value, low, high), a difference with its sign, the size of one, and
    the unit that follows a difference in a sentence."""

    value: Callable[[float], str]
    interval: Callable[[Sequence[float]], str]
    gain: Callable[[float], str]
    size: Callable[[float], str]
    unit: str


def scale_of(metric: str) -> Scale:
    """Return how accuracy (no name) is written, in per cent and points, or any other metric, as numbers."""
    if metric:
        return Scale(number, partial(limits, number), partial(number, sign="+"), number, "")
    return Scale(percent, interval, points, lambda share: f"{100 * share:.1f}", tr(" points"))


def show_p(p: float) -> str:
    """Return `= 0.032`, or `< 0.001` where it is smaller. Near 0.05 there are as many digits as show which
    side it is on: `= 0.0496`."""
    if p < 0.001:
        return "< 0.001"
    text = f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    for digits in range(4, MOST_DIGITS):
        if (float(text) < SIGNIFICANT) == (p < SIGNIFICANT):
            break
        text = f"{p:.{digits}f}"
    return f"= {text}"


def p_cell(p: float) -> str:
    """Return a p as the cell of a table."""
    return show_p(p).removeprefix("= ")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as they are shown; the first column names what the others tell of."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def grid(table: Table) -> str:
    """Return a table in Markdown that is aligned in a terminal too."""
    return markdown_table(table.header, table.rows, aligned=True)
