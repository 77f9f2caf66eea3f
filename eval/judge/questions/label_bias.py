"""How much of a model's accuracy comes from the label that it prefers?

The bias per label is fitted on half of the examples and taken off the labels' kept log-probabilities on the
other half, where accuracy is reported beside the raw one. Contextual calibration (Zhao et al. 2021) takes off
the bias of a content-free prompt in this way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.read.results import PREDICTIONS
from tuneyard.eval.read.run import ScoredRun, by_dataset
from tuneyard.eval.statistics.family import Estimate, estimates, units_of
from tuneyard.eval.statistics.rates import Measured, rate_of
from tuneyard.eval.statistics.selection import split_halves

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


@dataclass(frozen=True, slots=True)
class Calibrate(Question):
    """Fit each model's label bias on half of the examples, and take it off on the other half."""

    key = "label_bias"

    def answer(self, runs: Sequence[ScoredRun], base: str) -> AnsweredQuestion:
        """A record for each model of each dataset, the base first."""
        return AnsweredQuestion(self, label_biases(runs, base), runs)
