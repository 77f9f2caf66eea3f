"""Plots that are read at arm's length: the title says the finding, every bar has its interval.

accuracy.png always; model_comparison.png (by subtype), overall_accuracy_comparison.png and
type_accuracy_comparison.png for sets whose rows have types.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.measure.comparison import Comparison, Figure, Run, Section
from eval.measure.statistics import wilson
from eval.output.drawing import Typeface, choose_typeface, colour, page
from eval.output.tables import points, show_p

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_KINDS = 25
AXIS = "accuracy, % (whiskers: 95 % interval)"
Share = tuple[int, int]  # right answers, rows


def write_plots(
    comparison: Comparison, runs: Sequence[Run], out: Path
) -> tuple[list[str], Mapping[str, str]]:
    """Write all plots that the runs allow; return their paths below `out` and the key of numbered labels."""
    typed = {run.dataset: run for run in runs if run.kinds}
    kinds = [name for run in typed.values() for names in run.kinds.values() for name in _commonest(names)]
    names = [*comparison.models, *(section.name for section in comparison.sets), *kinds]
    typeface = choose_typeface(names)
    sections = [*comparison.sets, *([comparison.mean] if comparison.mean else [])]
    plot_accuracy(comparison, sections, out / "accuracy.png", typeface)
    written = ["accuracy.png"]
    for section in comparison.sets:
        if section.name in typed:
            own = [run for run in runs if run.dataset == section.name]
            place = Path() if len(typed) == 1 else Path(section.name)
            written += [
                str(place / name) for name in _plot_typed(comparison, section, own, out / place, typeface)
            ]
    return written, typeface.numbered


def _plot_typed(
    comparison: Comparison, section: Section, runs: Sequence[Run], out: Path, typeface: Typeface
) -> list[str]:
    overall, names = (
        "overall_accuracy_comparison.png",
        {"subtype": "model_comparison.png", "type": "type_accuracy_comparison.png"},
    )
    plot_accuracy(comparison, [section], out / overall, typeface)
    written = [overall]
    for kind, name in names.items():
        if kind in runs[0].kinds:
            plot_kinds(runs, kind, comparison.base, out / name, typeface)
            written.append(name)
    return written


def plot_accuracy(
    comparison: Comparison, sections: Sequence[Section], path: Path, typeface: Typeface
) -> None:
    """Draw accuracy by section and model as grouped bars with 95 % intervals and the majority class."""
    models = [model for model in comparison.models if any(model in section.figures for section in sections)]
    width = min(20.0, max(6.0, 1.6 + len(sections) * (0.5 + 0.45 * len(models))))
    with page(path, _finding(comparison, sections[-1]), width, 4.8, typeface) as axes:
        bar = 0.8 / len(models)
        for index, model in enumerate(models):
            at = [(place, s.figures[model]) for place, s in enumerate(sections) if model in s.figures]
            offset = (index - (len(models) - 1) / 2) * bar
            _bars(
                axes,
                [place + offset for place, _ in at],
                [f for _, f in at],
                bar,
                typeface.show(model),
                index,
            )
        for place, section in enumerate(sections):
            ends, level = [place - 0.46, place + 0.46], [100 * section.majority] * 2
            label = "majority class" if place == 0 else ""
            axes.plot(ends, level, "--", color="black", linewidth=1.2, label=label)
        axes.set_xticks(range(len(sections)), [f"{typeface.show(s.name)}\nn = {s.n:,}" for s in sections])
        axes.set_ylabel(AXIS)
        axes.set_ylim(0, 112)
        axes.set_yticks(range(0, 101, 20))
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.legend(
            ncols=min(5, len(models) + 1), loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False
        )


def _finding(comparison: Comparison, section: Section) -> str:
    best = section.best
    if best is None:
        return f"No model is shown to be better than {comparison.base} ({section.name})"
    test = next(t for t in section.against_base if t.model == best)
    where = (
        f"on average over {len(comparison.sets)} sets" if section is comparison.mean else f"on {section.name}"
    )
    rivals = "".join(f", not told from {t.against}" for t in section.rivals)
    gain = f"{points(test.value)[1:]} points {where} (p {show_p(test.p)})"
    return f"{best} beats {comparison.base} by {gain}{rivals}"


def _bars(
    axes: "Axes", places: Sequence[float], figures: Sequence[Figure], width: float, label: str, index: int
) -> None:
    heights = [100 * figure.accuracy for figure in figures]
    below = [100 * (figure.accuracy - figure.low) for figure in figures]
    above = [100 * (figure.high - figure.accuracy) for figure in figures]
    fill, hatch = colour(index)
    axes.bar(places, heights, width * 0.94, label=label, color=fill, hatch=hatch, edgecolor="white")
    axes.errorbar(places, heights, [below, above], fmt="none", ecolor="black", elinewidth=1, capsize=3)
    for place, figure in zip(places, figures, strict=True):
        text = f"{100 * figure.accuracy:.1f}"
        axes.text(place, 100 * figure.high + 1.5, text, ha="center", va="bottom", fontsize=8)


def plot_kinds(runs: Sequence[Run], kind: str, base: str, path: Path, typeface: Typeface) -> None:
    """Draw each model's accuracy by `kind` (type or subtype) as lying bars, the commonest kinds first."""
    names = _commonest(runs[0].kinds[kind])
    shares = {run.model: _by_kind(run, kind, names) for run in runs}
    labels = [f"{typeface.show(name)} (n = {shares[runs[0].model][name][1]})" for name in names]
    height = 1.6 + len(names) * (0.15 + 0.16 * len(runs))
    with page(path, _kinds_finding(shares, kind, base), 8.0, height, typeface) as axes:
        bar = 0.8 / len(runs)
        for index, (model, own) in enumerate(shares.items()):
            places = [place + (index - (len(runs) - 1) / 2) * bar for place in range(len(names))]
            _lying_bars(axes, places, list(own.values()), bar, typeface.show(model), index)
        axes.set_yticks(range(len(names)), labels, fontsize=9)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel(AXIS)
        axes.grid(axis="x", color="#dddddd", linewidth=0.8)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _lying_bars(
    axes: "Axes", places: Sequence[float], shares: Sequence[Share], width: float, label: str, index: int
) -> None:
    values = [right / n for right, n in shares]
    limits = [wilson(right, n) for right, n in shares]
    below = [100 * (value - low) for value, (low, _) in zip(values, limits, strict=True)]
    above = [100 * (high - value) for value, (_, high) in zip(values, limits, strict=True)]
    widths = [100 * value for value in values]
    fill, hatch = colour(index)
    axes.barh(places, widths, width * 0.94, label=label, color=fill, hatch=hatch, edgecolor="white")
    axes.errorbar(
        widths, places, xerr=[below, above], fmt="none", ecolor="black", elinewidth=0.8, capsize=1.5
    )


def _commonest(kinds: Sequence[str]) -> list[str]:
    """The names by number of rows; what is beyond the first 25 is taken together as `others`."""
    names = [name for name, _ in sorted(Counter(kinds).items(), key=lambda item: (-item[1], item[0]))]
    return names if len(names) <= SHOWN_KINDS else [*names[: SHOWN_KINDS - 1], "others"]


def _by_kind(run: Run, kind: str, names: Sequence[str]) -> dict[str, Share]:
    right: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for name, correct in zip(run.kinds[kind], run.correct, strict=True):
        shown = name if name in names else "others"
        right[shown] += correct
        rows[shown] += 1
    return {name: (right[name], rows[name]) for name in names}


def _kinds_finding(shares: Mapping[str, Mapping[str, Share]], kind: str, base: str) -> str:
    """How the best of the other models stands against the base, kind by kind."""
    others = [model for model in shares if model != base]
    if base not in shares or not others:
        return f"accuracy by {kind}"
    best = max(others, key=lambda model: sum(right for right, _ in shares[model].values()))
    pairs = [(shares[best][name][0], shares[base][name][0]) for name in shares[base]]
    ahead, behind = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    return f"{best} is ahead of {base} in {ahead} of {len(pairs)} {kind}s, behind in {behind}"
