"""Compare runs, and ask further questions about them, without reading a file or printing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tuneyard.core.language.number_format import Table
from tuneyard.core.language.translation import joined, tr
from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.judge.conclusions import Comparison
from tuneyard.eval.judge.question import Question
from tuneyard.eval.judge.questions.replicates import (
    Recipes,
    seed_warnings,
    with_settings,
    with_trainings,
)
from tuneyard.eval.judge.same_rows import check_rows, pairing_warnings
from tuneyard.eval.judge.sections import compare, meaning
from tuneyard.eval.read.contamination import training_warnings
from tuneyard.eval.read.results import BASE, part_of
from tuneyard.eval.read.scored_run import RunsByDataset, ScoredRun, models_of


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """Runs, their comparison with the base, and warnings.

    `tables` by caption and the records of table.json (`figures`) answer the further questions.
    """

    runs: RunsByDataset
    comparison: Comparison
    tables: Mapping[str, Table]
    figures: Mapping[str, Any]
    warnings: Sequence[str]

    @property
    def run_list(self) -> list[ScoredRun]:
        """All runs, by dataset and model."""
        return [run for by_model in self.runs.values() for run in by_model.values()]


def compare_runs(
    runs: RunsByDataset,
    questions: Sequence[Question] = (),
    warnings: Sequence[str] = (),
    metric: str = ACCURACY.name,
    decide_on: str = "",
    margin: float | None = None,
    recipes: Recipes = MappingProxyType({}),
    *,
    has_mean: bool = True,
) -> ComparedRuns:
    """Ask the questions about the runs, in their order, then compare all models with the base.

    The base is the model `base`, otherwise the first. `warnings` are those of the reading. For the other
    arguments see `compare`. `RequestError` if the runs did not answer the same rows, or cannot answer a
    question.
    """
    warned = [*warnings, *pairing_warnings(runs)]
    for by_model in runs.values():
        warned += check_rows(list(by_model.values()))
    base = BASE
    if base not in models_of(runs):
        first = models_of(runs)[0]
        base = next((setting for setting, trainings in recipes.items() if first in trainings), first)
    if recipes:
        runs = with_settings(runs, base, recipes)
        warned += seed_warnings(recipes)
    tables: dict[str, Table] = {}
    figures: dict[str, Any] = {}
    for question in questions:
        answer = question(runs, base)
        runs, base = answer.runs, answer.base
        tables |= answer.tables
        figures |= answer.figures
    measured = meaning(metric, runs)
    comparison = compare(runs, base, decide_on, margin, measured, has_mean=has_mean)
    if recipes:
        runs = with_trainings(runs)
    warned += _trained_on(runs, measured)
    for section in comparison.sections:
        warned += section.cautions
    return ComparedRuns(runs, comparison, tables, figures, warned)


def _trained_on(runs: RunsByDataset, metric: Metric) -> list[str]:
    """Warnings about training examples among the rows. Unchecked sources are listed once for each model."""
    warnings: list[str] = []
    logged: list[str] = []
    for dataset, by_model in runs.items():
        for model, run in by_model.items():
            reasons = tuple(part_of(run.facts, "trained_on").get("not_checked", ()))
            for text in training_warnings(model, len(run.rows), run.facts, metric):
                if text.endswith(reasons):
                    warnings.append(text)
                else:
                    warnings.append(tr("{dataset}: {text}", dataset=dataset, text=text))
            if model != BASE and "model" not in run.facts:  # another tool wrote the answers
                logged.append(model)
    if logged:
        models = joined(list(dict.fromkeys(logged)))
        warning = "training examples not checked: no log says what {models} was trained on"
        warnings.append(tr(warning, models=models))
    return list(dict.fromkeys(warnings))
