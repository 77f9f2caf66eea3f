"""Plots with an interval on every bar. The title of those of accuracy is the decision.

accuracy.png for every comparison. Datasets of labels also get confusion.png, a matrix for each model.
Datasets whose rows have types get overall_accuracy_comparison.png, type_accuracy_comparison.png and (by
subtype) model_comparison.png.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneyard.core.datasets.labels import MOST_LABELS
from tuneyard.core.drawing.plots import (
    COLOURS,
    figure_bytes,
    new_plot,
    number_unreadable,
    plotting,
    wrapped,
)
from tuneyard.core.files import text_sha256
from tuneyard.core.language.message import _, counted, marked, tr
from tuneyard.eval.figures.labels import short
from tuneyard.eval.judge.conclusions import Comparison, Section
from tuneyard.eval.report.differences import section_name
from tuneyard.eval.report.verdict import decisions
from tuneyard.eval.runs.results import COMPARED, RUN
from tuneyard.eval.runs.scored_run import RunsByDataset, ScoredRun
from tuneyard.eval.statistics.rates import rate_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TALLEST = 300  # inches: a PNG holds 65,535 pixels in each direction, and 150 are an inch
BAR, THINNEST_BAR, BETWEEN_PLACES = 0.22, 0.12, 0.2  # inches
TWO_AXES = 12  # inches: the percentages of a taller plot are above it, too
DETAILED = 12  # with more datasets, nobody would look through all matrices
ACCURACY_PLOT = "accuracy.png"
BY_KIND = {"type": "type_accuracy_comparison.png", "subtype": "model_comparison.png"}
CAPTIONS = {
    "type": marked("Accuracy on {name} by type with 95 % intervals, the most common type first."),
    "subtype": marked("Accuracy on {name} by subtype with 95 % intervals, the most common subtype first."),
    "confusion": marked(
        "Predicted by expected labels on {name}: counts of examples, and their shares of the row."
    ),
}
KIND_NAMES = {"type": _("type"), "subtype": _("subtype")}
HATCHES = (None, "//", "..", "xx")
WHISKER: dict[str, Any] = {"fmt": "none", "ecolor": "black", "elinewidth": 0.8, "capsize": 1.5}
AXIS = _("accuracy, % (whiskers: 95 % interval)")
GAP = 0.46  # half the length of a baseline's mark; places are 1 apart
STUB = 1.5  # percent: without a bar a model of 0 % would seem to be missing
PALE = 0.45  # the opacity of the bars beside those of the recommended model
IN_A_ROW = 4  # matrices
MOST_IN_MATRIX = 12  # labels: 144 cells with a count and a share
MOST_KINDS = 150  # bars of a model, which somebody may still read: the defect guide has 108 subtypes
LONGEST_NAME = 120  # bytes of a folder; file systems take 255
LONGEST_LABEL, LONGEST_TITLE, LONGEST_PLACE = 16, 44, 80  # characters
DARKEST = 2.1  # the share of the map's last colour: letters are readable on 1, on a dark page too
Share = tuple[float, float, float]  # value, low and high limit
Draw = Callable[[], "Figure"]


@dataclass(frozen=True, slots=True)
class Chart:
    """Data of a bar chart.

    `series` has for each model its share at each place (a dataset or a type), None for no bar. `baselines`
    are the majority class's shares, one for each place, or empty. `base` is drawn as a line instead of bars,
    `best` is highlighted: the recommended model.
    """

    title: str
    places: Sequence[str]
    series: Mapping[str, Sequence[Share | None]]
    baselines: Sequence[float] = ()
    base: str = ""
    best: str = ""


@dataclass(frozen=True, slots=True)
class DrawnPlot:
    """A plot that was drawn once: its PNG file, and its SVG for the page, "" if the page draws it itself.

    `name` is the path below OUT. `caption` is the sentence below the plot on the page, in English, with
    `dataset` for its {name}. `numbered` are the texts that no installed font has: the PNG shows their
    numbers.
    """

    name: str
    caption: str
    dataset: str
    png: bytes
    svg: str
    numbered: Sequence[str] = ()


def draw_plots(comparison: Comparison, runs: RunsByDataset) -> list[DrawnPlot]:
    """Draw all plots that the runs allow."""
    from tqdm import tqdm

    drawn = []
    with plotting():
        plots = list(_plots(comparison, runs))
        for name, caption, dataset, draw in tqdm(plots, desc="plots", delay=2, leave=False):
            figure = draw()
            svg = ""
            if caption:
                svg = figure_bytes(figure, "svg").decode()
            numbered = number_unreadable(figure)
            drawn.append(DrawnPlot(name, caption, dataset, figure_bytes(figure, "png"), svg, numbered))
    return drawn


def _plots(comparison: Comparison, runs: RunsByDataset) -> Iterator[tuple[str, str, str, Draw]]:
    """(path below OUT, caption, dataset, function that draws it) of every plot.

    Each of several datasets has a folder. The plots that the page draws itself have no caption.
    """
    yield ACCURACY_PLOT, "", "", partial(draw_bars, accuracy_chart(comparison, comparison.sections))
    names = folder_names(section.name for section in comparison.datasets)
    for section in comparison.datasets:
        folder = f"{names[section.name]}/"
        if len(comparison.datasets) == 1:
            folder = ""
        dataset_runs = list(runs[section.name].values())
        kinds = [kind for kind in BY_KIND if all(run.kinds(kind) for run in dataset_runs)]
        if kinds:
            overall = replace(accuracy_chart(comparison, [section]), base="")  # a bar for each model
            yield f"{folder}overall_accuracy_comparison.png", "", section.name, partial(draw_bars, overall)
        for kind in kinds:
            chart = kinds_chart(dataset_runs, kind)
            yield f"{folder}{BY_KIND[kind]}", CAPTIONS[kind], section.name, partial(draw_bars, chart)
        if all(map(_has_matrix, dataset_runs)) and len(comparison.datasets) <= DETAILED:
            draw = partial(draw_confusion, dataset_runs)
            yield f"{folder}confusion.png", CAPTIONS["confusion"], section.name, draw


def _has_matrix(run: ScoredRun) -> bool:
    """True if the answers are labels, and few enough for the cells of a confusion matrix to be read."""
    answers = {*run.gold, *run.predicted}
    return 0 < len(run.labels) <= MOST_IN_MATRIX and len(answers) <= MOST_LABELS


def folder_names(datasets: Iterable[str]) -> dict[str, str]:
    """A folder name for each dataset, all different: every character that is unsafe in a path becomes `_`.

    A name of a file beside it, and a long one, end in a hash of the dataset's name.

    >>> folder_names(["../mmlu/law", "mmlu law"])
    {'../mmlu/law': '_mmlu_law', 'mmlu law': 'mmlu_law'}
    """
    names: dict[str, str] = {}
    for dataset in datasets:
        name = re.sub(r"[^\w.,=+-]+", "_", dataset).lstrip(".-") or "set"
        if (
            name in (*COMPARED, RUN, ACCURACY_PLOT)
            or name in names.values()
            or len(name.encode()) > LONGEST_NAME
        ):
            beginning = name.encode()[:LONGEST_NAME].decode(errors="ignore")  # without half a character
            name = f"{beginning}-{text_sha256(dataset)[:8]}"
        names[dataset] = name
    return names


def accuracy_chart(comparison: Comparison, sections: Sequence[Section]) -> Chart:
    """Accuracy by section and model, with the majority class. The title is the decision."""
    series: dict[str, list[Share | None]] = {}
    deciding = comparison.deciding
    for model in dict.fromkeys([*deciding[0].conclusion.ranked, *comparison.models]):  # the best first
        scores = [section.figures.get(model) for section in sections]
        if any(scores):
            series[model] = [score.with_limits if score else None for score in scores]
    places = [f"{section_name(section.name)}\nn = {section.n:,}" for section in sections]
    baselines = [section.baseline.accuracy for section in sections]
    if any(map(math.isnan, baselines)):
        baselines = []
    base = ""
    if len(series) > 1:
        base = comparison.base
    best = ""
    if len(deciding) == 1:
        best = deciding[0].conclusion.recommended
    return Chart(decisions(comparison, brief=True)[0], places, series, baselines, base, best)


def kinds_chart(runs: Sequence[ScoredRun], kind: str) -> Chart:
    """Each model's accuracy by `kind` (type or subtype), the most common kinds first.

    The rest is one bar if there are more than `MOST_KINDS`, or more than a picture has room for; the title
    says so.
    """
    kind_of_row = runs[0].kinds(kind)  # all runs have the same rows
    counts = Counter(kind_of_row)
    names = sorted(counts, key=lambda name: (-counts[name], name))
    most = min(MOST_KINDS, int(TALLEST / (BETWEEN_PLACES + THINNEST_BAR * len(runs))))
    title = tr("Accuracy by {kind}", kind=tr(KIND_NAMES[kind]))
    groups = [[name] for name in names]
    if len(names) > most:
        groups = [*groups[: most - 1], names[most - 1 :]]
        title = tr(
            "Accuracy by {kind}: the {n:,} most common of {total:,}, the others in one bar",
            kind=tr(KIND_NAMES[kind]),
            n=most - 1,
            total=len(names),
        )
    place_by_name = {name: place for place, group in enumerate(groups) for name in group}
    labels = []
    for group in groups:
        label = short(group[0], LONGEST_PLACE)
        if len(group) > 1:
            label = tr("{n:,} others", n=len(group))
        labels.append(f"{label} (n = {sum(counts[name] for name in group):,})")
    rows_by_place: list[list[int]] = [[] for _unused in groups]
    for row, name in enumerate(kind_of_row):
        rows_by_place[place_by_name[name]].append(row)
    series: dict[str, list[Share | None]] = {run.model: [] for run in runs}
    for rows in rows_by_place:
        for run in runs:
            clusters = [run.groups[row] for row in rows] if run.groups else None
            series[run.model].append(rate_of([run.correct[row] for row in rows], clusters).with_limits)
    return Chart(title, labels, series)


def draw_bars(chart: Chart) -> "Figure":
    """Draw the chart as lying bars with their values, the base and the majority class as lines."""
    bars = {name: shares for name, shares in chart.series.items() if name != chart.base}
    count, places = len(bars), len(chart.places)
    recommended = tr("{model} (recommended)", model=chart.best)
    letters = max(map(len, chart.places)) + max(map(len, bars))  # beside the bars
    thickness = min(BAR, max(THINNEST_BAR, (TALLEST / places - BETWEEN_PLACES) / count))
    height = 1.8 + places * (BETWEEN_PLACES + thickness * count)
    figure, axes = new_plot(chart.title, (5 + 0.09 * letters, height))
    for index, (name, shares) in enumerate(bars.items()):
        shift = (index - (count - 1) / 2) * 0.8 / count
        at = [place + shift for place, share in enumerate(shares) if share]
        values, lows, highs = 100 * np.transpose([share for share in shares if share])
        label, edge, opacity = name, "white", 1.0
        if name == chart.best:
            label, edge = recommended, "black"
        elif chart.best:
            opacity = PALE
        axes.barh(
            at,
            np.where(values, values, STUB),
            0.75 / count,
            label=label,
            hatch=HATCHES[index // len(COLOURS) % len(HATCHES)],  # from when the colours are used up
            edgecolor=edge,
            alpha=opacity,
        )
        axes.errorbar(values, at, xerr=[values - lows, highs - values], **WHISKER)
        for value, high, place in zip(values, highs, at, strict=True):
            axes.text(high + 1, place, f"{value:.1f}", va="center", fontsize=8)
    base = chart.base
    if base == chart.best:
        base = recommended
    for name, style, line in (
        (base, "solid", chart.series.get(chart.base, ())),
        (tr("majority-class baseline"), "dashed", zip(chart.baselines)),  # shares without limits
    ):
        for place, share in enumerate(line):
            if share is not None:
                x, ends = 100 * share[0], [place - GAP, place + GAP]
                axes.plot([x, x], ends, color="black", linestyle=style, linewidth=1.2, label=name)
                name = ""  # the first line has the name of all
    axes.set_yticks(range(places), chart.places, fontsize=9)
    axes.set(xlabel=tr(AXIS), xlim=(0, 108), ylim=(places - 0.4, -0.6))
    axes.grid(axis="x")
    if height > TWO_AXES:
        axes.tick_params(axis="x", labeltop=True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


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
    title = tr("{name}: predicted (columns) by expected (rows); n = {n:,}", name=runs[0].dataset, n=n)
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
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=DARKEST, aspect="auto")
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
            axes.text(x, y, text, ha="center", va="center", fontsize=small)
    for ticks, labels in ((axes.set_xticks, columns), (axes.set_yticks, rows)):
        ticks(range(len(labels)), [short(label, LONGEST_LABEL) for label in labels], fontsize=small)
    axes.set(xlabel=tr("predicted"), ylabel=tr("expected (shares are of its row)"))
    axes.tick_params(length=0)
    return _commonest_error(counts)


def _commonest_error(counts: Mapping[tuple[str, str], int]) -> str:
    """Sentence on the most common confusion; `counts` is by (expected, predicted) label."""
    errors = {pair: count for pair, count in sorted(counts.items()) if pair[0] != pair[1]}
    if not errors:
        return tr("no error")
    (gold, predicted), count = max(errors.items(), key=lambda item: item[1])
    times = counted(count, "time", "times")
    return tr("{expected} answered as {predicted} {times}", expected=gold, predicted=predicted, times=times)
