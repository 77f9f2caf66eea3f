"""The plot of each model's confusion matrix on a dataset, and that of lengths.

The plot of lengths shows for each part of an example the share of rows with at most so many tokens.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.drawing.plots import COLOURS, FAINT, plot, plotting, wrapped
from tuneyard.core.language.translation import tr, tr_counted
from tuneyard.eval.metrics.labels import short
from tuneyard.eval.metrics.text import percentiles
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


PLOT = "lengths.png"
LINES = ("solid", "dashed", "dashdot", "dotted")  # distinct without colours too


def draw_lengths(
    lengths: Mapping[str, Sequence[int]], model: str, dataset: str, limit: int, path: Path
) -> None:
    """Write a curve for each part, up to 100 % of its rows; `limit` is where training cuts an example."""
    with plotting():
        title = tr("Lengths in tokens: {model} on {dataset}", model=model, dataset=dataset)
        with plot(title, (7.0, 4.2), path) as axes:
            for index, (name, values) in enumerate(lengths.items()):
                points = percentiles(values)
                label = tr(
                    "{part}: median {median:,}, 95 % up to {most:,}",
                    part=tr(name),
                    median=points["p50"],
                    most=points["p95"],
                )
                axes.ecdf(
                    values, label=label, color=COLOURS[index + 1], linestyle=LINES[index], linewidth=1.8
                )
            axes.axvline(limit, color="black", linewidth=0.8, label=tr("cut at {limit:,}", limit=limit))
            axes.set_xscale("symlog", base=2, linthresh=1)
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.set(xlabel=tr("tokens"), ylabel=tr("share of rows at most this long, %"))
            axes.set(xlim=(-0.1, None), ylim=(0, 1.02))
            axes.set_yticks([0, 0.25, 0.5, 0.75, 0.95, 1], ["0", "25", "50", "75", "95", "100"], fontsize=8)
            axes.grid(color=FAINT, linewidth=0.8)
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False, ncols=2, fontsize=8)
