"""Which value of a figure is its best, for every name that something here or LLaMA-Factory writes."""

import pytest

from tests.messages import printed
from tuneyard.core.training.metrics import UNKNOWN, direction, metric_of


@pytest.mark.parametrize(
    "name", ["accuracy", "eval_accuracy", "eval_rte_accuracy", "macro_f1", "predict_rouge-l"]
)
def test_more_is_better(name):
    assert metric_of(name) is not UNKNOWN and metric_of(name).best([0.5, 0.9, 0.1]) == 0.9


@pytest.mark.parametrize(
    "name",
    [
        "loss",
        "eval_loss",
        "train_loss",
        "eval_alpaca_rte_eval_loss",
        "perplexity",
        "kl",
        "error",
        "eval_ece",
        "brier",
        "ppl",
    ],
)
def test_less_is_better(name):
    assert metric_of(name).best([0.5, 0.9, 0.1]) == 0.1


def test_what_nobody_knows_is_said_to_be_unknown():
    assert metric_of("eval_my_score") is UNKNOWN
    printed(direction("my_score"), "my_score", "unknown", "higher is better")
    assert direction("eval_loss") == "eval_loss (nats, lower is better)"
