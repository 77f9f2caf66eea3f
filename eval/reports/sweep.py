"""From a sweep's predictions to its choice: on one half of each set, reported on the other."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from core.documents import json_lines
from core.errors import ContentError
from core.files import write_json, write_text
from core.metrics import Metric, metric_of
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

    @property
    def meaning(self) -> Metric:
        """The unit and direction of the metric that the choice is made by."""
        return metric_of(ACCURACY) if self.metric == ACCURACY else find_metric(self.metric).meaning


def report(sweep: Sweep) -> tuple[str, str]:
    """Write sweep.json, table.md and a plot for each set; return the table, and the model to ship."""
    sets = list(sweep.splits)
    found = {name: _read(sweep, name) for name in sets}
    chosen = {name: choose(_values(models), sweep.meaning) for name, models in found.items()}
    if len(sets) > 1:
        values = [_values(models) for models in found.values()]
        mean = {m: sum(own[m] for own in values) / len(sets) for m in sweep.points}
        chosen[MEAN] = choose(mean, sweep.meaning)
    ship = chosen[MEAN if len(sets) > 1 else sets[0]]
    for name in sets:
        scores = {point: found[name][model][0] for model, point in sweep.points.items()}
        best, (_, reported) = sweep.points[chosen[name]], found[name][chosen[name]]
        plotted = SweepPlot(name, sweep.axes, scores, best, sweep.points[ship], reported)
        draw(plotted, sweep.out / f"{name}.png")
    text = f"{_choosing(found, chosen)}\n\n{_reporting(found, chosen)}"
    write_text(sweep.out / "table.md", text + "\n")
    write_json(sweep.out / "sweep.json", _told(sweep, found, chosen, ship))
    return text, ship


def _read(sweep: Sweep, name: str) -> dict[str, Halves]:
    """Return each model's scores on both halves of a set."""
    first, second = sweep.splits[name]
    found = {}
    for model in sweep.points:
        rows = [row for _, row in json_lines(sweep.out / model / name / PREDICTIONS)]
        scores = score(rows, first), score(rows, second)
        if sweep.metric != ACCURACY:
            one, other = ([rows[row] for row in half] for half in (first, second))
            scores = _add(scores[0], sweep.metric, one), _add(scores[1], sweep.metric, other)
        found[model] = scores
    return found


def _add(found: Score, name: str, rows: Sequence[Mapping[str, object]]) -> Score:
    """Return a score with the metric of its rows too; `ContentError` where no row holds what that needs."""
    metric = find_metric(name)
    figure = metric.of(rows)
    if figure is None:
        raise ContentError(f"--metric {name}: no prediction holds {' and '.join(metric.needs)}")
    limits = figure["ci95"]
    return replace(
        found, value=float(str(figure["value"])), value_ci95=limits if isinstance(limits, list) else None
    )


def _values(models: Mapping[str, Halves]) -> dict[str, float]:
    """Return by model what is chosen by: its metric, else its accuracy, on the rows to choose on."""
    return {m: one.accuracy if one.value is None else one.value for m, (one, _) in models.items()}


def _choosing(found: Mapping[str, Mapping[str, Halves]], chosen: Mapping[str, str]) -> str:
    """Return every model's accuracy on the half that was chosen on, the best marked."""
    columns = []
    for name, models in found.items():
        marks = {model: " ←" * (chosen[name] == model) for model in models}
        cells = [_shown(first) + marks[model] for model, (first, _) in models.items()]
        columns.append([f"{name}, n = {_any(models)[0].n}", *cells])
    names = ["chosen on", *next(iter(found.values()))]
    header, *rows = zip(names, *columns, strict=True)
    return grid(Table(header, rows))


def _reporting(found: Mapping[str, Mapping[str, Halves]], chosen: Mapping[str, str]) -> str:
    """Return the chosen models' accuracy on the other half, beside the base and the majority class there."""
    named = {f"best on {name}: {model}": model for name, model in chosen.items()}
    named |= {BASE: BASE} if BASE in next(iter(found.values())) else {}
    rows = [[told, *(_shown(models[model][1]) for models in found.values())] for told, model in named.items()]
    rows.append(
        ["majority-class baseline", *(percent(_any(models)[1].majority) for models in found.values())]
    )
    header = ["reported on", *(f"{name}, n = {_any(models)[1].n}" for name, models in found.items())]
    return grid(Table(header, rows))


def _any(models: Mapping[str, Halves]) -> Halves:
    return next(iter(models.values()))


def _shown(found: Score) -> str:
    accuracy = interval((found.accuracy, found.low, found.high))
    return accuracy if found.value is None else f"{found.value:.4g}, accuracy {accuracy}"


def _told(
    sweep: Sweep, found: Mapping[str, Mapping[str, Halves]], chosen: Mapping[str, str], ship: str
) -> dict[str, object]:
    sets = {
        name: {
            m: {"choose": asdict(first), "report": asdict(second)} for m, (first, second) in models.items()
        }
        for name, models in found.items()
    }
    points = {model: list(point) for model, point in sweep.points.items()}
    return {
        "axes": list(sweep.axes),
        "metric": sweep.metric,
        "points": points,
        "chosen": dict(chosen),
        "ship": ship,
        "sets": sets,
        "rows_to_choose_on": {name: first for name, (first, _) in sweep.splits.items()},
    }
