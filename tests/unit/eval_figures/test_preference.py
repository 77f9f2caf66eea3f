"""AUC as a mean of parts: against scikit-learn, and its error against the spread of samples."""

import random
import statistics

import pytest

from tuneyard.eval.figures.preference import auc_parts
from tuneyard.eval.statistics.rates import mean_of


@pytest.mark.parametrize("seed", range(20))
def test_the_mean_is_scikit_learns(seed):
    from sklearn.metrics import roc_auc_score

    draw = random.Random(seed)
    marks = [True, False, *(draw.random() < 0.3 for _ in range(60))]
    scores = [draw.choice([0, 1, 2, 3, 4]) + mark for mark in marks]  # many ties
    assert statistics.fmean(auc_parts(scores, marks)) == pytest.approx(roc_auc_score(marks, scores))


def test_the_error_is_that_of_repeated_samples():
    def sample(draw):
        marks = [n < 80 for n in range(200)]
        parts = auc_parts([draw.gauss(0.8 * mark, 1) for mark in marks], marks)
        return mean_of(parts)

    found = [sample(random.Random(seed)) for seed in range(400)]
    spread = statistics.stdev(one.value for one in found)
    assert statistics.fmean(one.stderr for one in found) == pytest.approx(spread, rel=0.1)
