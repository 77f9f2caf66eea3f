"""How do the models compare with the base on each slice of a dataset?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneyard.core.errors import RequestError
from tuneyard.eval.judge.comparison import paired_tests
from tuneyard.eval.judge.conclusions import PairedTest
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.metrics.labels import MOST
from tuneyard.eval.read.run import ScoredRun, by_dataset
from tuneyard.eval.statistics.family import sliced


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of a dataset with one value of a field: each model's accuracy, and the tests against the base,
    with p and limits of all slices and models of the dataset together."""

    dataset: str
    value: str
    n: int
    accuracy: dict[str, float]
    tests: Sequence[PairedTest]


def compare_slices(runs: Sequence[ScoredRun], base: str, by: str) -> list[Slice]:
    """Compare every model with the base on each slice of each dataset, a slice for every value of `by`.
    Datasets whose rows lack the field, or that the base did not answer, are left out; `RequestError` where no
    dataset has it, or one has more than 20 values."""
    found = [
        one
        for own in by_dataset(runs).values()
        if base in own and any(own[base].kinds.get(by, ()))
        for one in _slices(own, base, by)
    ]
    if not found:
        known = ", ".join(dict.fromkeys(name for run in runs for name in run.kinds)) or "none"
        raise RequestError(f"--by {by}: no dataset's rows have it (fields to part them by: {known})")
    return found


def _slices(runs: dict[str, ScoredRun], base: str, by: str) -> list[Slice]:
    first = runs[base]
    labels = list(first.kinds[by])
    values = sorted(set(labels), key=lambda value: (-labels.count(value), value))
    if len(values) > MOST:
        raise RequestError(f"--by {by}: {len(values)} values on {first.dataset}, expected at most {MOST}")
    others = [model for model in runs if model != base]
    if not others:
        return []
    right = {model: np.array(run.correct, dtype=float) for model, run in runs.items()}
    steps = np.stack([right[model] - right[base] for model in others], axis=1)
    estimates = sliced(steps, labels, first.groups)
    slices = []
    for value in values:
        own = np.array(labels) == value
        tests = paired_tests([(base, model) for model in others], steps[own], estimates[value])
        accuracy = {model: float(right[model][own].mean()) for model in runs}
        slices.append(Slice(first.dataset, value, int(own.sum()), accuracy, tests))
    return slices


@dataclass(frozen=True, slots=True)
class BySlices(Question):
    """Compare with the base on the rows of each value of `field`."""

    field: str
    key = "slices"

    def answer(self, runs: Sequence[ScoredRun], base: str) -> AnsweredQuestion:
        """A record for each slice of each dataset."""
        return AnsweredQuestion(self, compare_slices(runs, base, self.field), runs)
