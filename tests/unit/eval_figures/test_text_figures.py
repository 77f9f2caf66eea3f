"""The figures of metrics.json from rows whose values are known."""

import math

import pytest

from tuneyard.eval.figures.text import generated_figures, percentiles, read_figures
from tuneyard.eval.statistics.rates import Mean, ratio

READ = [
    {"loss": 6.0, "tokens": 2, "truncated": False},
    {"loss": 2.0, "tokens": 6, "truncated": True},
    {"loss": 0.0, "tokens": 0, "truncated": True},
]


def said(prediction: str, reference: str, tokens: int, expected: int) -> dict[str, object]:
    lengths = {"prediction_tokens": tokens, "reference_tokens": expected}
    return {"prediction": prediction, "reference": reference, **lengths}


def test_the_loss_is_summed_over_tokens_and_never_averaged_over_rows() -> None:
    found = read_figures(READ)
    loss, perplexity = found["eval_loss"], found["perplexity"]
    assert isinstance(loss, Mean) and isinstance(perplexity, Mean)
    assert (loss.value, perplexity.value, found["truncation_rate"]) == (1.0, math.e, 2 / 3)
    # residuals 4 and -4, of 1/4 and 3/4 of the tokens, and 0: sqrt(16 / 0.75 + 16 / 0.25) / 8
    assert ratio([6, 2, 0], [2, 6, 0]).stderr == pytest.approx(math.sqrt(4 / 3))
    assert loss.as_json()["ci95"] is None  # the lower limit would be below 0


def test_rows_of_one_group_are_taken_together() -> None:
    grouped = [{**row, "group": group} for row, group in zip(READ, "aab", strict=True)]
    # those of b have no token: a single group is left
    assert read_figures(grouped)["eval_loss"].as_json()["ci95"] is None


def test_percentiles_by_hand() -> None:
    ranks = {f"p{p}": 10 * p for p in (5, 25, 50, 75, 95, 99)}
    assert percentiles(range(1000, 0, -1)) == {"n": 1000, "mean": 500.5, "min": 1, **ranks, "max": 1000}


def test_a_hopeless_model_has_a_perplexity_that_json_holds() -> None:
    assert math.isfinite(read_figures([{**READ[0], "loss": 1e9}])["perplexity"].value)


def test_figures_of_generated_answers_stand_in_the_documents_order() -> None:
    found, _ = generated_figures([said("a b a b", "x", 4, 2), said(" ", "x y", 0, 6)], overlap=False)
    values = {name: getattr(one, "value", one) for name, one in found.items()}
    assert list(values.items()) == [
        ("empty_rate", 0.5),
        ("avg_pred_len_tokens", 2),
        ("avg_ref_len_tokens", 4),
        ("len_ratio_pred_over_ref", 0.5),
        ("distinct-1", 2 / 4),
        ("distinct-2", 2 / 3),
    ]
    assert found["empty_rate"].n == 2


def test_lengths_without_any_reference_have_no_ratio() -> None:
    found, _ = generated_figures([said("a", "", 1, 0)], overlap=False)
    assert found["len_ratio_pred_over_ref"] is None
