"""Macro-F1 and its differences, against scikit-learn, plain bootstraps and plain swaps."""

import random
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneyard.eval.statistics.f1 import macro_f1s, mean_f1
from tuneyard.eval.statistics.family import DifferenceTest, estimates, units_of
from tuneyard.eval.statistics.rates import Mean


def f1_of(gold: list[str], old: list[str], new: list[str], groups: list[str] | None = None) -> DifferenceTest:
    """The difference of macro-F1 as compare finds it, for one model and for one of several."""
    correct = [[float(a == b) for a, b in zip(gold, said, strict=True)] for said in (old, new)]
    units = units_of([np.subtract(*reversed(correct))[:, None]], [groups])
    spread = macro_f1s(gold, {"old": old, "new": new}, groups).spread([("old", "new")])
    return estimates(units, spread)[0]


def macro_f1(gold: list[str], said: list[str], groups: list[str] | None = None) -> Mean:
    return macro_f1s(gold, {"model": said}, groups).figures()["model"]


def drawn_answers(draw: random.Random, rows: int, *chances: float) -> list[list[str]]:
    """Expected labels, and answers of models that know the label with these chances."""
    gold = [draw.choice(["yes", "no", "maybe"]) for _ in range(rows)]
    return [gold, *([g if draw.random() < p else draw.choice(["yes", "no"]) for g in gold] for p in chances)]


def test_f1_difference_is_that_of_a_plain_bootstrap_and_of_plain_swaps() -> None:
    """Row by row, with F1 as it is defined: the value, the limits, and p by swapping answers."""
    draw = random.Random(1)
    gold, old, new = drawn_answers(draw, 90, 0.4, 0.6)

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


def test_equal_answers_have_no_difference_of_f1_and_an_interval_with_a_width() -> None:
    gold, old = ["yes", "no"] * 60, ["yes", "no"] * 20 + ["no", "yes"] * 40
    same = f1_of(gold, old, old)
    assert (same.value, same.p) == (0.0, 1.0) and same.low == -same.high < 0


def test_two_datasets_give_the_mean_difference_of_macro_f1_with_a_smaller_error() -> None:
    gold, old, new = drawn_answers(random.Random(1), 60, 0.5, 0.7)
    one, other = (macro_f1s(gold, {"old": old, "new": new}, None, stream) for stream in (0, 1))
    alone = one.spread([("old", "new")])
    mean = mean_f1([one, other], ["new", "old"]).spread([("old", "new")])
    assert mean.value.tolist() == pytest.approx(alone.value.tolist())
    assert mean.error.tolist() == pytest.approx((alone.error / 2**0.5).tolist(), rel=0.07)


def test_macro_f1_of_clusters_leaves_out_whole_clusters() -> None:
    """Copies of rows in a cluster of their own add nothing: value, error and degrees of freedom stay."""
    draw = random.Random(2)
    gold = [draw.choice(["yes", "no"]) for _ in range(40)]
    old, new = ([g if draw.random() < p else "yes" for g in gold] for p in (0.4, 0.7))
    single = f1_of(gold, old, new, [str(i) for i in range(40)])
    thrice = ([one for one in each for _ in range(3)] for each in (gold, old, new))
    copied = f1_of(*thrice, [str(i // 3) for i in range(120)])
    assert (copied.value, copied.p) == (pytest.approx(single.value), pytest.approx(single.p, abs=1e-3))
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high), abs=1e-6)


def test_a_rare_label_that_is_always_correct_leaves_the_interval_of_macro_f1_open() -> None:
    """Two examples of `maybe`, both correct: leaving out any row changes nothing in that label's F1."""
    gold = ["yes"] * 40 + ["no"] * 40 + ["maybe"] * 2
    said = ["yes"] * 36 + ["no"] * 4 + ["no"] * 36 + ["yes"] * 4 + ["maybe"] * 2
    value, low, high = macro_f1(gold, said).with_limits
    assert value == pytest.approx((0.9 + 0.9 + 1) / 3) and low < 0.77 < 0.95 < high <= 1
    alone = macro_f1(gold[:80], said[:80])
    assert alone.high - alone.low < high - low
    assert macro_f1(gold, said, ["a"] * 82).ci95 == (0.0, 1.0)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcx")), min_size=1, max_size=50))
def test_macro_f1_equals_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    from sklearn.metrics import f1_score

    gold, predicted = map(list, zip(*pairs, strict=True))
    expected = f1_score(gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0)
    value, low, high = macro_f1(gold, predicted).with_limits
    assert value == pytest.approx(expected)
    assert 0 <= low <= high <= 1


def test_a_label_that_a_draw_lacks_is_left_out_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert macro_f1(["yes"] * 9 + ["no"], ["yes"] * 10).value == pytest.approx(9 / 19)


def test_macro_f1_interval_is_that_of_a_plain_bootstrap() -> None:
    from sklearn.metrics import f1_score

    draw = random.Random(0)
    gold = ["yes"] * 90 + ["no"] * 30
    predicted = [g if draw.random() < 0.8 else "no" for g in gold]
    scores = []
    for _ in range(300):
        rows = draw.choices(range(120), k=120)
        scores.append(f1_score([gold[i] for i in rows], [predicted[i] for i in rows], average="macro"))
    low, high = np.quantile(scores, (0.025, 0.975))
    ours_low, ours_high = macro_f1(gold, predicted).ci95
    assert (ours_low, ours_high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
