"""Replicates against statsmodels' analysis of variance, and with known truth."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_1samp
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from tuneyard.eval.statistics.family import Replicated, replicated, units_of


def of(steps: np.ndarray, groups: list[int] | None = None, tests: int = 1) -> Replicated:
    return replicated(units_of([steps], [groups]), tests)


def drawn(generator: np.random.Generator, n: int, seeds: int, spread: float) -> np.ndarray:
    lean = 0.05 + spread * generator.normal(size=seeds)
    return (
        generator.choice([-1.0, 0.0, 1.0], size=(n, 1)) * 0.3 + lean + 0.2 * generator.normal(size=(n, seeds))
    )


def test_the_variance_is_that_of_statsmodels_mean_squares() -> None:
    steps = drawn(np.random.default_rng(1), 40, 4, 0.1)
    table = pd.DataFrame(
        [(row, seed, steps[row, seed]) for row in range(40) for seed in range(4)],
        columns=["row", "seed", "y"],
    )
    squares = anova_lm(ols("y ~ C(row) + C(seed)", table).fit())["mean_sq"]
    found = of(steps)
    error = np.sqrt((squares["C(row)"] + squares["C(seed)"] - squares["Residual"]) / 160)
    assert found.value == pytest.approx(steps.mean())
    assert found.sampling == pytest.approx(np.sqrt(squares["C(row)"] / 160))
    assert found.between == pytest.approx(steps.mean(axis=0).std(ddof=1))
    half = (found.high - found.low) / 2
    assert 1.96 * error < half < 3.2 * error  # between the normal and t with 3 degrees of freedom


def test_three_rows_by_hand() -> None:
    """Seeds agree on the mean; the rows' mean square is .015, the residual one .005: t(2) × √(.01 / 6)."""
    found = of(np.array([[0.1, 0.0], [0.0, 0.1], [-0.1, -0.1]]))
    assert found.between == pytest.approx(0, abs=1e-12)
    assert found.high == pytest.approx(t.ppf(0.975, 2) * np.sqrt(0.01 / 6), rel=0.03)


def test_equal_trainings_are_one_training() -> None:
    column = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], size=50, p=[0.1, 0.6, 0.3])
    found, expected = of(np.stack([column] * 3, axis=1)), ttest_1samp(column, 0)
    assert found.between == 0 and found.p == pytest.approx(expected.pvalue, rel=0.05)
    assert [found.low, found.high] == pytest.approx(list(expected.confidence_interval(0.95)), abs=0.004)


@pytest.mark.parametrize("spread", [0.0, 0.08])
def test_intervals_over_seeds_cover_where_those_over_examples_do_not(spread: float) -> None:
    generator, inside, examples_only = np.random.default_rng(3), 0, 0
    for _ in range(200):
        found = of(drawn(generator, 200, 3, spread))
        inside += found.low <= 0.05 <= found.high
        examples_only += abs(found.value - 0.05) <= 1.96 * found.sampling
    assert inside / 200 > 0.93
    assert spread == 0 or examples_only / 200 < 0.75


def test_interval_and_p_agree_and_several_recipes_widen_both() -> None:
    generator = np.random.default_rng(4)
    for _ in range(50):
        steps = drawn(generator, 60, 3, 0.02)
        for tests in (1, 4):
            found = of(steps, [i // 3 for i in range(60)], tests)
            assert (found.low > 0 or found.high < 0) == (found.p < 0.05)
        assert found.high - found.low > of(steps, [i // 3 for i in range(60)]).high - found.low


def test_nothing_differs_and_one_cluster() -> None:
    same = of(np.zeros((9, 2)))
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    one = of(np.ones((9, 2)), [0] * 9)
    assert (one.low, one.high, one.p) == (-1, 1, 1)


def test_one_cluster_says_nothing() -> None:
    found = of(np.array([[0.2, 0.4], [0.0, 0.2]]), groups=[1, 1])
    assert (found.low, found.high, found.p, found.sampling) == (-1.0, 1.0, 1.0, None)
    assert found.value == pytest.approx(0.2) and found.between == pytest.approx(0.2 / np.sqrt(2))
