"""What a generated answer is taken for."""

import pytest

from tuneyard.eval.figures.answers import cut_thought, parse_substring, parse_word

ENGLISH = ["yes", "no", "maybe"]
CHINESE = ["是", "否", "不确定"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("yes", "yes"), ("**Maybe**", "maybe"),
        ("The answer is yes.", "yes"), ("Yes, yes, it does.", "yes"),
        ("not", "unknown"), ("I know it", "unknown"), ("yesterday", "unknown"),
        ("", "unknown"), ("yes or no", "unknown"), ("It is not yes", "unknown"),
        ("not a yes", "unknown"),
        ("I cannot answer with yes", "unknown"),
        ("I'm sorry, no.", "unknown"),
        ("<think>no, wait</think>\n\nyes", "yes"), ("<think>yes yes yes", "unknown"),
        ("I don’t know: no", "unknown"),
        # a label that stands alone, with other labels among the words of its explanation
        ("Yes, there is no doubt about it.", "yes"), ("No doubt, yes", "yes"),
        ("Yes\n\nThere is no other way to read it.", "yes"),
        ("No. Maybe he did, but nobody says so.", "no"),
        ("Answer: Yes\nExplanation: no dog is named", "yes"),
        ("**No**\nThe premise does not say yes to that", "no"), ("No, not yes.", "no"),
        ("(Maybe) no idea", "maybe"),
        ("Is it yes or no? Hard to say", "unknown"), ("The answer is yes, there is no doubt.", "yes"),
        ("I would say yes.", "yes"),
        ("No it does not.", "no"), ("no because he sleeps", "no"),
        # two different answers
        ("Yes, or no.", "unknown"),
        ("No, it's a yes.", "unknown"), ("Yes\nNo\n", "unknown"),
        ("maybe yes", "unknown"), ("yes/no", "unknown"),
        ("No, wait: yes!", "unknown"), ("yes-no", "unknown"),
        # an article, a part of a word, a negation, a refusal
        ("There is no doubt about it.", "unknown"),
        ("no-one is there", "unknown"),
        ("No one is outside. Yes.", "yes"), ("never yes", "unknown"),
        ("Not yes: no", "no"), ("I'm unable to answer. Yes.", "unknown"),
        ("Yes. I won't say more.", "yes"),
        ("As an AI, I say: yes", "unknown"),
    ],
)  # fmt: skip
def test_word_parser_in_english(text, label) -> None:
    assert parse_word(text, ENGLISH) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("是", "是"), ("答案：否", "否"), ("不确定", "不确定"), ("我不确定。", "不确定"),
        ("不是", "unknown"), ("是否", "unknown"), ("抱歉，是", "unknown"),
        ("否定", "unknown"), ("可是", "unknown"), ("", "unknown"),
        ("是的，可以推出。", "是"), ("答案是否", "否"), ("答案是：是", "是"),
        ("这不是一个问题", "unknown"),
        # a label that stands alone, with other labels among the words of its explanation
        ("是，没有疑问，不是假的。", "是"), ("否，因为这不是事实。", "否"),
        ("是\n否则不成立", "是"), ("否。是的", "unknown"), ("是，或者否。", "unknown"),
        ("是或否", "unknown"), ("是还是否", "unknown"), ("还是不好说", "unknown"),
        ("不是，是。", "是"), ("回答：否\n理由：前提没有说明是否下雨", "否"),
        ("是吗？", "unknown"),
        ("我不知道，是", "unknown"),
        ("是不是呢", "unknown"), ("“否”", "否"), ("答案为不确定，不是否", "不确定"),
    ],
)  # fmt: skip
def test_word_parser_in_chinese(text, label) -> None:
    assert parse_word(text, CHINESE) == label


def test_a_label_may_be_the_negation_of_another() -> None:
    labels = ["是", "不是"]
    assert [parse_word(text, labels) for text in ("是。", "不是。", "不是，是", "答案是不是")] == [
        "是", "不是", "unknown", "不是",
    ]  # fmt: skip


def test_labels_in_an_explanation_do_not_contradict() -> None:
    labels = ["entailment", "neutral", "contradiction"]
    for text in ("Neutral. There is neither entailment nor contradiction.", "Neutral, no contradiction."):
        assert parse_word(text, labels) == "neutral"
    assert parse_word("Neutral, or contradiction.", labels) == "unknown"


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


@pytest.mark.parametrize(
    "output",
    [
        "<think>no, since 3 is odd</think>yes",
        "no, since 3 is odd\n</think>\n\nyes",  # the prompt has its beginning
        "<think>\n\n</think>\n\nyes",
        "<seed:think>no?</seed:think>yes",
        "◁think▷no?◁/think▷yes",
        "[THINK]no?[/THINK]yes",
        "<thought>\nno?\n</thought>\n\nyes",
        "<thinking>no?</thinking>yes",
        "no?</thought>yes",
        "<|START_THINKING|>no?<|END_THINKING|><|START_RESPONSE|>yes<|END_RESPONSE|>",
        "<|begin_of_thought|>no?<|end_of_thought|>\n<|begin_of_solution|>yes<|end_of_solution|>",
        "<|channel>thought\nno?<channel|>yes",
        "<|channel|>analysis<|message|>no?<|end|><|start|>assistant<|channel|>final<|message|>yes",
    ],
)
def test_the_thoughts_of_every_template_are_cut(output: str) -> None:
    assert cut_thought(output) == "yes"
    assert parse_word(output, ["yes", "no"]) == "yes"


def test_each_thought_of_a_template_of_llamafactory_is_cut() -> None:
    from llamafactory.data.template import TEMPLATES

    words = {template.thought_words for template in TEMPLATES.values()}
    assert len(words) > 3
    for begins, ends in words:
        assert cut_thought(f"{begins}no?{ends}yes") == "yes"
        assert cut_thought(f"{begins}no?") == ""


@pytest.mark.parametrize("begins", ["<think>", "<|channel>thought", "◁think▷", "[THINK]", "<seed:think>"])
def test_a_thought_that_ends_with_its_mark_is_an_empty_answer(begins: str) -> None:
    assert cut_thought(begins) == cut_thought(f"{begins}\n") == ""


def test_a_thought_of_gpt_oss_is_cut_where_special_tokens_are_left_out() -> None:
    assert cut_thought("analysisNo, or yes?assistantfinalyes") == "yes"
    assert cut_thought("The analysis is no assistantfinal.") == "The analysis is no assistantfinal."


@pytest.mark.parametrize(
    "text", ['{"text": "<think>no</think> yes"}', '["</think>"]', '{"a": {"b": "[THINK] is a mark"}}']
)
def test_marks_inside_of_json_are_no_thought(text: str) -> None:
    assert cut_thought(f" {text}\n") == text
    assert cut_thought(f"<think>no</think>{text[0]}") == text[0]


def test_a_thought_is_cut() -> None:
    assert cut_thought("<think>\nlong\n</think>\n\nno") == "no"
