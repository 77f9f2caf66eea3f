"""What a generated answer is taken for."""

import pytest

from eval.measure.answers import cut_thought, parse_substring, parse_word

ENGLISH = ["yes", "no", "maybe"]
CHINESE = ["是", "否", "不确定"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("yes", "yes"), ("Yes.", "yes"), (" NO!", "no"), ("**Maybe**", "maybe"), ('"No"', "no"),
        ("The answer is yes.", "yes"), ("Yes, yes, it does.", "yes"), ("No, it does not.", "no"),
        ("not", "unknown"), ("I know it", "unknown"), ("nothing", "unknown"), ("yesterday", "unknown"),
        ("", "unknown"), ("yes or no", "unknown"), ("It is not yes", "unknown"), ("not a yes", "unknown"),
        ("I cannot answer with yes", "unknown"), ("I don't know, maybe", "unknown"),
        ("I'm sorry, no.", "unknown"), ("Maybe. I can't tell more.", "maybe"),
        ("<think>no, wait</think>\n\nyes", "yes"), ("<think>yes yes yes", "unknown"),
        ("I don’t know: no", "unknown"),
    ],
)  # fmt: skip
def test_word_parser_in_english(text, label) -> None:
    assert parse_word(text, ENGLISH) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("是", "是"), ("是。", "是"), ("答案：否", "否"), ("不确定", "不确定"), ("我不确定。", "不确定"),
        ("不是", "unknown"), ("是否", "unknown"), ("是，否", "unknown"), ("抱歉，是", "unknown"),
        ("否定", "unknown"), ("可是", "unknown"), ("但是", "unknown"), ("", "unknown"),
        ("是的，可以推出。", "是"), ("答案是否", "否"), ("答案是：是", "是"), ("这不是一个问题", "unknown"),
    ],
)  # fmt: skip
def test_word_parser_in_chinese(text, label) -> None:
    assert parse_word(text, CHINESE) == label


def test_longer_labels_hide_the_shorter_ones_in_them() -> None:
    labels = ["entailment", "not entailment", "not_entailment"]
    assert parse_word("not entailment", labels) == "not entailment"
    assert parse_word("not_entailment", labels) == "not_entailment"
    assert parse_word("Entailment", labels) == "entailment"


@pytest.mark.parametrize(
    ("text", "label"),
    [("not sure", "no"), ("I know", "no"), ("maybe yes", "yes"), ("maybe", "maybe"), ("hm", "unknown")],
)
def test_substring_parser_searches_as_the_published_script(text, label) -> None:
    assert parse_substring(text, ["maybe", "no", "yes"]) == label


def test_a_thought_is_cut() -> None:
    assert cut_thought("<think>\nlong\n</think>\n\nno") == "no"
