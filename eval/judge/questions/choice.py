"""How does the best of several models do on examples that did not choose it?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from tuneyard.core.errors import RequestError
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.read.run import ScoredRun, by_dataset, without
from tuneyard.eval.statistics.selection import split_halves

CHOICE_SEED = 42


@dataclass(frozen=True, slots=True)
class Choice:
    """The model that was chosen, on how many rows, and every candidate's mean accuracy there."""

    model: str
    n: int
    scores: Mapping[str, float]


def choose_on_half(runs: Sequence[ScoredRun], base: str) -> tuple[list[ScoredRun], Choice]:
    """Return the base's and the chosen model's runs on the rows that the choice did not see, and the choice.
    Rows of a cluster stay in one half. `RequestError` unless there are two candidates or more, and every
    model has rows on every dataset."""
    by_set = by_dataset(runs)
    models = list(dict.fromkeys(run.model for run in runs))
    candidates = [model for model in models if model != base]
    if len(candidates) < 2 or base not in models:
        raise RequestError(
            f"--choose-on half: found {', '.join(models)}, expected {base} and two others or more"
        )
    seen: dict[str, set[str]] = {}
    for dataset, own in by_set.items():
        if lacking := [model for model in models if model not in own]:
            raise RequestError(f"--choose-on half: {dataset} was not scored with {', '.join(lacking)}")
        first = next(iter(own.values()))
        half, _ = split_halves(first.groups or first.rows, CHOICE_SEED, dataset)
        seen[dataset] = {first.rows[row] for row in half}
    chosen_on = [run.only([row in seen[run.dataset] for row in run.rows]) for run in runs]
    scores = {
        model: fmean(fmean(run.correct) for run in chosen_on if run.model == model) for model in candidates
    }
    best = max(scores, key=lambda model: scores[model])
    told = Choice(best, sum(map(len, seen.values())), scores)
    return [without(run, seen[run.dataset]) for run in runs if run.model in (base, best)], told


@dataclass(frozen=True, slots=True)
class HeldOutChoice(Question):
    """Choose a model on one half of the examples. The comparison reads the other half alone."""

    key = "choice"

    def answer(self, runs: Sequence[ScoredRun], base: str) -> AnsweredQuestion:
        """One record, and the base's and the chosen model's runs on the held-out half."""
        held_out, choice = choose_on_half(runs, base)
        return AnsweredQuestion(self, [choice], held_out)
