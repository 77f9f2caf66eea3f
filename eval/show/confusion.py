"""The plot of each model's confusion matrix on a dataset."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tuneyard.core.drawing.plots import wrapped
from tuneyard.core.language.translation import tr, tr_counted
from tuneyard.eval.metrics.labels import short
from tuneyard.eval.read.scored_run import ScoredRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IN_A_ROW = 4
LONGEST_LABEL, LONGEST_TITLE = 16, 44  # characters
DARK = 0.7  # a cell of a larger share has white letters
ON_DARK, ON_LIGHT = "#fafafa", "#111111"  # black and white themselves follow the reader's colours on a page


def draw_confusion(runs: Sequence[ScoredRun]) -> "Figure":
    """Draw the confusion matrices of one dataset's runs: counts, and shares of each expected label.

    A matrix stands under its model's name and commonest error.
    """
    from matplotlib.figure import Figure

    gold = runs[0].gold
    rows = sorted(set(gold))
    predicted = {label for run in runs for label in run.predicted}
    columns = rows + sorted(predicted - set(rows))
    n = len(gold)
    title = tr("{name}: predicted (columns) by actual (rows); n = {n:,}", name=runs[0].dataset, n=n)
    panel_width = max(2.6, 0.45 * len(columns)) + 0.5  # inches
    panel_height = max(2.2, 0.4 * len(rows)) + 1.2
    across = min(IN_A_ROW, len(runs))
    down = math.ceil(len(runs) / across)
    width = max(5.0, across * panel_width)
    figure = Figure(figsize=(width, down * panel_height + 0.5))
    figure.suptitle(wrapped(title, width), x=0.01, ha="left", fontsize=11)
    places = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, run in zip(places, runs, strict=False):
        finding = _matrix(axes, run, rows, columns)
        lines = (short(line, LONGEST_TITLE) for line in (run.model, finding))
        axes.set_title("\n".join(lines), fontsize=9, pad=8)
    for axes in places[len(runs) :]:
        axes.remove()
    return figure


def _matrix(axes: "Axes", run: ScoredRun, rows: Sequence[str], columns: Sequence[str]) -> str:
    counts = Counter(zip(run.gold, run.predicted, strict=True))
    expected = Counter(run.gold)
    shares = []
    for gold in rows:
        cells = [counts[gold, predicted] for predicted in columns]
        shares.append([cell / expected[gold] for cell in cells])
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    small = 5
    if len(columns) <= 6:
        small = 8
    for y, gold in enumerate(rows):
        for x, predicted in enumerate(columns):
            count = counts[gold, predicted]
            text = "0"
            if count:
                share = tr("{figure} %", figure=f"{100 * shares[y][x]:.0f}")
                text = f"{count:,}\n{share}"
            colour = ON_LIGHT
            if shares[y][x] > DARK:
                colour = ON_DARK
            axes.text(x, y, text, ha="center", va="center", fontsize=small, color=colour)
    for ticks, labels in ((axes.set_xticks, columns), (axes.set_yticks, rows)):
        ticks(range(len(labels)), [short(label, LONGEST_LABEL) for label in labels], fontsize=small)
    axes.set(xlabel=tr("predicted"), ylabel=tr("actual (shares are of its row)"))
    axes.tick_params(length=0)
    return _commonest_error(counts)


def _commonest_error(counts: Mapping[tuple[str, str], int]) -> str:
    """Sentence on the most common confusion; `counts` is by (expected, predicted) label."""
    errors = {pair: count for pair, count in sorted(counts.items()) if pair[0] != pair[1]}
    if not errors:
        return tr("no error")
    (gold, predicted), count = max(errors.items(), key=lambda item: item[1])
    return tr("{said} for {right} {times}", said=predicted, right=gold, times=tr_counted(count, "time"))
