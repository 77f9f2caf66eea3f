"""From a sweep's predictions to its choice: on one half of each set, reported on the other."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from core.documents import json_lines
from core.files import read_object, write_json, write_text
from eval.reports.markdown import grid
from eval.reports.numbers import interval, percent
from eval.reports.sweep_plot import SweepPlot, draw
from eval.reports.tables import Table
from eval.runs.results import PREDICTIONS, RESULTS
from eval.scoring.candidates import BASE
from eval.statistics.selection import Score, Split, choose, score

MEAN = "all sets"
Halves = tuple[Score, Score]  # of the rows to choose on, and of those to report


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep's folder, the names of its axes, where each model stands on them, and each set's halves."""

    out: Path
    axes: Sequence[str]
    points: Mapping[str, tuple[float, ...]]
    splits: Mapping[str, Split]


def report(sweep: Sweep) -> str:
    """Write sweep.json, table.md and a plot for each set; return the table."""
    sets = list(sweep.splits)
    found = {name: _read(sweep, name) for name in sets}
    chosen = {name: choose({m: first.accuracy for m, (first, _) in found[name].items()}) for name in sets}
    if len(sets) > 1:
        mean = {m: sum(found[name][m][0].accuracy for name in sets) / len(sets) for m in sweep.points}
        chosen[MEAN] = choose(mean)
    ship = chosen[MEAN if len(sets) > 1 else sets[0]]
    for name in sets:
        scores = {point: found[name][model][0] for model, point in sweep.points.items()}
        best, (_, reported) = sweep.points[chosen[name]], found[name][chosen[name]]
        plotted = SweepPlot(name, sweep.axes, scores, best, sweep.points[ship], reported)
        draw(plotted, sweep.out / f"{name}.png")
    text = f"{_choosing(found, chosen)}\n\n{_reporting(found, chosen)}"
    write_text(sweep.out / "table.md", text + "\n")
    write_json(sweep.out / "sweep.json", _told(sweep, found, chosen, ship))
    return text


def _read(sweep: Sweep, name: str) -> dict[str, Halves]:
    """Return each model's scores on both halves of a set."""
    first, second = sweep.splits[name]
    found = {}
    for model in sweep.points:
        folder = sweep.out / model / name
        rows = [row for _, row in json_lines(folder / PREDICTIONS)]
        majority = float(str(read_object(folder / RESULTS)["majority"]))
        found[model] = (score(rows, first, majority), score(rows, second, majority))
    return found


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
    """Return the chosen models' accuracy on the other half, beside the base's and the majority class's."""
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
    return interval((found.accuracy, found.low, found.high))


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
        "points": points,
        "chosen": dict(chosen),
        "ship": ship,
        "sets": sets,
        "rows_to_choose_on": {name: first for name, (first, _) in sweep.splits.items()},
    }
