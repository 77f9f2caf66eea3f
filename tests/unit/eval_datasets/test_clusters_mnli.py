"""Clusters from the compiler to the interval: on MNLI's own dev set, and simulated."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from tests.conftest import Run
from tests.unit.eval_backends.test_apply import write as write_adapter
from tuneyard.core.files import sha256
from tuneyard.core.records.row_index import read_row_index
from tuneyard.eval.datasets.dataset import EvalDataset, read_datasets
from tuneyard.eval.datasets.origin import fingerprint_of
from tuneyard.eval.datasets.training import fingerprints_of, trained_on
from tuneyard.eval.metrics.labels import summary
from tuneyard.eval.statistics.family import estimates, units_of
from tuneyard.eval.statistics.rates import rate_of
from tuneyard.eval.statistics.spread import satterthwaite, unskewed

SIZES = [3] * 260 + [2] * 50 + [1] * 24  # about as MNLI's premises have hypotheses


@pytest.fixture(scope="module")
def mnli(run: Run, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNLI's matched dev set as the bundled spec compiles it."""
    out = tmp_path_factory.mktemp("compiled")
    run(
        "-m",
        "compiler",
        "compile",
        "mnli",
        "--source",
        f"eval={real_data}/mnli/dev_matched.jsonl",
        "--out",
        out,
    )
    return out / "mnli" / "alpaca_mnli-eval.json"


@pytest.fixture(scope="module")
def questions(mnli: Path) -> EvalDataset:
    (found,) = read_datasets((), (mnli,))
    return found


def test_mnli_has_3334_premises_and_a_wider_interval_by_them(mnli: Path, questions: EvalDataset) -> None:
    assert (len(questions.answers), questions.cluster) == (9815, "premise")
    clusters = questions.clusters or []
    assert len(set(clusters)) == 3334
    asked = [str(record["instruction"]) for record in questions.records]
    premises = [text[: text.index('" imply that "')] for text in asked]
    assert len(set(zip(premises, clusters, strict=True))) == len(set(premises)) == 3334
    draw = random.Random(1)
    sure = {cluster: draw.choice([0.5, 0.8, 0.95]) for cluster in sorted(set(clusters))}
    rows = [
        {"expected_output": "yes", "predicted_output": "yes" if draw.random() < sure[c] else "no"}
        for c in clusters
    ]
    low, high = summary(rows, questions.answers)["ci95"]
    by_cluster = [{**row, "cluster": c} for row, c in zip(rows, clusters, strict=True)]
    wider_low, wider_high = summary(by_cluster, questions.answers)["ci95"]
    assert wider_low < low < high < wider_high
    assert 1.05 < (wider_high - wider_low) / (high - low) < 1.5


def test_the_fingerprints_that_compile_wrote_are_those_that_eval_asks_by(
    mnli: Path, questions: EvalDataset, tmp_path: Path
) -> None:
    beside = read_row_index(mnli)
    assert beside is not None
    assert [fingerprint_of(one) for one in questions.conversations] == beside.fingerprints.tolist()
    adapter = write_adapter(tmp_path / "mine")
    data = {"dataset": "alpaca_mnli_eval", "file": str(mnli), "sha256": sha256(mnli)}
    settings = {"dataset": "alpaca_mnli_eval", "max_samples": 79}
    (adapter / "training.json").write_text(json.dumps({"inputs": {"settings": settings, "data": [data]}}))
    told = trained_on([adapter], Path("none"), "other", fingerprints_of(questions, 100))
    assert (told["examples"], told["not_checked"]) == (79, [])


def drawn(draw: random.Random, spread: float) -> tuple[list[bool], list[bool], list[int]]:
    """Two models with the same truth, each right or wrong on the rows of a cluster together, by `spread`."""
    one, other, clusters = [], [], []
    for cluster, size in enumerate(SIZES):
        first, second = (0.6 + spread * draw.choice([-1, 1]) for _ in "ab")
        for _ in range(size):
            one.append(draw.random() < first)
            other.append(draw.random() < second)
            clusters.append(cluster)
    return one, other, clusters


def test_intervals_by_cluster_hold_in_95_cases_of_100_and_independent_ones_do_not() -> None:
    draw, inside = random.Random(2), {"alone": 0, "clusters": 0}
    for _ in range(600):
        right, _, clusters = drawn(draw, 0.38)
        for name, groups in (("alone", None), ("clusters", clusters)):
            low, high = rate_of(right, groups).ci95
            inside[name] += low <= 0.6 <= high
    assert 0.93 <= inside["clusters"] / 600 <= 0.97
    assert inside["alone"] / 600 < 0.90


def test_models_of_the_same_truth_are_seldom_told_apart_by_cluster_and_often_as_independent() -> None:
    draw, found = random.Random(3), {"alone": 0, "clusters": 0}
    for _ in range(600):
        one, other, clusters = drawn(draw, 0.38)
        steps = [int(b) - int(a) for a, b in zip(one, other, strict=True)]
        for name, groups in (("alone", None), ("clusters", clusters)):
            (told,) = estimates(units_of([np.array(steps, dtype=float)[:, None]], [groups]))
            found[name] += told.p < 0.05
    assert 0.025 <= found["clusters"] / 600 <= 0.07 < 0.09 < found["alone"] / 600
    # `estimates` turns Student's t into normal deviates, right to about 2e-7 here.
    assert told.p == pytest.approx(textbook_p(steps, clusters), abs=1e-6)


def textbook_p(steps: list[int], clusters: list[int]) -> float:
    """p of one candidate from its own sums: CR2 (Bell and McCaffrey 2002) with Student's t, of the smaller
    statistic, the plain one or the skew-corrected one."""
    sizes = np.array([clusters.count(cluster) for cluster in sorted(set(clusters))], dtype=float)
    sums = np.zeros(len(sizes))
    for step, cluster in zip(steps, clusters, strict=True):
        sums[cluster] += step
    mean = sums.sum() / sizes.sum()
    errors = (sums - mean * sizes) / sizes.sum() / np.sqrt(1 - sizes / sizes.sum())
    plain = abs(mean) / math.sqrt((errors**2).sum())
    skew = (errors**3).sum() / (errors**2).sum() ** 1.5
    towards = math.copysign(1, mean)
    corrected = towards * float(unskewed(np.array([towards * plain]), np.array([skew]))[0])
    freedom = float(satterthwaite((sizes / sizes.sum())[:, None])[0])
    return 2 * float(student.sf(min(plain, max(0.0, corrected)), freedom))
