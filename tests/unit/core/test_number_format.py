"""Numbers as tables and sentences show them: on their side of a border, and apart where they differ."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.core.language.number_format import percent, points, show_p
from tuneyard.core.training.metrics import ACCURACY, Metric, metric_of


def test_numbers_as_shown() -> None:
    assert (percent(0.9333), points(0.4333), points(-0.01), points(0.0)) == (
        "93.3 %",
        "+43.3",
        "−1.0",
        "0.0",
    )
    assert [show_p(p) for p in (0.0004, 0.0321, 0.0999, 0.48, 1.0)] == [
        "< 0.001", "= 0.032", "= 0.100", "= 0.48", "= 1.00",
    ]  # fmt: skip


def near(border: float) -> st.SearchStrategy[float]:
    """Shares of all sizes, many of them close to `border`."""
    close = st.tuples(st.floats(-9, -3), st.sampled_from([-1, 1])).map(lambda x: border + x[1] * 10 ** x[0])
    return st.floats(-1, 1) | close | st.just(border)


@given(near(0.05).filter(lambda p: 0.001 <= p <= 1))
def test_a_printed_p_is_on_its_side_of_5_percent(p: float) -> None:
    text = show_p(p).removeprefix("= ")
    if abs(p - 0.05) > 1e-7:
        assert (float(text) < 0.05, float(text) > 0.05) == (p < 0.05, p > 0.05)
    assert text != "0.050" and float(text) == pytest.approx(p, abs=0.00501)


@given(near(0) | near(-0.05), st.sampled_from([0, -0.05, -0.012]))
def test_a_printed_difference_is_on_its_side_of_0_and_of_the_margin(share: float, border: float) -> None:
    text = points(share, border)
    printed = float(text.replace("−", "-"))
    for side in (0, border):
        if abs(share - side) > 1e-8:
            assert (printed < 100 * side, printed > 100 * side) == (share < side, share > side)
    assert text[0] in "+−" or text == "0.0"
    assert printed == pytest.approx(100 * share, abs=0.0501)


@given(near(0.5), near(0.5), st.sampled_from([ACCURACY, metric_of("rougeL")]), st.sampled_from([1, 100, 1e5]))
def test_two_figures_of_a_sentence_are_printed_apart(
    first: float, second: float, metric: Metric, unit: float
) -> None:
    if metric.unit == "share":  # shares are not below 0
        first, second = abs(first), abs(second)
    texts = metric.distinct_texts(unit * first, unit * second)
    low, high = (float(re.sub("[ %,]", "", text).replace("−", "-")) for text in texts)
    if abs(first - second) > 1e-6:
        assert (low < high, low > high) == (first < second, first > second)
