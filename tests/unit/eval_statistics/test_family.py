"""p, limits and verdict of a family: against statsmodels, scipy, brute force and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from tuneyard.eval.statistics.family import (
    DifferenceTest,
    Units,
    estimates,
    shrunk,
    units_of,
)
from tuneyard.eval.statistics.spread import satterthwaite, unskewed


def one(better: int, worse: int, n: int, groups: list[int] | None = None) -> DifferenceTest:
    steps = np.repeat([1.0, -1.0, 0.0], [better, worse, n - better - worse])[:, None]
    (found,) = estimates(units_of([steps], [groups]))
    return found


def drawn(seed: int, rows: int, candidates: int, gain: float = 0.0) -> np.ndarray:
    chances = [0.1 + gain, 0.1, 0.8 - gain]
    return np.random.default_rng(seed).choice([1.0, -1.0, 0.0], size=(rows, candidates), p=chances)


@given(st.integers(0, 60), st.integers(0, 60))
def test_one_candidate_has_the_mid_p_of_mcnemar(better: int, worse: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    """Fagerland, Lydersen and Laake 2013: the exact p less half the chance of what was seen, each side."""
    exact = mcnemar([[0, better], [worse, 0]], exact=True).pvalue if better + worse else 1.0
    chance = math.comb(better + worse, better) / 2 ** (better + worse)
    wanted = exact - (chance if better != worse else (chance / 2 if better else 0))
    assert one(better, worse, 200).p == pytest.approx(wanted, rel=1e-6)


def test_the_statistic_of_clusters_is_that_of_the_textbook() -> None:
    """The mean over its CR2 standard error (Bell and McCaffrey 2002), by the formula, with Student's t."""
    sums = np.array([3.0, 2, -1, 4, -1, 2, 1])
    sizes = np.array([9.0, 4, 30, 12, 9, 5, 20])
    rows, shares = sizes.sum(), sizes / sizes.sum()
    mean = sums.sum() / rows
    residuals = (sums - sizes * mean) / np.sqrt(1 - shares)
    t = mean * rows / np.sqrt((residuals**2).sum())
    units = Units(sums[:, None], sizes[:, None], np.array([rows]), rows_are_units=False, bound=math.inf)
    freedom = float(satterthwaite(shares[:, None])[0])
    (found,) = estimates(units)
    skew = (residuals**3).sum() / (residuals**2).sum() ** 1.5
    corrected = float(unskewed(np.array([t]), np.array([skew]))[0])
    assert found.p == pytest.approx(2 * student.sf(min(t, corrected), freedom), rel=0.02)


def test_clusters_that_all_agree_have_the_p_of_the_sign_test() -> None:
    """A standard error of 0 would make any difference significant."""
    steps = np.repeat([[1.0], [0.0]], [21, 30], axis=0)
    keys = [*np.repeat(range(7), 3).tolist(), *range(100, 130)]
    (found,) = estimates(units_of([steps], [keys]))
    assert found.p >= 2 / 2**7


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


def test_one_cluster_says_nothing() -> None:
    alone = one(20, 0, 20, ["a"] * 20)
    assert (alone.p, alone.low, alone.high) == (1.0, -1.0, 1.0)


def test_the_family_widens_its_intervals_and_covers_the_chosen_one() -> None:
    """Eight candidates, all at +3 points: the best one's interval holds +3, and does not when taken alone."""
    covered = alone = 0
    for seed in range(150):
        steps = drawn(seed, 300, 8, 0.03)
        units = units_of([steps], [None])
        best = int(units.values.argmax())
        together, single = estimates(units)[best], estimates(units_of([steps[:, [best]]], [None]))[0]
        assert together.p >= single.p and together.low <= single.low
        covered += together.low <= 0.03 <= together.high
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


def agrees(one: DifferenceTest) -> bool:
    endless = math.isinf(one.low) or math.isinf(one.high)
    return (one.p < 0.05) == (one.low > 0 or one.high < 0) and not (endless and one.p < 0.05)


@pytest.mark.parametrize("clusters", [3, 5, 8, 15])
def test_few_clusters_of_unequal_size_keep_p_interval_and_truth(clusters: int) -> None:
    """Clusters of 1 to 60 rows that are much alike, no difference: 5 % at most are significant, and the
    intervals hold a difference of 20 points."""
    generator = np.random.default_rng(clusters)
    wrong = covered = 0
    for _ in range(300):
        keys = np.repeat(np.arange(clusters), generator.integers(1, 61, clusters))
        for chance in (0.5, 0.9):
            share = generator.beta(2 * chance, 2 * (1 - chance), clusters)[keys]
            drawn = generator.random(len(keys))
            steps = (drawn < share / 4).astype(float) - (drawn > 1 - (1 - share) / 4)
            (one,) = estimates(units_of([steps[:, None]], [keys.tolist()]))
            assert agrees(one)
            if chance == 0.5:
                wrong += one.p < 0.05
            else:
                covered += one.low <= 0.2 <= one.high
    assert wrong <= 0.08 * 300 and covered >= 0.92 * 300


def test_every_table_of_two_models_has_a_p_that_its_interval_agrees_with() -> None:
    """Student's critical value is taken unless mid-p McNemar's test does not reject there."""
    for n in (*range(1, 25), 100, 300):
        for differing in range(min(n, 24) + 1):
            for better in range((differing + 1) // 2, differing + 1):
                found = one(better, differing - better, n)
                assert agrees(found), (n, better, differing)
    usual, moved = one(20, 10, 100), one(4, 0, 5)
    assert (usual.value - usual.low) / (usual.high - usual.value) == pytest.approx(1)
    assert moved.p == 0.0625 and moved.low == 0.0 < moved.value


def test_five_clusters_show_nothing_and_are_no_point() -> None:
    """All rows of five clusters are better: the sign test's p is 0.0625, and 0 is in the limits."""
    steps = np.ones((50, 1))
    (found,) = estimates(units_of([steps], [[i // 10 for i in range(50)]]))
    assert (found.p, found.low, found.high) == (0.0625, 0.0, 1.0)
    (six,) = estimates(units_of([np.ones((60, 1))], [[i // 10 for i in range(60)]]))
    assert six.p == pytest.approx(2 / 64) and 0 < six.low < 0.6 and six.high == 1


def test_skewed_differences_have_wide_limits_on_the_far_side() -> None:
    """Of lognormal differences the mean of a few is mostly too low: the upper limit is further away."""
    generator = np.random.default_rng(3)
    held = plain = 0
    for _ in range(300):
        values = np.exp(generator.normal(size=(60, 1)))
        (found,) = estimates(units_of([values], [None], None, math.inf))
        held += found.low <= math.exp(0.5) <= found.high
        limits = ttest_1samp(values[:, 0], 0).confidence_interval(0.95)
        plain += limits.low <= math.exp(0.5) <= limits.high
        assert found.high >= limits.high - 1e-9 and found.low <= limits.low + 1e-3
    assert held >= 0.92 * 300 > plain


@pytest.mark.parametrize("candidates", [1, 2, 3])
@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 2]])
def test_five_equal_answers_are_no_proof_that_models_are_equal(
    candidates: int, groups: list[int] | None
) -> None:
    """No candidate differs from the base on five examples: the interval stays wide, also in a family."""
    family_of_equals = estimates(units_of([np.zeros((5, candidates))], [groups]))
    assert all(one_of.p == 1 for one_of in family_of_equals)
    assert all(one_of.low < -0.5 and one_of.high > 0.5 for one_of in family_of_equals)


def test_candidates_no_further_apart_than_luck_takes_them_are_shrunk_to_their_mean() -> None:
    steps = np.array([[1.0, -1.0], [-1.0, 1.0]] * 50 + [[1.0, 0.0]])
    values = units_of([steps], [None]).values
    assert values[0] != values[1]
    assert shrunk(units_of([steps], [None])).tolist() == pytest.approx([values.mean()] * 2, abs=1e-12)
