"""The runs of a sweep on the examples that it did not choose on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import read_object
from tuneyard.eval.read.scored_run import ScoredRun, without

SWEEP = "sweep.json"
STEP = "step"  # the axis of a run's checkpoints
FIELDS = ("points", "axes", "rows_to_choose_on")


def held_out(folder: Path, runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """The base, each adapter alone by its own name, and the chosen model, with the held-out rows only."""
    sweep = read_object(folder / SWEEP)
    for field in FIELDS:
        if field not in sweep:
            fields = show_value(list(sweep))
            raise ContentError(f"{folder / SWEEP}: no {field} (found {fields}): sweep again")
    points, axes, choosing_rows = (sweep[field] for field in FIELDS)
    if not (isinstance(points, Mapping) and isinstance(axes, list) and isinstance(choosing_rows, Mapping)):
        raise ContentError(
            f"{folder / SWEEP}: points, axes or rows_to_choose_on: not as eval.sweep writes them"
        )
    names = {"base": "base", **_single_adapters(points, axes)}
    ship = str(sweep.get("ship"))
    names.setdefault(ship, ship)
    kept = []
    for model, name in names.items():
        for run in runs:
            rows = choosing_rows.get(run.dataset)
            if run.model == model and isinstance(rows, list):
                kept.append(without(replace(run, model=name), {str(row) for row in rows}))
    return kept


def _single_adapters(points: Mapping[str, object], axes: Sequence[object]) -> dict[str, str]:
    """The model that is each adapter alone at weight 1, with the adapter's name, in their order."""
    names: dict[str, str] = {}
    if len(axes) < 2:
        return names
    for axis in axes:
        alone = [float(other == axis) for other in axes]
        for model, point in points.items():
            if point == alone:
                names[model] = str(axis)
    return names
