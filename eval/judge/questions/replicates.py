"""Settings that were trained several times, with different seeds: their models, and how much seeds differ."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, joined
from tuneyard.eval.judge.findings import FewSeeds
from tuneyard.eval.runs.findings import RunFinding
from tuneyard.eval.runs.scored_run import RunsByDataset, ScoredRun, models_of

Recipes = Mapping[str, Sequence[str]]
"""The models of each setting that was trained with several seeds (`--replicates`)."""
RECOMMENDED = 5  # trainings


def with_settings(runs: RunsByDataset, base: str, recipes: Recipes) -> RunsByDataset:
    """Each setting as one run in place of its trainings, where the first of them was.

    `RequestError` if a training is the base or missing, or was not scored on a dataset of the others.
    """
    models = models_of(runs)
    for setting, members in recipes.items():
        if setting in models:
            raise RequestError(
                _("--replicates {name}: {name} is also a model; choose another name", name=setting)
            )
        candidates = [model for model in models if model != base]
        for model in members:
            if model not in candidates:
                raise RequestError(
                    _(
                        "--replicates {name}: {model} is no model to compare with {base}; expected some of "
                        "{names}",
                        name=setting,
                        model=model,
                        base=base,
                        names=joined(candidates),
                    )
                )
    setting_of = {model: name for name, models in recipes.items() for model in models}
    grouped: dict[str, dict[str, ScoredRun]] = {}
    for dataset, by_model in runs.items():
        grouped[dataset] = {}
        for model, run in by_model.items():
            name = setting_of.get(model, model)
            members = recipes.get(name, ())
            missing = [each for each in members if each not in by_model]
            if missing:
                raise RequestError(
                    _(
                        "--replicates {name}: {model} and {other} were not both scored on {dataset}",
                        name=name,
                        model=model,
                        other=missing[0],
                        dataset=dataset,
                    )
                )
            trainings = [by_model[each] for each in members]
            grouped[dataset].setdefault(name, replace(run, model=name, trainings=trainings))
    return grouped


def with_trainings(runs: RunsByDataset) -> RunsByDataset:
    """The runs with every training of a setting in its place."""
    separate: dict[str, dict[str, ScoredRun]] = {}
    for dataset, by_model in runs.items():
        separate[dataset] = {}
        for run in by_model.values():
            for each in run.trainings or [run]:
                separate[dataset][each.model] = each
    return separate


def few_seeds(recipes: Recipes) -> list[RunFinding]:
    """A finding for each recipe of fewer than five trainings."""
    findings: list[RunFinding] = []
    for name, models in recipes.items():
        if len(models) < RECOMMENDED:
            findings.append(FewSeeds(name, len(models)))
    return findings
