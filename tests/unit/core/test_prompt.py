"""Records as conversations: where the messages are found, and what is left open for the model to answer."""

import pytest

from core.errors import ContentError
from core.prompt import conversation

USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}


@pytest.mark.parametrize("field", ["messages", "text"])
def test_messages_are_found_without_a_registry_entry(field) -> None:
    talk = conversation({field: [USER, ANSWER, USER, ANSWER], "subtype": "x"}, {}, "here")
    assert talk.messages == [USER, ANSWER, USER]
    assert talk.answer == "A"


@pytest.mark.parametrize(
    "record",
    [{"messages": [USER]}, {"conversations": [{"from": "human", "value": "Q"}]}, {"instruction": "Q"}],
)
def test_a_prompt_without_an_answer_is_a_question_all_the_same(record) -> None:
    talk = conversation(record, {}, "here")
    assert talk.messages == [USER]
    assert talk.answer == ""


@pytest.mark.parametrize("messages", [[], [ANSWER], [USER, ANSWER, ANSWER]])
def test_an_answer_to_nothing_is_refused(messages) -> None:
    with pytest.raises(ContentError, match=f"found {len(messages)} messages, expected a user"):
        conversation({"messages": messages}, {}, "here")


@pytest.mark.parametrize("pair", [("question", "answer"), ("prompt", "response"), ("instruction", "output")])
def test_questions_and_answers_are_found_by_their_pair_of_keys(pair) -> None:
    talk = conversation({"prompt": "no", **dict(zip(pair, "QA", strict=True)), "idx": 1}, {}, "here")
    assert (talk.messages, talk.answer) == ([USER], "A")


def test_a_registry_entry_is_read_as_llamafactory_reads_it() -> None:
    with pytest.raises(ContentError, match="no column 'instruction'"):
        conversation({"question": "Q", "answer": "A"}, {"file_name": "x"}, "here")
