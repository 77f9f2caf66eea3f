"""A bias per label, fitted on one half: known by construction, and by scikit-learn's logistic regression."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.fake_runs import write_run
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.judge.questions.label_bias import SEED, fit_bias, label_biases
from tuneyard.eval.read.find import read_scored_run
from tuneyard.eval.read.scored_run import by_dataset
from tuneyard.eval.statistics.selection import split_halves

LABELS = ["maybe", "no", "yes"]


def drawn(n: int, seed: int = 0, labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities that say something of the answers, and the answers."""
    random = np.random.default_rng(seed)
    answers = random.integers(0, labels, n)
    scores = random.normal(size=(n, labels)) + 1.5 * np.eye(labels)[answers]
    return scores - np.log(np.exp(scores).sum(1, keepdims=True)), answers


def test_the_bias_that_was_put_in_is_taken_off() -> None:
    logs, answers = drawn(400)
    own = fit_bias(logs, answers)
    for put in ([3.0, -1.0, 0.5], [-20.0, 10.0, 10.0]):
        assert np.allclose(fit_bias(logs + put, answers), own - put + np.mean(put), atol=1e-4)


def test_each_labels_mean_probability_becomes_its_share() -> None:
    logs, answers = drawn(300, seed=1)
    moved = logs + np.array([5.0, 0.0, -2.0])
    scores = np.exp(moved + fit_bias(moved, answers))
    means = (scores / scores.sum(1, keepdims=True)).mean(0)
    assert np.allclose(means, (np.bincount(answers) + 0.5) / 301.5, atol=1e-5)


def test_two_labels_agree_with_the_maximum_of_the_likelihood() -> None:
    """Of the intercept alone, found by bisection over the derivative."""
    logs, answers = drawn(200, seed=2, labels=2)
    margin = logs[:, 1] - logs[:, 0]
    target = (answers.sum() + 0.5) / 201
    low, high = -50.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp(-margin - middle))).mean() < target else (low, middle)
    bias = fit_bias(logs, answers)
    assert bias[1] - bias[0] == pytest.approx(low, abs=1e-4)


def test_a_label_that_is_not_expected_has_a_finite_bias() -> None:
    logs, answers = drawn(100, labels=3)
    found = fit_bias(logs, np.minimum(answers, 1))
    assert np.isfinite(found).all() and found[2] < found[:2].min()


def written(out: Path, model: str, shift: list[float], groups: list[str] | None = None) -> Path:
    """A run on 300 examples whose log-probabilities are `drawn`, moved by a shift of each label."""
    logs, answers = drawn(300)
    moved = logs + np.array(shift)
    gold = [LABELS[one] for one in answers]
    folder = write_run(out, model, "mine", gold, [LABELS[one] for one in moved.argmax(1)], groups)
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    for line, own in zip(lines, moved.tolist(), strict=True):
        line["choices"] = dict(zip(LABELS, own, strict=True))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_gain_that_is_label_bias_alone_is_none_without_it(tmp_path) -> None:
    """The base is the adapter with a bias that lets it say `no` alone: nothing of the gain remains."""
    base, tuned = (
        read_scored_run(written(tmp_path, name, shift))
        for name, shift in (("base", [0, 50.0, 0]), ("tuned", [0, 0.0, 0]))
    )
    first, other = label_biases(by_dataset([tuned, base]), "base")
    assert (first.model, other.model) == ("base", "tuned")
    assert first.bias["no"] > 30 > abs(other.bias["no"])
    assert first.raw.value < 0.45 < 0.6 < first.calibrated.value == other.calibrated.value
    assert other.raw_gain is not None and other.gain is not None and other.of_bias is not None
    assert (other.gain.value, other.gain.low, other.gain.high) == (0, 0, 0)
    assert other.of_bias.value == pytest.approx(other.raw_gain)
    assert other.of_bias.low > 0
    assert first.gain is None


def test_accuracy_is_of_the_half_that_was_not_fitted_on_and_clusters_are_whole(tmp_path) -> None:
    groups = [str(row // 3) for row in range(300)]
    run = read_scored_run(written(tmp_path, "base", [0, 2.0, 0], groups))
    (one,) = label_biases(by_dataset([run]), "base")
    fitted, other = split_halves(groups, SEED, "mine")
    assert not {groups[row] for row in fitted} & {groups[row] for row in other}
    assert one.raw.n == one.calibrated.n == len(other)
    assert one.raw.value == sum(run.correct[row] for row in other) / len(other)
    logs, answers = drawn(300)
    added = fit_bias((logs + np.array([0, 2.0, 0]))[fitted], answers[fitted])
    assert [one.bias[label] for label in LABELS] == pytest.approx((-added).tolist())


def test_runs_without_log_probabilities_are_refused(tmp_path) -> None:
    folder = written(tmp_path, "base", [0, 0.0, 0])
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    lines[5]["choices"].pop("maybe")
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with raises(ContentError):
        label_biases(by_dataset([read_scored_run(folder)]), "base")
    for line in lines:
        del line["choices"]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with raises(RequestError):
        label_biases(by_dataset([read_scored_run(folder)]), "base")
