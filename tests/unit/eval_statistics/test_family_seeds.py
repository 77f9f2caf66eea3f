"""Settings with several seeds against scipy, and with known truth."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import sem, t

from testing.interval_designs import Trained, contradicts, luckiest, settings_tests, trainings
from tuneyard.eval.statistics.family import DifferenceTest, estimates, over_seeds, seed_reach, units_of

Groups = Sequence[int] | None


def of(steps: np.ndarray, groups: Groups = None) -> tuple[DifferenceTest, DifferenceTest]:
    """The setting with these differences from the base [rows, trainings]: over seeds, and over examples."""
    (alone,) = estimates(units_of([steps.mean(axis=1, keepdims=True)], [groups]))
    return over_seeds(alone, [steps.mean(axis=0).tolist()], 1, bound=1), alone


def drawn(generator: np.random.Generator, n: int, seeds: int, spread: float) -> np.ndarray:
    lean = 0.05 + spread * generator.normal(size=seeds)
    return (
        generator.choice([-1.0, 0.0, 1.0], size=(n, 1)) * 0.3 + lean + 0.2 * generator.normal(size=(n, seeds))
    )


def test_students_limits_over_seeds_add_to_those_over_examples() -> None:
    """Those of scipy; in a family with Bonferroni's correction."""
    steps = drawn(np.random.default_rng(1), 40, 4, 0.1)
    found, alone = of(steps)
    figures = steps.mean(axis=0)
    reach = t.ppf(0.975, 3) * sem(figures)
    assert found.value == alone.value == pytest.approx(steps.mean())
    assert found.high - found.value == pytest.approx(np.hypot(alone.high - alone.value, reach), rel=0.02)
    assert found.value - found.low == pytest.approx(np.hypot(alone.value - alone.low, reach), rel=0.02)
    assert seed_reach(figures.tolist(), 4) == pytest.approx(t.ppf(1 - 0.025 / 4, 3) * sem(figures), rel=0.05)


def test_equal_trainings_are_one_training() -> None:
    column = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], size=50, p=[0.1, 0.6, 0.3])
    found, alone = of(np.stack([column] * 3, axis=1))
    assert (found.value, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high))


@pytest.mark.parametrize("spread", [0.0, 0.08])
def test_intervals_over_seeds_cover_where_those_over_examples_do_not(spread: float) -> None:
    generator, inside, examples_only = np.random.default_rng(3), 0, 0
    for _ in range(200):
        found, alone = of(drawn(generator, 200, 3, spread))
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
        tests = settings_tests(trainings(generator, design, keys), keys.tolist())
        assert not contradicts([test for _, _, test in tests])


def test_the_luckiest_seed_is_not_crowned() -> None:
    """Eight settings of equal truth with five seeds each; the best single training wins very often."""
    generator = np.random.default_rng(7)
    pages = np.array([luckiest(generator, 4, 5, 200, 0.03) for _ in range(120)])
    settings, single = pages.mean(axis=0)
    assert settings <= 0.05 and single > 0.15


def test_nothing_differs_and_one_cluster() -> None:
    same, _ = of(np.zeros((9, 2)))
    assert (same.value, same.p) == (0, 1) and same.low < 0 < same.high
    one, _ = of(np.ones((9, 2)), [0] * 9)
    assert (one.low, one.high) == (-1, 1) and one.p > 0.05
