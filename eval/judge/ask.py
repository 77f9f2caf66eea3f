"""Compare runs by a list of questions: pure functions, which read no file and print nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuneyard.core.language.translation import tr
from tuneyard.eval.judge.conclusions import Comparison
from tuneyard.eval.judge.question import AnsweredQuestion, Question, metric_of_questions
from tuneyard.eval.judge.questions.against_base import AgainstBase
from tuneyard.eval.judge.questions.replicates import base_of, check_replicates
from tuneyard.eval.judge.same_rows import check_rows
from tuneyard.eval.judge.sections import Recipes
from tuneyard.eval.read.contamination import training_warnings
from tuneyard.eval.read.scored_run import RunsByDataset, ScoredRun

BASE = "base"


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """Runs, the answers to the questions about them, and warnings. `comparison` is that with the base."""

    runs: RunsByDataset
    comparison: Comparison
    answers: Sequence[AnsweredQuestion]
    warnings: Sequence[str]

    @property
    def run_list(self) -> list[ScoredRun]:
        """All runs, by dataset and model."""
        return [run for by_model in self.runs.values() for run in by_model.values()]


def compare_runs(
    runs: RunsByDataset, questions: Sequence[Question], warnings: Sequence[str] = ()
) -> ComparedRuns:
    """Ask the questions about the runs, in their order. The base is the model `base`, otherwise the first.

    One of the questions compares with the base (`AgainstBase`). `warnings` are those of the reading.
    `RequestError` if the runs did not answer the same rows, or cannot answer a question.
    """
    warned = list(warnings)
    for by_model in runs.values():
        warned += check_rows(list(by_model.values()))
    recipes: Recipes = {}
    for question in questions:
        if isinstance(question, AgainstBase):
            recipes = question.recipes
    base = base_of(runs, recipes, BASE)
    check_replicates(runs, base, recipes)
    answers: list[AnsweredQuestion] = []
    remaining = runs
    limits: list[str] = []
    for question in questions:
        answer = question.answer(remaining, base)
        remaining, base = answer.runs, answer.base
        answers.append(answer)
        limits += question.warnings
    metric = metric_of_questions(questions)
    warned += _trained_on(remaining, metric)
    warned += limits
    comparison = comparison_of(answers)
    for section in comparison.sections:
        warned += section.cautions
    return ComparedRuns(remaining, comparison, answers, warned)


def comparison_of(answers: Sequence[AnsweredQuestion]) -> Comparison:
    """The comparison with the base among the answers."""
    for answer in answers:
        if isinstance(answer.question, AgainstBase):
            comparison: Comparison = answer.records[0]
            return comparison
    raise ValueError("no question compares with the base")


def _trained_on(runs: RunsByDataset, metric: str) -> list[str]:
    """Warnings about training examples among the rows. Unchecked sources are listed once for each model."""
    warnings: list[str] = []
    logged: list[str] = []
    for dataset, by_model in runs.items():
        for model, run in by_model.items():
            reasons = tuple(run.trained_on.get("not_checked", ()))
            for text in training_warnings(model, len(run.rows), run.facts, metric):
                if text.endswith(reasons):
                    warnings.append(text)
                else:
                    warnings.append(tr("{dataset}: {text}", dataset=dataset, text=text))
            if model != BASE and run.is_log:
                logged.append(model)
    if logged:
        models = ", ".join(dict.fromkeys(logged))
        warning = "training examples not checked: no log says what {models} was trained on"
        warnings.append(tr(warning, models=models))
    return list(dict.fromkeys(warnings))
