"""The questions beside which model is best: how the best of several does on rows that did not choose it, how
models compare on slices of a dataset, what several trainings of one recipe are worth, and how much of a
model's accuracy is which label it prefers.

The bias per label is fitted on half of the examples and taken off the labels' kept log-probabilities on the
other half, where accuracy is reported beside the raw one. Contextual calibration (Zhao et al. 2021) takes off
the bias of a content-free prompt in this way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.judge.comparison import paired_tests
from tuneyard.eval.judge.conclusions import MEAN, PairedTest
from tuneyard.eval.metrics.labels import MOST
from tuneyard.eval.read.results import PREDICTIONS
from tuneyard.eval.read.run import ScoredRun, by_dataset, without
from tuneyard.eval.statistics.family import Estimate, Replicated, estimates, replicated, sliced, units_of
from tuneyard.eval.statistics.rates import Measured, rate_of
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
        if lacking := [model for model in models if model not in own or not own[model].rows]:
            raise RequestError(f"--choose-on half: no rows of {', '.join(lacking)} on {dataset}")
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
    Datasets whose rows lack the field, or that the base has no rows of, are left out; `RequestError` where no
    dataset has it, or one has more than 20 values."""
    found = [
        one
        for own in by_dataset(run for run in runs if run.rows).values()
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
    scored row by row on the datasets of the others."""
    by_model: dict[str, dict[str, ScoredRun]] = {}
    for run in runs:
        if run.rows:
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
            f"--replicates {name}: no model {lacking[0]} with rows; expected some of {', '.join(by_model)}"
        )
    for model in others:
        if differing := by_model[model].keys() ^ by_model[first].keys():
            listed = ", ".join(sorted(differing))
            raise RequestError(f"--replicates {name}: {first} and {model} were not both scored on {listed}")
    datasets = [dataset for dataset in by_model[first] if dataset in by_model[base]]
    if not datasets:
        raise RequestError(f"--replicates {name}: {base} was not scored on {', '.join(by_model[first])}")
    return datasets


SEED = 43  # not that of sweeps and --choose-on, whose reported half would be one half here
STEPS = 10_000
NEAR = 1e-7  # nats
SMALLEST = 1e-300


@dataclass(frozen=True, slots=True)
class LabelBias:
    """A model on the half of a dataset that the bias was not fitted on. `bias` is how much (nats, mean 0) it
    prefers each label, `calibrated` the accuracy without it, `gain` that minus the base's, `of_bias` the raw
    gain minus `gain`; limits are of all models together, None for the base."""

    model: str
    dataset: str
    bias: Mapping[str, float]
    raw: Measured
    calibrated: Measured
    raw_gain: float | None = None
    gain: Estimate | None = None
    of_bias: Estimate | None = None


def label_biases(runs: Sequence[ScoredRun], base: str) -> list[LabelBias]:
    """Return every model of every dataset, the base first; clusters are whole, all models have one split.
    `RequestError` for a run whose labels' log-probabilities are not kept."""
    found = []
    for own in by_dataset(runs).values():
        found += _of_dataset(sorted(own.values(), key=lambda run: run.model != base), base)
    return found


def fit_bias(logs: NDArray[np.float64], answers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what to add to each label's log-probability (nats, mean 0), given those of [rows, labels].

    It makes each label's mean probability its share of `answers`, half an example more of each keeping it
    finite: the maximum-likelihood intercepts of a softmax, by iterative scaling (Darroch and Ratcliff 1972).
    """
    labels = logs.shape[1]
    share = (np.bincount(answers, minlength=labels) + 0.5) / (len(answers) + 0.5 * labels)
    bias = np.zeros(labels)
    for _ in range(STEPS):
        scores = logs + bias
        chances = np.exp(scores - scores.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        step = np.log(share / np.maximum(chances.mean(0), SMALLEST))
        bias += step
        if np.abs(step).max() < NEAR:
            break
    centred: NDArray[np.float64] = bias - bias.mean()
    return centred


def _of_dataset(runs: Sequence[ScoredRun], base: str) -> list[LabelBias]:
    first = runs[0]
    fitted, other = split_halves(first.groups or first.rows, SEED, first.dataset)
    groups = None if first.groups is None else [first.groups[row] for row in other]
    found, right = [], []
    for run in runs:
        bias, calibrated = _calibrated(run, fitted)
        raw, now = ([flags[row] for row in other] for flags in (run.correct, calibrated))
        right.append([raw, now])
        found.append(LabelBias(run.model, run.dataset, bias, rate_of(raw, groups), rate_of(now, groups)))
    if runs[0].model != base or len(runs) < 2:
        return found
    correct = np.array(right, dtype=float)  # [models, raw and calibrated, rows]
    raw_gains, gains = np.swapaxes(correct[1:] - correct[0], 0, 1)
    told = estimates(units_of([np.concatenate([gains, raw_gains - gains]).T], [groups], bound=2.0))
    others = zip(found[1:], told[: len(gains)], told[len(gains) :], strict=True)
    return found[:1] + [
        replace(one, raw_gain=one.raw.value - found[0].raw.value, gain=gain, of_bias=of_bias)
        for one, gain, of_bias in others
    ]


def _calibrated(run: ScoredRun, fitted: Sequence[int]) -> tuple[dict[str, float], list[bool]]:
    """The bias that the rows `fitted` give, and whether each row is correct without it."""
    kept = _log_probabilities(run)
    labels = list(next(iter(kept.values())))
    known = [row for row in fitted if run.rows[row] in kept and run.gold[row] in labels]
    if not known:
        raise RequestError(f"--calibrate: {run.model} on {run.dataset}: no example to fit a bias on")
    logs = np.array([[kept[run.rows[row]][label] for label in labels] for row in known])
    added = fit_bias(logs, np.array([labels.index(run.gold[row]) for row in known]))
    bias = dict(zip(labels, (-added).tolist(), strict=True))
    best = {row: max(labels, key=lambda label: own[label] - bias[label]) for row, own in kept.items()}
    return bias, [best.get(row) == gold for row, gold in zip(run.rows, run.gold, strict=True)]


def _log_probabilities(run: ScoredRun) -> dict[str, Mapping[str, float]]:
    """The log-probabilities of the labels by row; a prompt that was refused has none."""
    path = Path(run.source) / PREDICTIONS
    lines = [line for _, line in json_lines(path)] if path.is_file() else []
    kept: dict[str, Mapping[str, float]] = {
        str(line["row"]): own for line in lines if isinstance(own := line.get("choices"), dict)
    }
    if not kept:
        raise RequestError(
            f"--calibrate: {run.model} on {run.dataset} ({run.source}) keeps no log-probabilities of labels: "
            "score it with eval.nli --mode choice"
        )
    if len({tuple(sorted(own)) for own in kept.values()}) > 1:
        raise ContentError(f"{path}: choices: found other labels from one example to the next")
    return kept
