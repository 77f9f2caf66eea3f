"""A sweep's folder as runs to compare: the chosen model, the single adapters and the base, on the half of
each dataset that the choice did not see."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from core.errors import ContentError, show_value
from core.files import read_object
from eval.runs.judgement import ScoredRun

SWEEP = "sweep.json"
FIGURES = ("accuracy", "n", "majority", "majority_label", "metrics")  # of the whole dataset, not of its half


def is_sweep(folder: Path) -> bool:
    """Return whether `eval.sweep` has written this folder to its end."""
    return (folder / SWEEP).is_file()


def held_out(folder: Path, runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """Return the runs of a sweep's folder that answer its question, each with the held-out examples alone.

    A single adapter goes by its own name. Every other folder's runs come back as they are. `ContentError`
    where sweep.json is damaged.
    """
    if not is_sweep(folder):
        return list(runs)
    found = read_object(folder / SWEEP)
    points, axes, chose = (_field(folder, found, name) for name in ("points", "axes", "rows_to_choose_on"))
    if not (isinstance(points, Mapping) and isinstance(axes, list) and isinstance(chose, Mapping)):
        raise ContentError(
            f"{folder / SWEEP}: points, axes or rows_to_choose_on: not as eval.sweep writes them"
        )
    names = {"base": "base", **_singles(points, axes)}
    names.setdefault(str(found.get("ship")), str(found.get("ship")))
    order = list(names)
    asked = sorted((run for run in runs if run.model in names), key=lambda run: order.index(run.model))
    kept = [(run, chose.get(run.dataset)) for run in asked]
    return [
        without(replace(run, model=names[run.model]), {str(row) for row in rows})
        for run, rows in kept
        if isinstance(rows, list)
    ]


def _field(folder: Path, found: Mapping[str, object], name: str) -> object:
    if name not in found:
        raise ContentError(f"{folder / SWEEP}: no {name} (found {show_value(list(found))}): sweep again")
    return found[name]


def _singles(points: Mapping[str, object], axes: Sequence[object]) -> dict[str, str]:
    """Return the model that is each adapter alone at weight 1, with the adapter's name, in their order."""
    if len(axes) < 2:
        return {}
    return {
        model: str(axis)
        for axis in axes
        for model, point in points.items()
        if point == [float(other == axis) for other in axes]
    }


def without(run: ScoredRun, rows: Collection[str]) -> ScoredRun:
    """Return the run without some of its rows, and without figures that were of all of them."""
    facts = {name: value for name, value in run.facts.items() if name not in FIGURES}
    return replace(run.only([row not in rows for row in run.rows]), facts=facts)
