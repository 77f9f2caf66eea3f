"""Carry-over and repetition worked out by hand."""

from hypothesis import given
from hypothesis import strategies as st

from tuneyard.eval.figures.dialogue import Talk, carry_over, content, repetition


def test_content_is_longer_words_and_chinese_pairs() -> None:
    assert content("The adapter of LoRA, the ADAPTER") == {"adapter", "lora"}
    assert content("用LoRA微调，模型") == {"lora", "微调", "模型"}
    assert content("是 a 7") == set()


def test_carry_over_is_the_share_spoken_of_before_the_question() -> None:
    talk = Talk(
        ["What about adapters?", "And weights?", "Thanks."],
        ["Adapters hold small matrices.", "Weights stay frozen while adapters learn.", "Bye"],
    )
    # weights stay frozen while adapters learn | what about adapters hold small matrices: 1 of 6
    # the third answer has no content
    assert carry_over(talk) == 1 / 6
    other = Talk(["stay frozen", "adapters"], ["learn", "weights"])
    assert carry_over(talk, other) == 3 / 6
    assert carry_over(Talk(["什么是微调"] * 2, ["微调模型", "模型微调好"])) == 2 / 4  # 模型 型微 微调 调好


def test_a_single_answer_has_nothing_before_it() -> None:
    talk = Talk(["hello there", "more"], ["general answer"])
    assert carry_over(talk) is None
    assert repetition(talk) is None


def test_repetition_is_the_share_of_phrases_said_again() -> None:
    talk = Talk(["a"] * 3, ["one two three four five", "zero one two three four", "one two"])
    # zero one two three, one two three four: the latter was said; the third answer is too short
    assert repetition(talk) == 1 / 2
    assert repetition(Talk(["a"] * 2, ["我不知道。", "我不知道！"])) == 1


@given(st.lists(st.text("ab 好的word", max_size=30), min_size=2, max_size=5))
def test_both_are_shares_and_saying_the_same_again_is_all(answers) -> None:
    talk = Talk(["?"] * len(answers), answers)
    for value in (carry_over(talk), repetition(talk)):
        assert value is None or 0 <= value <= 1
    again = Talk(["?"] * 2, [answers[0]] * 2)
    assert carry_over(again) in (1, None)
    assert repetition(again) in (1, None)
