"""Recipes with several seeds against scipy, and with known truth."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import sem, t

from tools.bench.coverage import Trained, contradicts, trained_units, trainings
from tools.bench.verdict import luckiest
from tuneyard.eval.statistics.estimate import DifferenceTest
from tuneyard.eval.statistics.family import Trainings, estimates, mean_over_seeds, shrunk, units_of

Groups = Sequence[int] | None


def of(steps: np.ndarray, groups: Groups = None) -> DifferenceTest:
    """The recipe with these differences from the base [rows, trainings]."""
    units = units_of([steps.mean(axis=1, keepdims=True)], [groups])
    return estimates(units, Trainings([("base", "r")], {"r": units_of([steps], [groups]).sums}))[0]


def drawn(generator: np.random.Generator, n: int, seeds: int, spread: float) -> np.ndarray:
    lean = 0.05 + spread * generator.normal(size=seeds)
    return (
        generator.choice([-1.0, 0.0, 1.0], size=(n, 1)) * 0.3 + lean + 0.2 * generator.normal(size=(n, seeds))
    )


def test_the_variance_is_the_sum_of_that_of_examples_and_that_of_seeds() -> None:
    """Those of scipy, with Cochran's critical value."""
    steps = drawn(np.random.default_rng(1), 40, 4, 0.1)
    units = units_of([steps.mean(axis=1, keepdims=True)], [None])
    mean, stderr = mean_over_seeds(units, Trainings([("", "r")], {"r": steps}))
    of_rows, of_seeds = sem(steps.mean(axis=1)) ** 2, sem(steps.mean(axis=0)) ** 2
    assert mean.value == pytest.approx(steps.mean()) and stderr**2 == pytest.approx(of_rows + of_seeds)
    critical = (of_rows * t.ppf(0.975, 39) + of_seeds * t.ppf(0.975, 3)) / (of_rows + of_seeds)
    assert (mean.high - mean.low) / 2 == pytest.approx(critical * stderr, rel=0.01)
    found = of(steps)
    assert [found.low, found.high] == pytest.approx([mean.low, mean.high], abs=0.01)  # with skew


def test_equal_trainings_are_one_training() -> None:
    column = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], size=50, p=[0.1, 0.6, 0.3])
    found, alone = of(np.stack([column] * 3, axis=1)), estimates(units_of([column[:, None]], [None]))[0]
    assert found.value == pytest.approx(alone.value)
    assert [found.low, found.high] == pytest.approx([alone.low, alone.high], abs=0.02)


@pytest.mark.parametrize("spread", [0.0, 0.08])
def test_intervals_over_seeds_cover_where_those_over_examples_do_not(spread: float) -> None:
    generator, inside, examples_only = np.random.default_rng(3), 0, 0
    for _ in range(200):
        steps = drawn(generator, 200, 3, spread)
        found, alone = of(steps), estimates(units_of([steps.mean(axis=1, keepdims=True)], [None]))[0]
        inside += found.low <= 0.05 <= found.high
        examples_only += alone.low <= 0.05 <= alone.high
    assert inside / 200 > 0.92
    assert spread == 0 or examples_only / 200 < 0.75


DESIGNS = [
    (settings, seeds, spread, clusters)
    for settings in (2, 3)
    for seeds in (2, 3, 5)
    for spread in (0.0, 0.05)
    for clusters in (0, 3, 12)
]


@pytest.mark.parametrize(("settings", "seeds", "spread", "clusters"), DESIGNS)
def test_p_and_interval_of_settings_agree_whatever_the_design(
    settings: int, seeds: int, spread: float, clusters: int
) -> None:
    generator = np.random.default_rng([settings, seeds, clusters])
    design = Trained([0.6, 0.8, 0.6][:settings], seeds, spread)
    for _ in range(10):
        keys = np.arange(60)
        if clusters:
            keys = np.repeat(np.arange(clusters), generator.integers(1, 30, clusters))
        units, trained = trained_units(trainings(generator, design, keys), keys.tolist())
        found = estimates(units, trained)
        assert not contradicts(found)


def test_the_luckiest_seed_is_not_crowned() -> None:
    """Eight settings of equal truth with five seeds each; the best single training wins very often."""
    generator = np.random.default_rng(7)
    pages = np.array([luckiest(generator, 4, 5, 200, 0.03) for _ in range(120)])
    settings, single = pages.mean(axis=0)
    assert settings <= 0.05 and single > 0.15


def test_several_settings_widen_every_interval() -> None:
    generator = np.random.default_rng(4)
    correct = trainings(generator, Trained([0.7] * 4, 3, 0.02), np.arange(80))
    units, trained = trained_units(correct, list(range(80)))
    first, *_ = estimates(units, trained)
    two, trained_two = trained_units(correct[:2], list(range(80)))
    (alone,) = estimates(two, trained_two)
    assert first.value == alone.value and first.high - first.low > alone.high - alone.low


def test_seeds_shrink_the_best_of_several_further() -> None:
    steps = drawn(np.random.default_rng(5), 100, 3, 0.05)
    units = units_of([steps], [None])
    sums = {str(place): steps[:, [place, place]] + [[0.0, 0.2]] for place in range(3)}
    pairs = [("base", name) for name in sums]
    plain, corrected = shrunk(units), shrunk(units, Trainings(pairs, sums))
    assert np.ptp(corrected) < np.ptp(plain)


def test_seeds_of_the_recipe_that_all_are_compared_with_do_not_shrink() -> None:
    """They change every difference alike, and so say nothing about which candidate was lucky."""
    generator = np.random.default_rng(5)
    units = units_of([drawn(generator, 100, 3, 0.05)], [None])
    of_base = {"base": drawn(generator, 100, 3, 0.2)}
    pairs = [("base", name) for name in "abc"]
    np.testing.assert_array_equal(shrunk(units, Trainings(pairs, of_base)), shrunk(units))


def test_nothing_differs_and_one_cluster() -> None:
    same = of(np.zeros((9, 2)))
    assert (same.value, same.p) == (0, 1) and same.low < 0 < same.high
    one = of(np.ones((9, 2)), [0] * 9)
    assert (one.low, one.high, one.p) == (-1, 1, 1)
