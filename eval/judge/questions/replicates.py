"""What is a recipe worth that was trained several times, with different seeds?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneyard.core.errors import RequestError
from tuneyard.core.language import tr
from tuneyard.eval.judge.conclusions import MEAN
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.read.run import ScoredRun
from tuneyard.eval.statistics.family import Replicated, replicated, units_of

# Student's 97.5 % point with seeds - 1 degrees of freedom over √seeds, as a multiple of that of five
WIDER = {2: 7.2, 3: 2.0, 4: 1.3}


@dataclass(frozen=True, slots=True)
class ReplicatedRecipe:
    """The mean accuracy of a recipe's `models` minus the base's, on one dataset or on the mean of all."""

    name: str
    models: Sequence[str]
    dataset: str
    found: Replicated


def parse_replicates(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return the models of each recipe from `NAME=MODEL,MODEL,…`; `RequestError` for fewer than two."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, listed = text.partition("=")
        models = [model.strip() for model in listed.split(",") if model.strip()]
        if not name or name in found or len(set(models)) < max(2, len(models)):
            raise RequestError(
                f"--replicates {text}: expected NAME=MODEL,MODEL,… with two different models or more, "
                "each name once"
            )
        found[name] = models
    return found


def compare_replicates(
    runs: Sequence[ScoredRun], base: str, recipes: Mapping[str, Sequence[str]]
) -> list[ReplicatedRecipe]:
    """Compare each recipe with the base on every dataset, and on their mean where there are several. Of
    several recipes, p and limits are Bonferroni's. `RequestError` where a model is the base, or was not
    scored on the datasets of the others."""
    by_model: dict[str, dict[str, ScoredRun]] = {}
    for run in runs:
        by_model.setdefault(run.model, {})[run.dataset] = run
    found: list[ReplicatedRecipe] = []
    for name, models in recipes.items():
        datasets = _datasets(name, [base, *models], by_model)
        for own in [*([one] for one in datasets), *([datasets] if len(datasets) > 1 else [])]:
            scored = [[by_model[model][dataset] for model in (base, *models)] for dataset in own]
            correct = [np.array([run.correct for run in each], dtype=float) for each in scored]
            units = units_of(
                [(each[1:] - each[0]).T for each in correct], [each[0].groups for each in scored]
            )
            where = own[0] if len(own) == 1 else MEAN
            found.append(ReplicatedRecipe(name, models, where, replicated(units, len(recipes))))
    return found


def _datasets(name: str, models: Sequence[str], by_model: Mapping[str, Mapping[str, ScoredRun]]) -> list[str]:
    """The datasets of a recipe's models, which are those of each of them and of the base."""
    base, first, *others = models
    if base in (first, *others):
        raise RequestError(f"--replicates {name}: {base} is what the others are compared with")
    if lacking := [model for model in models if model not in by_model]:
        raise RequestError(
            f"--replicates {name}: no model {lacking[0]}; expected some of {', '.join(by_model)}"
        )
    for model in others:
        if differing := by_model[model].keys() ^ by_model[first].keys():
            listed = ", ".join(sorted(differing))
            raise RequestError(f"--replicates {name}: {first} and {model} were not both scored on {listed}")
    datasets = [dataset for dataset in by_model[first] if dataset in by_model[base]]
    if not datasets:
        raise RequestError(f"--replicates {name}: {base} was not scored on {', '.join(by_model[first])}")
    return datasets


@dataclass(frozen=True, slots=True)
class Replicates(Question):
    """Compare recipes with the base. `recipes` are the names of their models."""

    recipes: Mapping[str, Sequence[str]]
    key = "replicates"

    @property
    def warnings(self) -> list[str]:
        """A warning for each recipe of fewer than five trainings."""
        message = (
            "--replicates {name}: the interval over {count} seeds is about {times:g} times as wide as over "
            "five; train five"
        )
        warnings = []
        for name, models in self.recipes.items():
            count = len(models)
            if count in WIDER:
                warnings.append(tr(message, name=name, count=count, times=WIDER[count]))
        return warnings

    def answer(self, runs: Sequence[ScoredRun], base: str) -> AnsweredQuestion:
        """A record for each recipe and dataset, and for the mean of several datasets."""
        return AnsweredQuestion(self, compare_replicates(runs, base, self.recipes), runs)
