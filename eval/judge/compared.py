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
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.judge.questions.choice import HeldOutChoice
from tuneyard.eval.judge.questions.replicates import Replicates
from tuneyard.eval.judge.questions.slices import BySlices
from tuneyard.eval.read.contamination import training_warnings
from tuneyard.eval.read.find import parse_source, read_runs
from tuneyard.eval.read.measured import meaning, measurable
from tuneyard.eval.read.results import PREDICTIONS
from tuneyard.eval.read.run import ScoredRun

BASE = "base"
MASS = "label_mass"  # how much of the probability any label has: says nothing of which model to ship


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """Runs, what follows from them, and what to bear in mind."""

    comparison: Comparison
    runs: Sequence[ScoredRun]
    warnings: Sequence[str]
    answers: Sequence[AnsweredQuestion] = ()
    other_metrics: Sequence[Comparison] = ()


def compare_results(
    results: Sequence[str],
    questions: Sequence[Question] = (),
    decide_on: str = "",
    margin: float | None = None,
) -> ComparedRuns:
    """Read and compare the runs named by `[NAME=]RESULTS`; the base is the model `base`, else the first.

    The questions are asked in their order. The verdict is on the mean, or on the dataset `decide_on`;
    `margin` is a share. Warnings go to stderr too.
    """
    kinds = {type(question) for question in questions}
    if {HeldOutChoice, Replicates} <= kinds:
        raise RequestError("--choose-on half leaves one model beside the base: leave it out, or --replicates")
    fields = [question.field for question in questions if isinstance(question, BySlices)]
    runs, warnings = _read(results, by=fields[0] if fields else "")
    base = _base(runs)
    answers = []
    for question in questions:
        answer = question.answer(runs, base)
        runs = list(answer.runs)
        answers.append(answer)
    comparison = compare(runs, base, decide_on, margin)
    limits = [warning for question in questions for warning in question.warnings]
    warnings += _warned([*limits, *cautions(comparison)])
    return ComparedRuns(comparison, runs, warnings, answers)


def compare_in_metric(results: Sequence[str], metric: str, decide_on: str) -> ComparedRuns:
    """Read the values that runs have in a metric, and compare them; errors are those of `compare_results`."""
    runs, warnings = _read(results, metric)
    compared = compare(runs, _base(runs), decide_on, metric=metric, meaning=meaning(metric, runs))
    warnings += _warned(cautions(compared))
    return ComparedRuns(compared, runs, warnings)


def cautions(comparison: Comparison) -> list[str]:
    """Return what makes some of a comparison's intervals too narrow, as warnings."""
    return [caution for section in comparison.sections for caution in section.cautions]


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
