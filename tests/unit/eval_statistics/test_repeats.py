"""The interval of the mean of several repeats of sampled answers: range, coverage, what is printed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.eval.scoring.repeats import repeated, repeats_lines
from tuneyard.eval.scoring.task import Figure
from tuneyard.eval.statistics.rates import mean_of, rate_of


def accuracies(answers: np.ndarray, groups: list[int] | None) -> list[dict[str, Figure]]:
    runs = []
    for one in answers:
        rate = rate_of(one.tolist(), groups)
        runs.append({"figure": Figure(rate.value, rate.ci95, rate.n)})
    return runs


def similarities(answers: np.ndarray, groups: list[int] | None) -> list[dict[str, Figure]]:
    """Means in percent, as BLEU is one."""
    runs = []
    for one in answers:
        mean = mean_of((100 * one).tolist(), groups)
        runs.append({"figure": Figure(mean.value, mean.ci95, mean.n, share=False)})
    return runs


# rows, repeats, rows of a cluster, and the beta distribution of the chances of a right answer
DESIGNS = {
    "many rows": (80, 3, 1, (0.8, 1.2)),
    "the draws decide": (60, 5, 1, (40, 60)),
    "the rows decide": (60, 5, 1, (0.1, 0.15)),
    "few rows": (30, 3, 1, (0.8, 1.2)),
    "few errors": (60, 4, 1, (6, 1)),
    "clusters": (90, 3, 3, (0.8, 1.2)),
    "two repeats": (50, 2, 1, (2, 3)),
}


@pytest.mark.parametrize("figures_of", [accuracies, similarities])
@pytest.mark.parametrize("design", DESIGNS)
def test_the_interval_holds_for_other_rows_and_other_draws(design, figures_of) -> None:
    """400 scorings of a design: 95 % of the intervals contain the true value."""
    rows, repeats, size, (first, second) = DESIGNS[design]
    generator = np.random.default_rng(0)
    truth = first / (first + second)
    groups = None
    if size > 1:
        groups = [row // size for row in range(rows)]
    inside = 0
    for _ in range(400):
        chances = generator.beta(first, second, size=rows // size).repeat(size)
        if figures_of is accuracies:
            answers = (generator.random((repeats, rows)) < chances).astype(float)
        else:  # each answer is partly right
            answers = generator.beta(4 * chances + 0.01, 4 * (1 - chances) + 0.01, size=(repeats, rows))
        low, high = repeated(figures_of(answers, groups))["figures"]["figure"]["ci95"]  # type: ignore[index]
        scale = 1 if figures_of is accuracies else 100
        inside += low <= scale * truth <= high
    assert 0.92 <= inside / 400 <= 0.985


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6),
)
def test_an_interval_never_leaves_the_range_of_its_figure(runs) -> None:
    """Runs whose own limits are between 0 and 100, as those of BLEU are."""
    figures = []
    for value, below, above in runs:
        limits = (value * (1 - below), value + (100 - value) * above)
        figures.append({"bleu": Figure(value, limits, 3, share=False)})
    one = repeated(figures)["figures"]["bleu"]  # type: ignore[index]
    low, high = one["ci95"]
    assert -1e-9 <= low <= one["mean"] + 1e-9 and one["mean"] - 1e-9 <= high <= 100 + 1e-9


def test_a_figure_that_the_draws_do_not_change_has_the_interval_of_each_run() -> None:
    runs = [{"accuracy": Figure(0.0, (0.0, 0.05), 70)}] * 2
    summary = {"mean": 0.0, "sd": 0.0, "ci95": [0.0, 0.05], "values": [0.0, 0.0], "share": True}
    assert repeated(runs)["figures"] == {"accuracy": summary}
    losses = [{"eval_loss": Figure(2 + 1e-9 * n, (1.9, 2.3), 8, share=False)} for n in range(3)]
    assert repeated(losses)["figures"]["eval_loss"]["ci95"] == [1.9, 2.3]  # type: ignore[index]


def test_shares_are_printed_in_percent_and_other_figures_are_not() -> None:
    runs = [
        {"accuracy": Figure(value, (0.2, 0.9), 9), "bleu": Figure(100 * value, (0.2, 90), 9, share=False)}
        for value in (0.4, 0.6)
    ]
    shares, others = repeats_lines(repeated(runs))
    assert "accuracy mean 50.0% [" in shares and "standard deviation 14.1%" in shares
    assert "bleu mean 50 [" in others and "standard deviation 14.1" in others and "%" not in others
