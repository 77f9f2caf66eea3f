"""How good is a recipe that was trained several times, with different seeds?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuneyard.core.errors import RequestError
from tuneyard.core.language import tr
from tuneyard.core.number_format import NONE, Table, p_cell, points_interval
from tuneyard.eval.judge.cells import on_dataset, translated
from tuneyard.eval.judge.conclusions import MEAN
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.read.scored_run import RunsByDataset
from tuneyard.eval.statistics.family import Replicated, replicated, units_of

# Student's 97.5 % point with seeds - 1 degrees of freedom over √seeds, as a multiple of that of five
WIDER = {2: 7.2, 3: 2.0, 4: 1.3}
HEADER = (
    "replicates",
    "trainings",
    "difference from the base, points (95 % over seeds and examples)",
    "p",
    "standard deviation between seeds",
    "standard error of the examples",
)


@dataclass(frozen=True, slots=True)
class ReplicatedRecipe:
    """Mean accuracy of a recipe's `models` minus the base's, on one dataset or on the mean of all."""

    name: str
    models: Sequence[str]
    dataset: str
    difference: Replicated


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

    def answer(self, runs: RunsByDataset, base: str) -> AnsweredQuestion:
        """A record for each recipe and dataset, and for the mean of several datasets."""
        return AnsweredQuestion(self, compare_replicates(runs, base, self.recipes), runs, base)

    def tables(self, records: Sequence[Any], base: str) -> dict[str, Table]:
        """Each recipe's mean over its trainings against the base; limits over seeds and examples."""
        del base  # the header names it
        rows = []
        for recipe in records:
            difference = recipe.difference
            of_examples = NONE
            if difference.sampling is not None:
                of_examples = f"{100 * difference.sampling:.1f}"
            rows.append(
                [
                    on_dataset(recipe.name, recipe.dataset),
                    f"{len(recipe.models)}",
                    points_interval(difference.value, difference.low, difference.high),
                    p_cell(difference.p),
                    f"{100 * difference.between:.1f}",
                    of_examples,
                ]
            )
        return {tr("Replicates"): Table(translated(HEADER), rows)}


def parse_replicates(texts: Sequence[str]) -> dict[str, list[str]]:
    """Models of each recipe from `NAME=MODEL,MODEL,…`; `RequestError` for fewer than two."""
    recipes: dict[str, list[str]] = {}
    for text in texts:
        name, _, listed = text.partition("=")
        models = [model.strip() for model in listed.split(",") if model.strip()]
        if not name or name in recipes or len(set(models)) < max(2, len(models)):
            raise RequestError(
                f"--replicates {text}: expected NAME=MODEL,MODEL,… with two different models or more, "
                "each name once"
            )
        recipes[name] = models
    return recipes


def compare_replicates(
    runs: RunsByDataset, base: str, recipes: Mapping[str, Sequence[str]]
) -> list[ReplicatedRecipe]:
    """Compare each recipe with the base on every dataset, and on their mean if there are several.

    Of several recipes, p and limits are Bonferroni's. `RequestError` if a model is the base, or was not
    scored on the datasets of the others.
    """
    compared: list[ReplicatedRecipe] = []
    for name, models in recipes.items():
        datasets = _datasets(name, base, models, runs)
        averaged = [[dataset] for dataset in datasets]
        if len(datasets) > 1:
            averaged.append(datasets)
        for several in averaged:
            steps, groups = [], []
            for dataset in several:
                base_correct = np.array(runs[dataset][base].correct, dtype=float)
                correct = np.array([runs[dataset][model].correct for model in models], dtype=float)
                steps.append((correct - base_correct).T)
                groups.append(runs[dataset][base].groups)
            dataset = MEAN
            if len(several) == 1:
                dataset = several[0]
            difference = replicated(units_of(steps, groups), len(recipes))
            compared.append(ReplicatedRecipe(name, models, dataset, difference))
    return compared


def _datasets(name: str, base: str, models: Sequence[str], runs: RunsByDataset) -> list[str]:
    """Datasets that each of a recipe's models and the base were scored on."""
    if base in models:
        raise RequestError(f"--replicates {name}: {base} is what the others are compared with")
    datasets_of: dict[str, list[str]] = {}
    for dataset, by_model in runs.items():
        for model in by_model:
            datasets_of.setdefault(model, []).append(dataset)
    first, *others = models
    for model in models:
        if model not in datasets_of:
            expected = ", ".join(datasets_of)
            raise RequestError(f"--replicates {name}: no model {model}; expected some of {expected}")
    for model in others:
        differing = set(datasets_of[model]) ^ set(datasets_of[first])
        if differing:
            listed = ", ".join(sorted(differing))
            raise RequestError(f"--replicates {name}: {first} and {model} were not both scored on {listed}")
    datasets = [dataset for dataset in datasets_of[first] if base in runs[dataset]]
    if not datasets:
        listed = ", ".join(datasets_of[first])
        raise RequestError(f"--replicates {name}: {base} was not scored on {listed}")
    return datasets
