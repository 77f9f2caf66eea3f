"""From what was named on a command line to a judgement: what compare and report have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tuneyard.core.errors import RequestError
from tuneyard.core.language import tr
from tuneyard.core.metrics import METRICS
from tuneyard.eval.judge.alignment import check_rows
from tuneyard.eval.judge.comparison import compare
from tuneyard.eval.judge.conclusions import Comparison
from tuneyard.eval.judge.questions import (
    Choice,
    LabelBias,
    ReplicatedRecipe,
    Slice,
    choose_on_half,
    compare_replicates,
    compare_slices,
    parse_replicates,
)
from tuneyard.eval.read.contamination import training_warnings
from tuneyard.eval.read.find import parse_source, read_runs
from tuneyard.eval.read.measured import meaning, measurable
from tuneyard.eval.read.results import PREDICTIONS
from tuneyard.eval.read.run import ScoredRun

BASE = "base"
# Student's 97.5 % point with seeds - 1 degrees of freedom over √seeds, as a multiple of that of five
WIDER = {2: 7.2, 3: 2.0, 4: 1.3}
MASS = "label_mass"  # how much of the probability any label has: says nothing of which model to ship


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """Runs, what follows from them, and what to bear in mind."""

    comparison: Comparison
    runs: Sequence[ScoredRun]
    warnings: Sequence[str]
    choice: Choice | None = None
    recipes: Sequence[ReplicatedRecipe] = ()
    sliced_by: str = ""
    slices: Sequence[Slice] = ()
    label_biases: Sequence[LabelBias] = ()
    other_metrics: Sequence[Comparison] = ()


def compare_results(
    results: Sequence[str],
    decide_on: str = "",
    margin: float | None = None,
    replicates: Sequence[str] = (),
    by: str = "",
    choose: bool = False,
) -> ComparedRuns:
    """Read and compare the runs named by `[NAME=]RESULTS`; the base is the model `base`, else the first.

    The verdict is on the mean, or on the dataset `decide_on`; `margin` is a share, `replicates` names the
    models of a recipe (`NAME=MODEL,MODEL`), `by` a field to part the rows by. With `choose`, the best model
    is chosen on one half of the rows and compared with the base on the other. Warnings go to stderr too.
    """
    recipes = parse_replicates(replicates)
    if choose and recipes:
        raise RequestError("--choose-on half leaves one model beside the base: leave it out, or --replicates")
    runs, warnings = _read(results, by=by)
    base = _base(runs)
    choice = None
    if choose:
        runs, choice = choose_on_half(runs, base)
    comparison = compare(runs, base, decide_on, margin)
    replicated = compare_replicates(runs, base, recipes)
    slices = compare_slices(runs, base, by) if by else []
    warnings += _warned([*few_seeds(recipes), *cautions(comparison)])
    return ComparedRuns(comparison, runs, warnings, choice, replicated, by, slices)


def compare_in_metric(results: Sequence[str], metric: str, decide_on: str) -> ComparedRuns:
    """Read the values that runs have in a metric, and compare them; errors are those of `compare_results`."""
    runs, warnings = _read(results, metric)
    compared = compare(runs, _base(runs), decide_on, metric=metric, meaning=meaning(metric, runs))
    warnings += _warned(cautions(compared))
    return ComparedRuns(compared, runs, warnings)


def cautions(comparison: Comparison) -> list[str]:
    """Return what makes some of a comparison's intervals too narrow, as warnings."""
    return [caution for section in comparison.sections for caution in section.cautions]


def few_seeds(recipes: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a warning for each recipe of fewer than five trainings: what so few are worth."""
    told = (
        "--replicates {name}: the interval over {count} seeds is about {times:g} times as wide as over five; "
        "train five"
    )
    return [
        tr(told, name=name, count=len(models), times=WIDER[len(models)])
        for name, models in recipes.items()
        if len(models) in WIDER
    ]


def compare_in_stated_metrics(results: Sequence[str], compared: ComparedRuns) -> list[Comparison]:
    """Compare runs in every metric whose mean all of them state and whose values all their examples have."""
    stated = []
    for run in compared.runs:
        declared = run.facts.get("metrics")
        known = {*METRICS} & run.facts.keys() | {*(declared if isinstance(declared, Mapping) else ())}
        stated.append([one for one in measurable(Path(run.source) / PREDICTIONS) if one in known - {MASS}])
    shared = [name for name in stated[0] if all(name in each for each in stated)]
    sources, base = [parse_source(text) for text in results], compared.comparison.base
    return [
        compare(read_runs(sources, name)[0], base, metric=name, meaning=meaning(name, compared.runs))
        for name in shared
    ]


def _read(results: Sequence[str], metric: str = "", by: str = "") -> tuple[list[ScoredRun], list[str]]:
    """Return the runs and the warnings about them, which go to stderr."""
    runs, warnings = read_runs([parse_source(text) for text in results], metric, by)
    for dataset in dict.fromkeys(one.dataset for one in runs):
        warnings += check_rows([one for one in runs if one.dataset == dataset])
    warnings += _trained_on(runs, metric)
    return runs, _warned(warnings)


def _warned(warnings: list[str]) -> list[str]:
    """Print warnings to stderr, and return them."""
    for warning in warnings:
        click.echo(tr("warning: {what}", what=warning), err=True)
    return warnings


def _base(runs: Sequence[ScoredRun]) -> str:
    return BASE if any(one.model == BASE for one in runs) else runs[0].model


def _trained_on(runs: Sequence[ScoredRun], metric: str) -> list[str]:
    """What the runs tell of training examples among their rows; what is not checked once for each model."""
    told = []
    for run in runs:
        own = training_warnings(run.model, len(run.rows), run.trained_on, metric)
        reasons = tuple(run.trained_on.get("not_checked", ()))
        for text in own:
            if text.endswith(reasons):
                told.append(text)
            else:
                told.append(tr("{dataset}: {text}", dataset=run.dataset, text=text))
    logged = dict.fromkeys(run.model for run in runs if run.model != BASE and Path(run.source).is_file())
    if logged:
        said = "training examples not checked: no log says what {models} was trained on"
        told.append(tr(said, models=", ".join(logged)))
    return list(dict.fromkeys(told))
