"""Runs on the half of each dataset that a choice did not see: a sweep's, or that of the best of several."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from core.errors import ContentError, RequestError, show_value
from core.files import read_object
from eval.runs.judgement import ScoredRun, by_dataset
from eval.statistics.selection import split_halves

SWEEP = "sweep.json"
SEED = 42
FIGURES = ("accuracy", "n", "majority", "majority_label", "metrics")  # of the whole dataset, not of its half


def is_sweep(folder: Path) -> bool:
    """Return whether `eval.sweep` has written this folder to its end."""
    return (folder / SWEEP).is_file()


def held_out(folder: Path, runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """Return the runs of a sweep's folder that answer its question, each with the held-out examples alone,
    and a single adapter by its own name; those of any other folder as they are. `ContentError` for a damaged
    sweep.json."""
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


@dataclass(frozen=True, slots=True)
class Choice:
    """The model that was chosen, on how many rows, and every candidate's mean accuracy there."""

    model: str
    n: int
    scores: Mapping[str, float]


def choose_on_half(runs: Sequence[ScoredRun], base: str) -> tuple[list[ScoredRun], Choice]:
    """Return the base's and the chosen model's runs on the rows that the choice did not see, and the choice.

    Rows of a cluster stay in one half. `RequestError` unless there are two candidates or more, and every
    model has rows on every dataset.
    """
    by_set = by_dataset(runs)
    models = list(dict.fromkeys(run.model for run in runs))
    candidates = [model for model in models if model != base]
    if len(candidates) < 2 or base not in models:
        raise RequestError(
            f"--choose-on half: found {', '.join(models)}, expected {base} and two others or more"
        )
    seen: dict[str, set[str]] = {}
    for dataset, own in by_set.items():
        if lacking := [model for model in models if model not in own or not own[model].rows]:
            raise RequestError(f"--choose-on half: no rows of {', '.join(lacking)} on {dataset}")
        first = next(iter(own.values()))
        half, _ = split_halves(first.groups or first.rows, SEED, dataset)
        seen[dataset] = {first.rows[row] for row in half}
    chosen_on = [run.only([row in seen[run.dataset] for row in run.rows]) for run in runs]
    scores = {
        model: fmean(fmean(run.correct) for run in chosen_on if run.model == model) for model in candidates
    }
    best = max(scores, key=lambda model: scores[model])
    told = Choice(best, sum(map(len, seen.values())), scores)
    return [without(run, seen[run.dataset]) for run in runs if run.model in (base, best)], told
