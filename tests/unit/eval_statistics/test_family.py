"""p, limits and verdict of a family: against statsmodels, scipy, brute force and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar

from eval.statistics.family import Estimate, Units, estimates, shrunk, units_of


def one(better: int, worse: int, n: int, groups: list[int] | None = None) -> Estimate:
    steps = np.repeat([1.0, -1.0, 0.0], [better, worse, n - better - worse])[:, None]
    (found,) = estimates(units_of([steps], [groups]))
    return found


def drawn(seed: int, rows: int, candidates: int, gain: float = 0.0) -> np.ndarray:
    chances = [0.1 + gain, 0.1, 0.8 - gain]
    return np.random.default_rng(seed).choice([1.0, -1.0, 0.0], size=(rows, candidates), p=chances)


@given(st.integers(0, 60), st.integers(0, 60))
def test_one_candidate_has_the_mid_p_of_mcnemar(better: int, worse: int) -> None:
    """Fagerland, Lydersen and Laake 2013: the exact p less half the chance of what was seen, each side."""
    exact = mcnemar([[0, better], [worse, 0]], exact=True).pvalue if better + worse else 1.0
    chance = math.comb(better + worse, better) / 2 ** (better + worse)
    wanted = exact - (chance if better != worse else (chance / 2 if better else 0))
    assert one(better, worse, 200).p == pytest.approx(wanted, rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 400))
def test_the_interval_of_one_leaves_0_out_where_p_is_under_5_percent(better: int, worse: int, n: int) -> None:
    found = one(better, worse, n)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert -1 <= found.low <= found.value <= found.high <= 1 and found.low < found.high


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("groups", [None, [i // 3 for i in range(120)], [i // 12 for i in range(120)]])
def test_no_p_of_a_family_contradicts_its_interval(seed: int, groups: list[int] | None) -> None:
    sets = [drawn(seed, 120, 4, 0.08), drawn(seed + 99, 120, 4, 0.05)]
    for units in (units_of(sets[:1], [groups]), units_of(sets, [groups, None])):
        assert all((e.p < 0.05) == (e.low > 0 or e.high < 0) for e in estimates(units))


def test_few_clusters_are_flipped_in_every_way() -> None:
    steps = np.array([[3, 1], [2, -1], [1, 2], [4, 2], [-1, 3], [2, 2], [3, 3]], dtype=float)
    scale = np.sqrt((steps**2).sum(0))
    flips = [np.abs(np.array(signs) @ steps) / scale for signs in itertools.product((1, -1), repeat=7)]
    largest = np.max(flips, axis=1)
    units = Units(steps, np.full(7, 9.0), 63.0, rows_are_units=False)
    wanted = [(largest >= seen - 1e-9).mean() for seen in np.abs(steps.sum(0)) / scale]
    assert [found.p for found in estimates(units)] == pytest.approx(wanted)


def test_the_limits_of_independent_values_are_students() -> None:
    found = one(60, 30, 600)
    values = np.repeat([1.0, -1.0, 0.0], [60, 30, 510])
    limits = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == (
        pytest.approx(limits.low, abs=2e-4),
        pytest.approx(limits.high, abs=2e-4),
    )


def test_copies_of_a_cluster_add_nothing() -> None:
    steps = np.repeat([1.0, -1.0, 0.0], [14, 4, 40])[:, None]
    single = units_of([steps], [list(range(58))])
    copied = units_of([np.repeat(steps, 4, axis=0)], [[i // 4 for i in range(232)]])
    a, b = estimates(single)[0], estimates(copied)[0]
    assert (a.p, a.value) == (pytest.approx(b.p), b.value) and b.low == pytest.approx(a.low, abs=1e-3)


def test_one_cluster_and_no_difference_say_nothing() -> None:
    alone = one(20, 0, 20, ["a"] * 20)
    assert (alone.p, alone.low, alone.high) == (1.0, -1.0, 1.0)
    same = one(0, 0, 90)
    assert same.p == 1.0 and same.low == -same.high < 0


def test_the_family_widens_its_intervals_and_covers_the_chosen_one() -> None:
    """Eight candidates, all at +3 points: the best one's interval holds +3, and does not when taken alone."""
    covered = alone = 0
    for seed in range(150):
        steps = drawn(seed, 300, 8, 0.03)
        units = units_of([steps], [None])
        best = int(units.values.argmax())
        family, single = estimates(units)[best], estimates(units_of([steps[:, [best]]], [None]))[0]
        assert family.p >= single.p and family.low <= single.low
        covered += family.low <= 0.03 <= family.high
        alone += single.low <= 0.03 <= single.high
    assert covered >= 0.93 * 150 > alone


def test_the_minimum_detectable_effect_is_found_four_times_in_five() -> None:
    generator, shown = np.random.default_rng(5), 0
    least = one(30, 30, 300).smallest  # at a discordance of 0.2
    for _ in range(800):
        better, worse, _ = generator.multinomial(300, [0.1 + least / 2, 0.1 - least / 2, 0.8])
        shown += one(int(better), int(worse), 300).p < 0.05
    assert 0.76 < shown / 800 < 0.86


def test_shrinking_takes_the_luck_out_of_the_best_of_equals_and_leaves_a_real_lead() -> None:
    raw, corrected = [], []
    for seed in range(200):
        units = units_of([drawn(seed, 300, 8, 0.03)], [None])
        best = int(units.values.argmax())
        raw.append(units.values[best] - 0.03)
        corrected.append(shrunk(units)[best] - 0.03)
    assert np.mean(raw) > 0.03 and abs(np.mean(corrected)) < 0.4 * np.mean(raw)
    lead = np.hstack([np.ones((300, 1)), drawn(0, 300, 3)])
    assert shrunk(units_of([lead], [None]))[0] > 0.98
    assert shrunk(units_of([np.zeros((9, 3))], [None])).tolist() == [0, 0, 0]


def test_every_dataset_counts_alike() -> None:
    units = units_of([np.ones((10, 1)), np.zeros((990, 1))], [None, None])
    assert units.values.tolist() == pytest.approx([0.5])


def test_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="as many"):
        units_of([np.zeros((2, 1))], [["a"]])
    with pytest.raises(ValueError, match="as many"):
        units_of([np.zeros((0, 1))], [None])
