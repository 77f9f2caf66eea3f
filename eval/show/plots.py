"""Plots that are read at arm's length: the title says the finding, every bar has its interval.

accuracy.png always; for sets of labels confusion.png, and calibration.png where the labels'
probabilities are known; for sets whose rows have types overall_accuracy_comparison.png,
type_accuracy_comparison.png and (by subtype) model_comparison.png.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tuneyard.core.drawing import COLOURS, Typeface, legend_below, plot, plot_texts
from tuneyard.core.language import joined, tr, tr_counted
from tuneyard.core.number_format import points, show_p
from tuneyard.eval.judge.conclusions import Comparison, Section
from tuneyard.eval.judge.questions.against_base import section_name
from tuneyard.eval.metrics.labels import MOST
from tuneyard.eval.read.run import ScoredRun
from tuneyard.eval.show.panels import draw_calibration, draw_confusion
from tuneyard.eval.statistics.rates import rate_of

STANDING = 8  # more places than this are drawn as lying bars
KINDS = 25
RARE = 5  # kinds of fewer rows are taken together
DETAILED = 12  # of more sets than this, matrices and diagrams would be a pile that nobody looks through
OTHERS = "others"
BY_KIND = {"type": "type_accuracy_comparison.png", "subtype": "model_comparison.png"}
CAPTIONS = {
    "accuracy": "Accuracy of every model with its 95 % interval; dashed is the majority-class baseline.",
    "overall_accuracy_comparison": "Accuracy of every model on {name} with its 95 % interval.",
    "type_accuracy_comparison": "Accuracy on {name} by type with 95 % intervals, the commonest type first.",
    "model_comparison": "Accuracy on {name} by subtype with 95 % intervals, the commonest subtype first.",
    "confusion": "Predicted by actual labels on {name}: counts of examples, and their shares of the row.",
    "calibration": "Accuracy by confidence on {name}, beside the dashed line on which both are equal; "
    "bars count the examples.",
}
HATCHES = (None, "//", "..", "xx")
AXIS = "accuracy, % (whiskers: 95 % interval)"
BELOW_MAJORITY = "{model} is better than the base, but worse than the majority class ({where})"
GAP = 0.46  # half the length of a baseline's mark; places are 1 apart
STUB = 1.5  # percent
Share = tuple[float, float, float]  # value, low and high limit
Kind = tuple[list[bool], list[str]]  # of each row whether it is right, and its group (none: independent)
Draw = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn: for each series (a model) its share at each place (a set or a type), None for no bar;
    `baselines` are the majority class's shares, one for each place, or empty."""

    title: str
    places: Sequence[str]
    series: Mapping[str, Sequence[Share | None]]
    baselines: Sequence[float] = ()


def write_plots(
    comparison: Comparison, runs: Sequence[ScoredRun], out: Path, form: str = "png"
) -> tuple[list[str], Typeface]:
    """Write all plots that the runs allow, as PNG or SVG; return their paths below `out` and the typeface."""
    from tqdm import tqdm

    with plot_texts(_labels(comparison, runs)) as typeface:
        plots = {
            f"{name.removesuffix('png')}{form}": draw for name, draw in _plots(comparison, runs, typeface)
        }
        for name, draw in tqdm(plots.items(), desc="plots", delay=2, leave=False):
            draw(out / name)
    return list(plots), typeface


def caption(name: str, comparison: Comparison) -> str:
    """Return the sentence below a plot, by the path that `write_plots` gave it."""
    folder, _, file = name.rpartition("/")
    names = [one.name for one in comparison.sets if not folder or folder_name(one.name) == folder]
    return tr(CAPTIONS[Path(file).stem], name=names[0])


def _labels(comparison: Comparison, runs: Sequence[ScoredRun]) -> list[str]:
    """Every text that may stand on a plot."""
    kinds = [name for run in runs for rows in run.kinds.values() for name in _commonest(rows)]
    labels = [label for run in runs if _labelled(run) for label in {*run.gold, *run.predicted}]
    sets = [section.name for section in comparison.sets]
    return list(dict.fromkeys([*comparison.models, *sets, *kinds, *sorted(labels)]))


def _plots(
    comparison: Comparison, runs: Sequence[ScoredRun], typeface: Typeface
) -> Iterator[tuple[str, Draw]]:
    """(path below OUT, what draws it) of every plot; several sets have a folder of plots each."""
    yield "accuracy.png", partial(draw_bars, accuracy_chart(comparison, comparison.sections), typeface)
    for section in comparison.sets:
        folder = "" if len(comparison.sets) == 1 else f"{folder_name(section.name)}/"
        own = [run for run in runs if run.dataset == section.name]
        parted = [kind for kind in BY_KIND if all(kind in run.kinds for run in own)]
        if parted:
            overall = accuracy_chart(comparison, [section])
            yield f"{folder}overall_accuracy_comparison.png", partial(draw_bars, overall, typeface)
        for kind in parted:
            parts = kinds_chart(own, kind, comparison.base)
            yield f"{folder}{BY_KIND[kind]}", partial(draw_bars, parts, typeface)
        if len(comparison.sets) > DETAILED:
            continue
        if all(map(_labelled, own)):
            yield f"{folder}confusion.png", partial(draw_confusion, own, typeface)
        if found := {model: one.calibration for model, one in section.figures.items() if one.calibration}:
            yield f"{folder}calibration.png", partial(draw_calibration, section.name, found, typeface)


def _labelled(run: ScoredRun) -> bool:
    """Whether the answers are labels that a matrix can hold, and no free text."""
    return len(set(run.gold)) > 1 and len({*run.gold, *run.predicted}) <= MOST


def folder_name(dataset: str) -> str:
    """Return a set's name as the name of a folder, whatever stands in it.

    >>> folder_name("../mmlu/law")
    '_mmlu_law'
    """
    return re.sub(r"[^\w.,=+-]+", "_", dataset).lstrip(".") or "set"


def accuracy_chart(comparison: Comparison, sections: Sequence[Section]) -> Chart:
    """Return accuracy by section and model, with the majority class; the title is on the first compared."""
    models = [model for model in comparison.models if any(model in section.figures for section in sections)]
    figures = {model: [section.figures.get(model) for section in sections] for model in models}
    series = {
        model: [None if one is None else (one.value, one.low, one.high) for one in own]
        for model, own in figures.items()
    }
    places = [f"{section_name(section.name)}\nn = {section.n:,}" for section in sections]
    compared = [section for section in sections if section.against_base]
    judged = compared[0] if compared else sections[0]
    known = not any(math.isnan(section.majority) for section in sections)
    return Chart(_finding(comparison, judged), places, series, [s.majority for s in sections if known])


def _finding(comparison: Comparison, section: Section) -> str:
    if not section.against_base:
        return tr("Accuracy; nothing was compared with {base}", base=comparison.base)
    best = section.best
    if best is None and section.better:
        model = section.better[0]
        below = [section_name(one.name) for one in section.sections_below_majority(model)]
        return tr(BELOW_MAJORITY, model=model, where=joined(below))
    if best is None:
        where = section_name(section.name)
        return tr("No model is shown to be better than {base} ({where})", base=comparison.base, where=where)
    test = next(test for test in section.against_base if test.model == best)
    where = tr("on {name}", name=section.name)
    if section is comparison.mean:
        where = tr("on average over {count} datasets", count=len(comparison.sets))
    rivals = "".join(tr(", statistically tied with {model}", model=test.against) for test in section.rivals)
    told = "{model} beats {base} by {gain} points {where} (p {p})"
    gain, p = points(test.value).removeprefix("+"), show_p(test.p)
    return tr(told, model=best, base=comparison.base, gain=gain, where=where, p=p) + rivals


def kinds_chart(runs: Sequence[ScoredRun], kind: str, base: str) -> Chart:
    """Return each model's accuracy by `kind` (type or subtype), the commonest kinds first."""
    names = _commonest(runs[0].kinds[kind])
    counts = {run.model: _by_kind(run, kind, names) for run in runs}
    shown = {OTHERS: tr(OTHERS)} if OTHERS in names else {}
    places = [
        f"{shown.get(name, name)} (n = {len(right):,})" for name, (right, _) in counts[runs[0].model].items()
    ]
    rates = {
        model: [rate_of(right, groups or None) for right, groups in own.values()]
        for model, own in counts.items()
    }
    series = {model: [(one.value, *one.ci95) for one in own] for model, own in rates.items()}
    return Chart(_kinds_finding(counts, kind, base), places, series)


def _commonest(kinds: Sequence[str]) -> list[str]:
    """The names by number of rows; of several rare ones, and beyond the first 25, the rest is `others`."""
    counted = Counter(kinds)
    names = sorted(counted, key=lambda name: (-counted[name], name))
    kept = ([name for name in names if counted[name] >= RARE] or names)[: KINDS - 1]
    return names if len(names) <= len(kept) + 1 else [*kept, OTHERS]


def _by_kind(run: ScoredRun, kind: str, names: Sequence[str]) -> dict[str, Kind]:
    parted: dict[str, Kind] = {name: ([], []) for name in names}
    for place, name in enumerate(run.kinds[kind]):
        right, groups = parted[name if name in names else OTHERS]
        right.append(run.correct[place])
        groups += [] if run.groups is None else [run.groups[place]]
    return parted


def _kinds_finding(counts: Mapping[str, Mapping[str, Kind]], kind: str, base: str) -> str:
    """How the best of the other models stands against the base, kind by kind."""
    others = [model for model in counts if model != base]
    if base not in counts or not others:
        return tr("Accuracy by {kind}", kind=tr(kind))
    best = max(others, key=lambda model: sum(sum(right) for right, _ in counts[model].values()))
    pairs = [(sum(counts[best][name][0]), sum(counts[base][name][0])) for name in counts[base]]
    ahead, behind = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    told = "{best} is ahead of {base} in {ahead} of {kinds}, behind in {behind}"
    return tr(told, best=best, base=base, ahead=ahead, kinds=tr_counted(len(pairs), kind), behind=behind)


def draw_bars(chart: Chart, typeface: Typeface, path: Path) -> None:
    """Write the chart as standing bars, or as lying ones: for many places, or long names."""
    draw = draw_standing if chart.baselines and len(chart.places) <= STANDING else draw_lying
    draw(chart, typeface, path)


def draw_standing(chart: Chart, typeface: Typeface, path: Path) -> None:
    """Write the chart as standing bars with their values above them: for few places."""
    count = len(chart.series)
    width = max(6.0, 1.6 + len(chart.places) * (0.5 + 0.45 * count))
    with plot(chart.title, (min(20.0, width), 4.8), path, typeface) as axes:
        for index, (name, shares) in enumerate(chart.series.items()):
            at, values, errors = _bars(shares, index, count)
            axes.bar(at, _seen(values), 0.75 / count, **_look(index, typeface.show(name)))
            axes.errorbar(at, values, errors, fmt="none", ecolor="black", elinewidth=1, capsize=3)
            for place, value, above in zip(at, values, errors[1], strict=True):
                axes.text(place, value + above + 1.5, f"{value:.1f}", ha="center", va="bottom", fontsize=8)
        for place, share in enumerate(chart.baselines):
            axes.plot([place - GAP, place + GAP], [100 * share] * 2, **_mark(place))
        axes.set_xticks(range(len(chart.places)), [typeface.show(place) for place in chart.places])
        axes.set(ylabel=tr(AXIS), ylim=(0, 100), yticks=range(0, 101, 20))
        axes.grid(axis="y")
        legend_below(axes, min(5, count + 1))


def draw_lying(chart: Chart, typeface: Typeface, path: Path) -> None:
    """Write the chart as lying bars: for many places, or long names."""
    count, places = len(chart.series), len(chart.places)
    with plot(chart.title, (8.0, 1.6 + places * (0.15 + 0.16 * count)), path, typeface) as axes:
        for index, (name, shares) in enumerate(chart.series.items()):
            at, values, errors = _bars(shares, index, count)
            axes.barh(at, _seen(values), 0.75 / count, **_look(index, typeface.show(name)))
            axes.errorbar(values, at, xerr=errors, fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5)
        for place, share in enumerate(chart.baselines):
            axes.plot([100 * share] * 2, [place - GAP, place + GAP], **_mark(place))
        axes.set_yticks(range(places), [typeface.show(place) for place in chart.places], fontsize=9)
        axes.set(xlabel=tr(AXIS), xlim=(0, 100), ylim=(places - 0.4, -0.6))
        axes.grid(axis="x")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _bars(
    shares: Sequence[Share | None], index: int, count: int
) -> tuple[list[float], list[float], list[list[float]]]:
    """Places, values and (below, above) errors in percent of series `index` of `count`."""
    shift = (index - (count - 1) / 2) * 0.8 / count
    there = [(place + shift, share) for place, share in enumerate(shares) if share is not None]
    values = [100 * value for _, (value, _, _) in there]
    below = [100 * (value - low) for _, (value, low, _) in there]
    above = [100 * (high - value) for _, (value, _, high) in there]
    return [place for place, _ in there], values, [below, above]


def _seen(values: Sequence[float]) -> list[float]:
    """The lengths of the bars: a bar of 0 % is a stub, else it would look like a model that is not there."""
    return [value or STUB for value in values]


def _look(index: int, label: str) -> dict[str, Any]:
    """How the bars of a series look; hatches begin where the colours end."""
    return {
        "label": label,
        "color": COLOURS[index % len(COLOURS)],
        "hatch": HATCHES[index // len(COLOURS) % len(HATCHES)],
        "edgecolor": "white",
    }


def _mark(place: int) -> dict[str, Any]:
    label = tr("majority-class baseline") if place == 0 else ""
    return {"color": "black", "linestyle": "dashed", "linewidth": 1.2, "label": label}
