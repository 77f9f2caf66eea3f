"""How much of a model's accuracy comes from the label that it prefers?

The bias of each label is fitted on half of the examples. It is subtracted from the labels' log-probabilities
on the other half, where accuracy is reported with and without it. Contextual calibration (Zhao et al. 2021)
subtracts the bias of a content-free prompt in this way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.number_format import NONE, Table, interval, points, points_interval
from tuneyard.core.language.translation import tr
from tuneyard.eval.judge.cells import on_dataset, translated
from tuneyard.eval.judge.question import AnsweredQuestion, Question
from tuneyard.eval.read.results import PREDICTIONS
from tuneyard.eval.read.scored_run import RunsByDataset, ScoredRun
from tuneyard.eval.statistics.estimate import DifferenceTest, Mean
from tuneyard.eval.statistics.family import estimates, units_of
from tuneyard.eval.statistics.rates import rate_of
from tuneyard.eval.statistics.selection import split_halves

SEED = 43  # not that of sweeps and --choose-on, whose reporting half would be one half here
STEPS = 10_000
NEAR = 1e-7  # nats
SMALLEST = 1e-300
CAPTION = "Label bias, fitted on half of the examples: accuracy on the other half"
HEADER = (
    "",
    "accuracy (95 % interval)",
    "without label bias",
    "label bias, nats",
    "gain over the base, points",
    "gain without label bias, points (95 %)",
    "gain due to label bias, points (95 %)",
)


@dataclass(frozen=True, slots=True)
class LabelBias:
    """A model on the half of a dataset that the bias was not fitted on.

    `bias` is the model's preference for each label (nats, mean 0), `calibrated` the accuracy without it.
    `gain` is `calibrated` minus the base's, `of_bias` the raw gain minus `gain`. Their limits hold for all
    models together; the base has no gain.
    """

    model: str
    dataset: str
    bias: Mapping[str, float]
    raw: Mean
    calibrated: Mean
    raw_gain: float | None = None
    gain: DifferenceTest | None = None
    of_bias: DifferenceTest | None = None


@dataclass(frozen=True, slots=True)
class Calibrate(Question):
    """Fit each model's label bias on half of the examples, and subtract it on the other half."""

    key = "label_bias"

    def answer(self, runs: RunsByDataset, base: str) -> AnsweredQuestion:
        """A record for each model of each dataset, the base first."""
        return AnsweredQuestion(self, label_biases(runs, base), runs, base)

    def tables(self, records: Sequence[Any], base: str) -> dict[str, Table]:
        """Accuracy and gain of every model with and without its label bias."""
        del base  # it comes first
        rows = []
        for record in records:
            biases = ", ".join(f"{label} {value:+.2f}" for label, value in record.bias.items())
            raw_gain = NONE
            if record.raw_gain is not None:
                raw_gain = points(record.raw_gain)
            cells = [f"{on_dataset(record.model, record.dataset)}, n = {record.raw.n:,}"]
            cells += [interval((share.value, *share.ci95)) for share in (record.raw, record.calibrated)]
            cells += [biases.replace("-", "−"), raw_gain]
            for gain in (record.gain, record.of_bias):
                text = NONE
                if gain is not None:
                    text = points_interval(gain.value, gain.low, gain.high)
                cells.append(text)
            rows.append(cells)
        return {tr(CAPTION): Table(translated(HEADER), rows)}

    def json(self, records: Sequence[Any]) -> dict[str, object]:
        """The records, shares as results.json has them."""
        listed = []
        for record in records:
            fields = {"model": record.model, "dataset": record.dataset, "bias": dict(record.bias)}
            fields |= {"raw": record.raw.as_json(), "calibrated": record.calibrated.as_json()}
            fields |= {"raw_gain": record.raw_gain, "gain": None, "of_bias": None}
            for name, gain in (("gain", record.gain), ("of_bias", record.of_bias)):
                if gain is not None:
                    fields[name] = gain.as_json()
            listed.append(fields)
        return {self.key: listed}


def label_biases(runs: RunsByDataset, base: str) -> list[LabelBias]:
    """Biases of every model on every dataset, the base first. All models have one split, by cluster.

    `RequestError` for a run without the labels' log-probabilities.
    """
    biases: list[LabelBias] = []
    for by_model in runs.values():
        biases += _of_dataset(sorted(by_model.values(), key=lambda run: run.model != base), base)
    return biases


def fit_bias(logs: NDArray[np.float64], answers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Terms to add to each label's log-probability (nats, mean 0), given those of [rows, labels].

    With them, each label's mean probability is its share of `answers`. Half an additional example of each
    label keeps them finite. They are the maximum-likelihood intercepts of a softmax, by iterative scaling
    (Darroch and Ratcliff 1972).
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
    fitting, reporting = split_halves(first.groups or first.rows, SEED, first.dataset)
    groups = None
    if first.groups is not None:
        groups = [first.groups[row] for row in reporting]
    biases, correct_by_model = [], []
    for run in runs:
        bias, calibrated_flags = _calibrated(run, fitting)
        raw = [run.correct[row] for row in reporting]
        calibrated = [calibrated_flags[row] for row in reporting]
        correct_by_model.append([raw, calibrated])
        raw_share, share = rate_of(raw, groups), rate_of(calibrated, groups)
        biases.append(LabelBias(run.model, run.dataset, bias, raw_share, share))
    if first.model != base or len(runs) < 2:
        return biases
    correct = np.array(correct_by_model, dtype=float)  # [models, raw and calibrated, rows]
    raw_gains, gains = np.swapaxes(correct[1:] - correct[0], 0, 1)
    steps = np.concatenate([gains, raw_gains - gains]).T
    differences = estimates(units_of([steps], [groups], bound=2.0))
    compared = [biases[0]]
    for place, bias_of_model in enumerate(biases[1:]):
        compared.append(
            replace(
                bias_of_model,
                raw_gain=bias_of_model.raw.value - biases[0].raw.value,
                gain=differences[place],
                of_bias=differences[len(gains) + place],
            )
        )
    return compared


def _calibrated(run: ScoredRun, fitting: Sequence[int]) -> tuple[dict[str, float], list[bool]]:
    """Bias of the rows `fitting`, and a flag for each row: correct without the bias."""
    labels = _labels(run)
    usable = [row for row in fitting if run.log_probabilities[row] and run.gold[row] in labels]
    if not usable:
        raise RequestError(f"--calibrate: {run.model} on {run.dataset}: no example to fit a bias on")
    logs = np.array([[run.log_probabilities[row][label] for label in labels] for row in usable])
    added = fit_bias(logs, np.array([labels.index(run.gold[row]) for row in usable]))
    bias = dict(zip(labels, (-added).tolist(), strict=True))
    flags = []
    for logs_of_row, gold in zip(run.log_probabilities, run.gold, strict=True):
        without_bias = {label: logs_of_row[label] - bias[label] for label in labels if logs_of_row}
        best = max(without_bias, key=without_bias.__getitem__, default=None)
        flags.append(best == gold)
    return bias, flags


def _labels(run: ScoredRun) -> list[str]:
    """Labels of the recorded log-probabilities; a prompt that was too long has none."""
    kept = [logs for logs in run.log_probabilities if logs]
    if not kept:
        raise RequestError(
            f"--calibrate: {run.model} on {run.dataset} ({run.source}) keeps no log-probabilities of labels: "
            "score it with eval.nli --mode choice"
        )
    if len({tuple(sorted(logs)) for logs in kept}) > 1:
        raise ContentError(
            f"{run.source}/{PREDICTIONS}: choices: found other labels from one example to the next"
        )
    return list(kept[0])
