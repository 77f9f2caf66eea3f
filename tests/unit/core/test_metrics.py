"""Which value of a figure is its best, for every name that something here or LLaMA-Factory writes."""

import pytest

from tests.messages import printed
from tuneyard.core.training.metrics import UNKNOWN, direction, metric_of


@pytest.mark.parametrize(
    ("names", "best"),
    [
        ("accuracy eval_accuracy eval_rte_accuracy macro_f1 predict_rouge-l", 0.9),
        ("loss eval_loss train_loss eval_alpaca_rte_eval_loss perplexity kl error eval_ece brier ppl", 0.1),
    ],
)
def test_more_or_less_is_better(names, best):
    for name in names.split():
        assert metric_of(name) is not UNKNOWN and metric_of(name).best([0.5, 0.9, 0.1]) == best, name


def test_what_nobody_knows_is_said_to_be_unknown():
    assert metric_of("eval_my_score") is UNKNOWN
    printed(direction("my_score"), "my_score", "unknown", "higher is better")
    assert direction("eval_loss") == "eval_loss (nats, lower is better)"


@pytest.mark.parametrize(
    ("name", "value", "difference"),
    [("accuracy", 0.9333, "+93.3 points"), ("eval_loss", 1.5432, "+1.54")],
)
def test_a_difference_is_written_in_its_unit(name, value, difference):
    assert metric_of(name).difference_text(value) == difference
