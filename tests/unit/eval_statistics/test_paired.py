"""Paired tests against scipy, published examples, brute force and simulation."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from eval.statistics.paired import (
    F1Difference,
    bonett_price,
    difference,
    f1_difference,
    holm,
    mcnemar,
    mean_sign_flip,
    rows_needed,
    sign_flip,
    smallest_difference,
)
from eval.statistics.shares import label_cells

COUNTS = st.integers(0, 400)


@given(COUNTS, COUNTS)
def test_mcnemar_is_the_binomial_test_of_the_discordant_rows(better: int, worse: int) -> None:
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar(better, worse) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(1, 7) == 2 * (1 + 8) / 256
    assert mcnemar(0, 0) == mcnemar(4, 4) == 1.0
    assert mcnemar(6000, 0) == 0.0  # 2^-5999 is under the smallest float


@given(st.lists(st.sampled_from([1, -1]), max_size=60))
def test_single_rows_as_groups_give_mcnemar(nets: list[int]) -> None:
    assert sign_flip(nets) == pytest.approx(mcnemar(nets.count(1), nets.count(-1)), rel=1e-9)


@given(st.lists(st.integers(-4, 4).filter(bool), max_size=9))
def test_sign_flip_counts_every_swap(nets: list[int]) -> None:
    sums = [abs(int(np.dot(nets, signs))) for signs in itertools.product((1, -1), repeat=len(nets))]
    expected = sum(total >= abs(sum(nets)) for total in sums) / len(sums)
    assert sign_flip(nets) == pytest.approx(expected, rel=1e-9)


def test_mean_sign_flip_of_one_set_is_its_own_test() -> None:
    nets = [1] * 30 + [-1] * 14
    assert mean_sign_flip([nets], [100]) == pytest.approx(mcnemar(30, 14), rel=0.1)
    assert mean_sign_flip([[], []], [10, 20]) == 1.0


def test_mean_sign_flip_of_two_sets_counts_every_swap() -> None:
    one, other = [1, 1, 1, -1, 2], [1, 1, 1, 1]
    sums = [
        np.dot(one, first) / 20 + np.dot(other, second) / 8
        for first in itertools.product((1, -1), repeat=5)
        for second in itertools.product((1, -1), repeat=4)
    ]
    expected = np.mean(np.abs(sums) >= 4 / 20 + 4 / 8 - 1e-12)
    assert mean_sign_flip([one, other], [20, 8]) == pytest.approx(expected, rel=0.05)


def test_bonett_price_by_hand() -> None:
    # better 1, worse 7 of 21: (2/23, 8/23), difference -6/23, limits -0.508 and -0.013
    low, high = bonett_price(1, 7, 21)
    half = 1.959964 * math.sqrt((10 / 23 - 36 / 529) / 23)
    assert (low, high) == (pytest.approx(-6 / 23 - half, abs=1e-6), pytest.approx(-6 / 23 + half, abs=1e-6))


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.floats(0, 1), st.just(n))))
def test_limits_hold_the_difference(counts: tuple[int, float, int]) -> None:
    better, part, n = counts
    worse = int(part * (n - better))
    low, high = bonett_price(better, worse, n)
    assert -1 <= low <= (better - worse) / n <= high <= 1


def test_bonett_price_covers_at_the_stated_rate() -> None:
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(60, [0.15, 0.05, 0.8], size=4000)
    inside = [low <= 0.1 <= high for low, high in (bonett_price(int(b), int(w), 60) for b, w, _ in drawn)]
    assert 0.94 < np.mean(inside) < 0.97


def test_holm_by_hand() -> None:
    # sorted 0.005 0.01 0.03 0.04, times 4 3 2 1, each at least the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_rows_needed_reproduces_the_textbook() -> None:
    # discordance 0.30, difference 0.10: (1.96·√0.3 + 0.8416·√0.29)² / 0.01 = 233.1
    assert rows_needed(0.10, 0.30) == pytest.approx(233.1, abs=0.05)
    assert rows_needed(-0.10, 0.30) == rows_needed(0.10, 0.30)
    assert rows_needed(0.0, 0.30) == math.inf
    assert rows_needed(0.10, 0.30, tests=3) > rows_needed(0.10, 0.30)


@given(st.integers(5, 20_000), st.floats(0, 1), st.integers(1, 8))
def test_smallest_difference_inverts_rows_needed(n: int, discordance: float, tests: int) -> None:
    least = smallest_difference(n, discordance, tests)
    if least < 1:
        assert rows_needed(least, discordance, tests) == pytest.approx(n, rel=1e-6)


@pytest.mark.parametrize(("n", "discordance"), [(300, 0.2), (277, 0.4), (1000, 0.1)])
def test_the_exact_test_finds_the_smallest_difference_four_times_in_five(n: int, discordance: float) -> None:
    least = smallest_difference(n, discordance)
    rate = 0.0
    for differing in range(n + 1):
        weight = binom.pmf(differing, n, discordance)
        if weight < 1e-6:
            continue
        gained = np.arange(differing + 1)
        p = np.minimum(1, 2 * binom.cdf(np.minimum(gained, differing - gained), differing, 0.5))
        rate += weight * binom.pmf(gained, differing, (1 + least / discordance) / 2)[p < 0.05].sum()
    assert 0.75 < rate < 0.82


def test_difference_of_independent_rows() -> None:
    old, new = [True] * 50 + [False] * 50, [True] * 45 + [False] * 25 + [True] * 30
    found = difference(old, new)
    assert (found.better, found.worse, found.value, found.discordance) == (30, 5, 0.25, 0.35)
    assert found.p == mcnemar(30, 5)
    assert (found.low, found.high) == bonett_price(30, 5, 100)
    assert found.design_effect == 1.0


def test_rows_that_repeat_in_their_group_add_no_evidence() -> None:
    old = [False] * 12 + [True] * 2 + [True] * 26
    new = [True] * 12 + [False] * 2 + [True] * 26
    four_times = [[x for x in answers for _ in range(4)] for answers in (old, new)]
    groups = [i // 4 for i in range(160)]
    single, naive = difference(old, new), difference(*four_times)
    found = difference(*four_times, groups)
    assert found.value == single.value and found.p == pytest.approx(single.p)
    assert naive.p < found.p / 100
    assert found.design_effect == pytest.approx(4, rel=0.03)
    assert found.high - found.low > 1.8 * (naive.high - naive.low)


def test_bootstrap_by_group_covers_at_the_stated_rate() -> None:
    draw = random.Random(3)
    inside = 0
    for _ in range(120):
        lean = [
            draw.choice([0.05, 0.35]) for _ in range(80)
        ]  # rows of a group gain together: +0.1 on average
        steps = [(draw.random() < chance, draw.random() < 0.1) for chance in lean for _ in range(4)]
        old = [lost for _, lost in steps]
        new = [gained for gained, _ in steps]
        found = difference(old, new, [i // 4 for i in range(320)])
        inside += found.low <= 0.1 <= found.high
    assert 0.90 < inside / 120 < 0.99


def test_bootstrap_of_single_rows_is_near_bonett_price() -> None:
    old, new = [True] * 50 + [False] * 50, [True] * 45 + [False] * 25 + [True] * 30
    plain, grouped = difference(old, new), difference(old, new, range(100))
    assert (grouped.low, grouped.high) == (
        pytest.approx(plain.low, abs=0.01),
        pytest.approx(plain.high, abs=0.01),
    )
    assert (grouped.p, grouped.design_effect) == (pytest.approx(plain.p), pytest.approx(1))


def test_an_interval_is_no_point_where_nothing_differs() -> None:
    found = difference([True] * 90, [True] * 90, [i // 3 for i in range(90)])
    assert found.p == 1.0 and found.low < 0 < found.high
    few = difference([True] * 10, [True] * 10, [i // 2 for i in range(10)])
    assert few.low == -few.high < 0  # the row gained and the row lost weigh the same


def test_one_group_says_nothing() -> None:
    found = difference([False] * 20, [True] * 20, ["a"] * 20)
    assert (found.p, found.low, found.high) == (1.0, -1.0, 1.0)


def test_difference_refuses_other_rows() -> None:
    with pytest.raises(ValueError, match="the same rows"):
        difference([True], [True, False])
    with pytest.raises(ValueError, match="the same rows"):
        difference([], [])


def f1_of(gold: list[str], old: list[str], new: list[str], groups: list[str] | None = None) -> F1Difference:
    return f1_difference(label_cells(gold, old, groups), label_cells(gold, new, groups))


def test_f1_difference_is_that_of_a_plain_bootstrap_and_of_plain_swaps() -> None:
    """Row by row, with F1 as it is defined: the value, the limits, and p by swapping answers."""
    draw = random.Random(1)
    gold = [draw.choice(["yes", "no", "maybe"]) for _ in range(90)]
    old, new = ([g if draw.random() < p else draw.choice(["yes", "no"]) for g in gold] for p in (0.4, 0.6))

    def f1(rows: list[int], said: list[str]) -> float:
        pairs = [(gold[i], said[i]) for i in rows]
        each = [
            2 * sum(g == s == x for g, s in pairs) / sum((g == x) + (s == x) for g, s in pairs)
            for x in ("yes", "no", "maybe")
        ]
        return sum(each) / 3

    found, every = f1_of(gold, old, new), list(range(90))
    value = f1(every, new) - f1(every, old)
    drawn, swapped = [], 0
    for _ in range(1000):
        rows = draw.choices(every, k=90)
        drawn.append(f1(rows, new) - f1(rows, old))
        sides = [draw.random() < 0.5 for _ in gold]
        one, other = (
            [(a, b)[flip ^ first] for a, b, flip in zip(old, new, sides, strict=True)] for first in (0, 1)
        )
        swapped += abs(f1(every, other) - f1(every, one)) >= abs(value) - 1e-12
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))
    assert found.p == pytest.approx(swapped / 1000, abs=0.03)


def test_f1_difference_knows_groups_and_sameness() -> None:
    gold, old = ["yes", "no"] * 60, ["yes", "no"] * 20 + ["no", "yes"] * 40
    new = ["yes", "no"] * 40 + ["no", "yes"] * 20
    alone, grouped = f1_of(gold, old, new), f1_of(gold, old, new, [str(i // 10) for i in range(120)])
    assert grouped.value == alone.value and grouped.high - grouped.low > 2 * (alone.high - alone.low)
    assert alone.p < 0.001 < grouped.p
    assert f1_of(gold, old, old) == F1Difference(0.0, 0.0, 0.0, 1.0)
