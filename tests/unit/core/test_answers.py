"""Empty answers and equal pairs: what counts in which stage, and from when on it is an error."""

import pytest

from tuneyard.core.records.answers import answer_codes, code_for


@pytest.mark.parametrize(
    ("stage", "texts", "codes"),
    [
        ("sft", ["yes"], set()),
        ("sft", [" \n"], {"W417"}),
        ("rm", ["yes", "no"], set()),
        ("rm", ["", "no"], {"W417"}),
        ("dpo", ["yes", ""], {"W417"}),
        ("dpo", ["yes", "yes "], {"W422"}),
        ("rm", ["", ""], {"W417", "W422"}),
        ("kto", ["yes", ""], set()),
        ("kto", ["", ""], {"W417"}),
    ],
)
def test_codes_of_a_row(stage, texts, codes):
    answers = [{"content": text} for text in texts]
    assert answer_codes(stage, [], answers, mask_history=False) == codes


@pytest.mark.parametrize(
    ("stage", "role", "content", "mask_history", "codes"),
    [
        ("sft", "assistant", " ", False, {"W417"}),
        ("sft", "assistant", " ", True, set()),
        ("sft", "user", "", False, set()),
        ("sft", "assistant", None, False, set()),  # LLaMA-Factory stops at it
        ("dpo", "assistant", "", False, set()),
        ("kto", "assistant", "", False, set()),
    ],
)
def test_an_empty_answer_before_the_last_counts_if_it_is_learned(stage, role, content, mask_history, codes):
    prompt = [{"role": "user", "content": "Why?"}, {"role": role, "content": content}]
    answers = [{"content": "yes"}, {"content": "no"}]
    assert answer_codes(stage, prompt, answers, mask_history=mask_history) == codes


@pytest.mark.parametrize(("count", "rows", "code"), [(1, 3, "W417"), (3, 3, "E417"), (0, 0, "W417")])
def test_every_row_makes_it_an_error(count, rows, code):
    assert code_for("W417", count, rows) == code
