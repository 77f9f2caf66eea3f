"""The reader of records: formats of records without an entry, and the quick way to prompts."""

import json

import pytest

from tuneyard.core.errors import ContentError
from tuneyard.core.records import (
    OPENAI_TAGS,
    ChatMessage,
    read_example,
)

PLAIN = {"prompt": "instruction", "query": "input", "response": "output"}


def test_openais_calls_and_results_are_read_without_an_entry() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "r", "tool_call_id": "1"},
        {"role": "tool", "content": "s", "tool_call_id": "2"},
        {"role": "assistant", "content": "A"},
    ]
    example = read_example({"messages": messages}, {}, "here")
    assert [(message.role, message.text) for message in example.messages] == [
        ("user", "Q"),
        ("function", '{"name": "f", "arguments": {"a": 1}}'),
        ("observation", "r\n</tool_response>\n<tool_response>\ns"),
    ]
    assert example.answers == [ChatMessage("assistant", "A", 5)] and not example.fault


def test_a_pair_is_read_without_an_entry() -> None:
    example = read_example({"prompt": "Q", "chosen": "yes", "rejected": "no"}, {}, "here")
    assert example.messages == [ChatMessage("user", "Q")]
    assert [answer.text for answer in example.answers] == ["yes", "no"]


@pytest.mark.parametrize(("mark", "texts"), [(True, ["Q", "A", ""]), (False, ["Q", "", "A"])])
def test_beside_a_marked_answer_stands_an_empty_one(mark, texts) -> None:
    columns = {"messages": "conversations", "kto_tag": "good"}
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    entry = {"formatting": "sharegpt", "columns": columns}
    example = read_example({"conversations": turns, "good": mark}, entry, "here")
    assert [message.text for message in example.trained_messages] == texts


@pytest.mark.parametrize(
    ("entry", "record", "reason"),
    [
        ({"formatting": "sharegpt", "columns": {}}, {}, "the entry names no column of messages"),
        ({"formatting": "sharegpt"}, {"conversations": "x"}, 'conversations: found "x", expected a list'),
        ({"formatting": "sharegpt"}, {"conversations": [3]}, "turn 1: found 3, expected a message"),
        ({"formatting": "sharegpt"}, {"conversations": [{"from": "human", "value": 3}]}, "value: found 3"),
        ({"columns": PLAIN}, {"instruction": 3, "output": "O"}, "instruction: found 3, expected text"),
        ({"columns": PLAIN}, {"instruction": "I", "output": 3}, "output: found 3, expected text"),
        (
            {"columns": {**PLAIN, "history": "h"}},
            {"instruction": "I", "h": [["Q", 3]]},
            'h: found ["Q", 3], expected [question, answer]',
        ),
        (
            {"formatting": "openai", "tags": OPENAI_TAGS, "columns": {"messages": "m"}},
            {"m": [{"role": "assistant", "content": "", "tool_calls": [3]}]},
            "m: turn 1: tool_calls: ",
        ),
    ],
)
def test_a_value_that_cannot_be_read_is_an_error_with_its_place(entry, record, reason) -> None:
    with pytest.raises(ContentError) as error:
        read_example(record, entry, "a.json: record 7")
    assert str(error.value).startswith("a.json: record 7: ") and reason in str(error.value)


def test_calls_of_a_message_keep_their_letters() -> None:
    call = {"function": {"name": "天气", "arguments": '{"city": "北京"}'}}
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "tool_calls": [call]}]
    entry = {"formatting": "openai", "columns": {"messages": "messages"}, "tags": OPENAI_TAGS}
    example = read_example({"messages": messages}, entry, "here")
    (answer,) = example.answers
    assert json.loads(answer.text) == [call["function"]]
    assert "天气" in answer.text and "北京" in answer.text
