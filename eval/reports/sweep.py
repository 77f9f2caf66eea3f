"""From a sweep's predictions to its choice: on one half of each set, reported on the other."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from core.documents import json_lines
from core.errors import ContentError
from core.files import write_json, write_text
from core.metrics import metric_of
from eval.metrics import find_metric
from eval.reports.compared import BASE
from eval.reports.markdown import grid
from eval.reports.numbers import interval, percent
from eval.reports.sweep_plot import SweepPlot, draw
from eval.reports.tables import Table
from eval.runs.results import PREDICTIONS
from eval.statistics.selection import Score, Split, choose, score

MEAN = "all sets"
ACCURACY = "accuracy"
Halves = tuple[Score, Score]  # of the rows to choose on, and of those to report


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep's folder, the names of its axes, where each model stands on them, each set's halves, and what
    the choice is made by: accuracy, or a metric of examples."""

    out: Path
    axes: Sequence[str]
    points: Mapping[str, tuple[float, ...]]
    splits: Mapping[str, Split]
    metric: str = ACCURACY


def report(sweep: Sweep) -> tuple[str, str]:
    """Write sweep.json, table.md and a plot for each set; return the table, and the model to ship."""
    found = {name: {model: _read(sweep, model, name) for model in sweep.points} for name in sweep.splits}
    values = {
        name: {model: one.accuracy if one.value is None else one.value for model, (one, _) in models.items()}
        for name, models in found.items()
    }
    if len(found) > 1:
        values[MEAN] = {m: fmean(own[m] for own in values.values()) for m in sweep.points}
    meaning = metric_of(ACCURACY) if sweep.metric == ACCURACY else find_metric(sweep.metric).meaning
    chosen = {name: choose(own, meaning) for name, own in values.items()}
    ship = [*chosen.values()][-1]
    for name, models in found.items():
        scores = {point: models[model][0] for model, point in sweep.points.items()}
        best = chosen[name]
        plotted = SweepPlot(
            name, sweep.axes, scores, sweep.points[best], sweep.points[ship], reported=models[best][1]
        )
        draw(plotted, sweep.out / f"{name}.png")
    text = f"{_choosing(found, chosen)}\n\n{_reporting(found, chosen)}"
    write_text(sweep.out / "table.md", text + "\n")
    told = {
        "axes": list(sweep.axes),
        "metric": sweep.metric,
        "points": {model: list(point) for model, point in sweep.points.items()},
        "chosen": chosen,
        "ship": ship,
        "sets": {
            name: {
                model: dict(zip(("choose", "report"), map(asdict, halves), strict=True))
                for model, halves in models.items()
            }
            for name, models in found.items()
        },
        "rows_to_choose_on": {name: first for name, (first, _) in sweep.splits.items()},
    }
    write_json(sweep.out / "sweep.json", told)
    return text, ship


def _read(sweep: Sweep, model: str, name: str) -> Halves:
    """Return a model's scores on both halves of a set; `ContentError` where no row holds what the metric
    needs."""
    rows = [row for _, row in json_lines(sweep.out / model / name / PREDICTIONS)]
    first, second = (_score([rows[row] for row in half], sweep.metric) for half in sweep.splits[name])
    return first, second


def _score(rows: Sequence[Mapping[str, object]], name: str) -> Score:
    found = score(rows)
    if name == ACCURACY:
        return found
    metric = find_metric(name)
    figure: Mapping[str, Any] | None = metric.of(rows)
    if figure is None:
        raise ContentError(f"--metric {name}: no prediction holds {' and '.join(metric.needs)}")
    return replace(found, value=figure["value"], value_ci95=figure["ci95"])


def _choosing(found: Mapping[str, Mapping[str, Halves]], chosen: Mapping[str, str]) -> str:
    """Return every model's accuracy on the half that was chosen on, the best marked."""
    columns = [["chosen on", *next(iter(found.values()))]]
    for name, models in found.items():
        cells = [_shown(first) + " ←" * (chosen[name] == model) for model, (first, _) in models.items()]
        columns.append([f"{name}, n = {_any(models)[0].n}", *cells])
    header, *rows = zip(*columns, strict=True)
    return grid(Table(header, rows))


def _reporting(found: Mapping[str, Mapping[str, Halves]], chosen: Mapping[str, str]) -> str:
    """Return the chosen models' accuracy on the other half, beside the base and the majority class there."""
    named = {f"best on {name}: {model}": model for name, model in chosen.items()}
    named |= {BASE: BASE} if BASE in next(iter(found.values())) else {}
    rows = [[told, *(_shown(models[model][1]) for models in found.values())] for told, model in named.items()]
    majorities = (percent(_any(models)[1].majority) for models in found.values())
    header = ["reported on", *(f"{name}, n = {_any(models)[1].n}" for name, models in found.items())]
    return grid(Table(header, [*rows, ["majority-class baseline", *majorities]]))


def _any(models: Mapping[str, Halves]) -> Halves:
    return next(iter(models.values()))


def _shown(found: Score) -> str:
    accuracy = interval((found.accuracy, found.low, found.high))
    return accuracy if found.value is None else f"{found.value:.4g}, accuracy {accuracy}"
