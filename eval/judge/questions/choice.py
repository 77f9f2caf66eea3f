"""How does the best of several models do on examples that did not choose it?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tuneyard.core.errors import RequestError
from tuneyard.core.language import tr, tr_counted
from tuneyard.core.number_format import Table, percent
from tuneyard.eval.judge.cells import translated
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.read.scored_run import Runs, ScoredRun, models_of, without
from tuneyard.eval.statistics.selection import split_halves

CHOICE_SEED = 42


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen model, and every candidate's mean accuracy on the `n` rows of the choosing half."""

    model: str
    n: int
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class HeldOutChoice(Question):
    """Choose a model on one half of the examples. The comparison reads the other half alone."""

    key = "choice"

    def answer(self, runs: Runs, base: str) -> AnsweredQuestion:
        """One record, and the base's and the chosen model's runs on the held-out half."""
        held_out, choice = choose_on_half(runs, base)
        return AnsweredQuestion(self, [choice], held_out, base)

    def tables(self, records: Sequence[Any], base: str) -> dict[str, Table]:
        """Every candidate's accuracy on the choosing half, the best first."""
        del base  # it is not a candidate
        (choice,) = records
        rows = []
        for model, accuracy in sorted(choice.scores.items(), key=lambda item: -item[1]):
            name = model
            if model == choice.model:
                name = tr("{model} (chosen)", model=model)
            rows.append([name, percent(accuracy)])
        examples = tr_counted(choice.n, "example")
        caption = tr("Chosen on {examples}, compared on the others", examples=examples)
        return {caption: Table(translated(["candidate", "mean accuracy there"]), rows)}


def choose_on_half(runs: Runs, base: str) -> tuple[dict[str, dict[str, ScoredRun]], Choice]:
    """The base's and the chosen model's runs on the rows that the choice did not see, and the choice.

    Rows of a cluster stay in one half. `RequestError` unless there are two candidates or more, and every
    model was scored on every dataset.
    """
    models = models_of(runs)
    candidates = [model for model in models if model != base]
    if len(candidates) < 2 or base not in models:
        raise RequestError(
            f"--choose-on half: found {', '.join(models)}, expected {base} and two others or more"
        )
    accuracies: dict[str, list[float]] = {model: [] for model in candidates}
    choosing_rows: dict[str, set[str]] = {}
    for dataset, by_model in runs.items():
        missing = [model for model in models if model not in by_model]
        if missing:
            raise RequestError(f"--choose-on half: {dataset} was not scored with {', '.join(missing)}")
        first = next(iter(by_model.values()))
        half, _ = split_halves(first.groups or first.rows, CHOICE_SEED, dataset)
        choosing_rows[dataset] = {first.rows[row] for row in half}
        for model in candidates:
            accuracies[model].append(fmean(by_model[model].correct[row] for row in half))
    scores = {model: fmean(values) for model, values in accuracies.items()}
    best = max(scores, key=lambda model: scores[model])
    held_out: dict[str, dict[str, ScoredRun]] = {}
    for dataset, by_model in runs.items():
        held_out[dataset] = {}
        for model, run in by_model.items():
            if model in (base, best):
                held_out[dataset][model] = without(run, choosing_rows[dataset])
    return held_out, Choice(best, sum(map(len, choosing_rows.values())), scores)
