"""Figures of free answers worked by hand."""

import pytest

from tuneyard.eval.figures.free_answers import exact_match, qa_summary, token_f1
from tuneyard.eval.statistics.rates import wilson


def row(expected: str, given: str, similarity: float, **more: object) -> dict[str, object]:
    return {
        "expected_output": expected,
        "predicted_output": expected if exact_match(expected, given) else given,
        "token_f1": token_f1(expected, given),
        "similarity": similarity,
        **more,
    }


ROWS = [
    row("Paris", "paris.", 0.5, type="factual"),  # exact, so partly right whatever its similarity
    row("Paris", "in Paris", 0.71, type="factual"),
    row("4", "", 0.0, type="reasoning"),
    row("北京", "南京", 0.7),  # not above 0.7
]


def test_figures_overall_and_by_type() -> None:
    found = qa_summary(ROWS)
    assert (found["accuracy"], found["n"], found["majority"], found["empty"]) == (0.25, 4, 0.5, 1)
    assert found["ci95"] == list(wilson(1, 4)) == found["exact_match"]["ci95"]
    assert (found["partial_match"]["value"], found["partial_match"]["ci95"]) == (0.5, list(wilson(2, 4)))
    assert found["token_f1"]["value"] == pytest.approx((1 + 2 / 3 + 0 + 0.5) / 4)
    factual, reasoning = found["types"]["factual"], found["types"]["reasoning"]
    assert (factual["exact_match"]["value"], factual["partial_match"]["value"]) == (0.5, 1.0)
    assert factual["exact_match"]["n"] == 2 and reasoning["exact_match"]["ci95"] == list(wilson(0, 1))


def test_a_prompt_that_was_not_asked_is_wrong_but_no_empty_answer() -> None:
    found = qa_summary([*ROWS, row("x", "", 0.0, too_long="too long")])
    assert (found["accuracy"], found["n"], found["empty"]) == (0.2, 5, 1)
