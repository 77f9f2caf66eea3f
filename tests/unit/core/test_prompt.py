"""Records as conversations: where the messages are found, and what is left open for the model to answer."""

import pytest

from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory import prompt
from tuneyard.core.llamafactory.prompt import chat_renderer, prompt_and_answer
from tuneyard.core.records import OPENAI_TAGS

OPENAI = {"formatting": "sharegpt", "tags": OPENAI_TAGS}
USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}


@pytest.mark.parametrize("field", ["messages", "text"])
def test_messages_are_found_without_a_registry_entry(field) -> None:
    talk = prompt_and_answer({field: [USER, ANSWER, USER, ANSWER], "subtype": "x"}, {}, "here")
    assert talk.messages == [USER, ANSWER, USER]
    assert talk.answer == "A"


@pytest.mark.parametrize(
    "record",
    [{"messages": [USER]}, {"conversations": [{"from": "human", "value": "Q"}]}, {"instruction": "Q"}],
)
def test_a_prompt_without_an_answer_is_a_question_all_the_same(record) -> None:
    talk = prompt_and_answer(record, {}, "here")
    assert talk.messages == [USER]
    assert talk.answer == ""


@pytest.mark.parametrize("messages", [[], [ANSWER], [USER, ANSWER, ANSWER]])
def test_an_answer_to_nothing_is_refused(messages) -> None:
    with raises(ContentError, "here", "answer", "messages"):
        prompt_and_answer({"messages": messages}, {}, "here")


@pytest.mark.parametrize("pair", [("question", "answer"), ("prompt", "response"), ("instruction", "output")])
def test_questions_and_answers_are_found_by_their_pair_of_keys(pair) -> None:
    talk = prompt_and_answer({"prompt": "no", **dict(zip(pair, "QA", strict=True)), "idx": 1}, {}, "here")
    assert (talk.messages, talk.answer) == ([USER], "A")


def test_a_registry_entry_is_read_as_llamafactory_reads_it() -> None:
    with raises(ContentError, "instruction"):
        prompt_and_answer({"question": "Q", "answer": "A"}, {"file_name": "x"}, "here")


def test_models_that_can_think_are_asked_not_to_unless_they_shall() -> None:
    class Tokenizer:
        def apply_chat_template(self, _: object, *, enable_thinking: bool, **_options: object) -> str:
            return f"{enable_thinking} <think>\n"

    texts = [
        chat_renderer(Tokenizer(), "x", *think)([USER], ask)
        for think in ((), (True,))
        for ask in (True, False)
    ]
    assert texts == ["False <think>\n\n</think>\n\n", "False <think>\n", "True <think>\n", "True <think>\n"]


class ToolTokenizer:
    """Writes the names of tools, as a chat template does that knows them, or leaves them out."""

    def __init__(self, knows_tools: bool) -> None:
        self.knows_tools = knows_tools

    def apply_chat_template(
        self, _: object, *, tools: list[dict[str, dict[str, str]]], **_options: object
    ) -> str:
        return "".join(tool["function"]["name"] for tool in tools) if self.knows_tools else "Q"


def test_a_chat_template_that_leaves_tools_out_is_refused_and_one_that_writes_them_is_not() -> None:
    messages = [{**USER, "tools": '[{"name": "weather"}]'}]
    assert chat_renderer(ToolTokenizer(knows_tools=True), "x")(messages, True) == "weather"
    with raises(ContentError, "weather"):
        chat_renderer(ToolTokenizer(knows_tools=False), "x")(messages, True)


def test_without_a_template_texts_stand_line_by_line_and_the_answer_right_after() -> None:
    render = chat_renderer(object(), None)
    assert render([USER, ANSWER, USER], True) == "Q\nA\nQ"
    assert render([USER, ANSWER, USER, ANSWER], False) == "Q\nA\nQA"


SYSTEM, OTHER = {"role": "system", "content": "S"}, {"role": "system", "content": "T"}
SHAREGPT = {**OPENAI, "columns": {"messages": "messages", "system": "system"}}


@pytest.mark.parametrize(
    ("messages", "column", "expected"),
    [
        ([SYSTEM, USER, ANSWER], "T", [SYSTEM, USER]),  # as LLaMA-Factory: the messages' own goes before
        ([USER, ANSWER], "T", [OTHER, USER]),
        ([USER, ANSWER], "", [USER]),
        ([USER, ANSWER], None, [USER]),
    ],
)
def test_a_prompt_has_one_system_turn(messages, column, expected) -> None:
    talk = prompt_and_answer({"messages": messages, "system": column}, SHAREGPT, "here")
    assert (talk.messages, talk.answer) == (expected, "A")


@pytest.mark.parametrize("messages", [[USER, SYSTEM, USER, ANSWER], [SYSTEM, OTHER, USER, ANSWER]])
def test_a_system_turn_after_the_first_message_is_refused(messages) -> None:
    with raises(ContentError, "system", "turn 2", "here", "messages"):
        prompt_and_answer({"messages": messages}, {}, "here")


@pytest.mark.parametrize("system", ["S", "", None])
def test_system_and_history_of_alpaca_stand_before_the_question(system) -> None:
    columns = {"prompt": "instruction", "response": "output", "system": "system", "history": "history"}
    record = {"instruction": "Q", "output": "A", "system": system, "history": [["Q1", "A1"]]}
    before = [{"role": "user", "content": "Q1"}, {"role": "assistant", "content": "A1"}]
    talk = prompt_and_answer(record, {"columns": columns}, "here")
    assert talk.messages == [*([SYSTEM] if system else []), *before, USER]


@pytest.mark.parametrize("role", ["judge", ["judge"], {"judge": 1}, None])
def test_a_role_that_a_registry_does_not_know_is_refused(role) -> None:
    with raises(ContentError, "here", "messages", "turn 1", "judge" if role else "null"):
        prompt_and_answer({"messages": [{"role": role, "content": "x"}, USER, ANSWER]}, {}, "here")


def test_llamafactorys_template_is_given_the_system_apart_and_an_open_answer(monkeypatch) -> None:
    class Template:
        def encode_oneturn(self, own: str, messages: list[dict[str, str]], *beside: str | None) -> object:
            asked = [own, *map(str, beside), *(f"{m['role']} {m['content']}" for m in messages)]
            return asked, ["what it would answer"]

    monkeypatch.setattr(prompt, "llamafactory_template", lambda *_: (Template(), "own"))
    encode = prompt.llamafactory_encoder(object(), "qwen")
    system = {"role": "system", "content": "S"}
    assert encode([system, USER, ANSWER, USER]) == [
        "own",
        "S",
        "None",
        "user Q",
        "assistant A",
        "user Q",
        "assistant ",
    ]
    assert encode([{**USER, "tools": "[]"}]) == ["own", "None", "[]", "user Q", "assistant "]


TOOLS = [{"name": "f"}, {"type": "function", "function": {"name": "g"}}]
TALK = [("human", "Q"), ("function_call", 'So.\n<tool_call>{"name": "f", "arguments": {}}</tool_call>')]


def test_calls_results_and_tools_become_what_chat_templates_take() -> None:
    call = '<think>\nT\n</think>\n\n[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"a": 1}}]'
    results = "one\n</tool_response>\n<tool_response>\ntwo"
    turns = [*TALK, ("observation", "r"), ("function_call", call), ("observation", results)]
    record = {"conversations": [{"from": role, "value": text} for role, text in turns], "tools": TOOLS}
    talk = prompt_and_answer(record, {}, "here")
    assert (talk.answer, talk.role) == ("", "assistant")
    messages, tools = prompt.openai_messages(talk.messages)
    f, g = (
        {"type": "function", "function": {"name": name, "arguments": a}}
        for name, a in (("f", {}), ("g", {"a": 1}))
    )
    assert messages == [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "So.", "tool_calls": [f]},
        {"role": "tool", "content": "r"},
        {"role": "assistant", "content": "<think>\nT\n</think>\n", "tool_calls": [f, g]},
        {"role": "tool", "content": "one"},
        {"role": "tool", "content": "two"},
    ]
    assert tools == [{"type": "function", "function": {"name": "f"}}, TOOLS[1]]


def test_a_call_may_be_the_answer() -> None:
    talk = prompt_and_answer({"conversations": [{"from": r, "value": t} for r, t in TALK]}, {}, "here")
    assert (talk.messages, talk.answer, talk.role) == ([USER], TALK[1][1], "function")


@pytest.mark.parametrize(
    ("turns", "tools", "says"),
    [
        (
            [*TALK, ("observation", "r"), ("gpt", "a")],
            "{",
            "{; here; tools",
        ),
        ([("human", "Q"), ("function_call", "f()"), ("observation", "r")], None, "f()"),
    ],
)
def test_what_is_no_call_and_what_are_no_tools_is_named(turns, tools, says) -> None:
    record = {"conversations": [{"from": role, "value": text} for role, text in turns], "tools": tools}
    with raises(ContentError, says):
        prompt.openai_messages(prompt_and_answer(record, {}, "here").messages)


def test_what_a_bare_record_says_before_the_question_is_asked_too():
    system, said = {"role": "system", "content": "S"}, [{**USER, "content": "1"}, {**ANSWER, "content": "2"}]
    alpaca = {"system": "S", "history": [["1", "2"]], "instruction": "Q", "output": "A"}
    pair = {"system": "S", "history": None, "question": "Q", "answer": "A"}
    turns = {"system": "S", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}
    assert prompt_and_answer(alpaca, {}, "here").messages == [system, *said, USER]
    for record in (pair, turns, {"system": "S", "messages": [USER, ANSWER]}):
        assert prompt_and_answer(record, {}, "here").messages == [system, USER]


def test_the_tools_of_an_alpaca_record_are_asked_too():
    record, text = {"instruction": "Q", "output": "A"}, '[{"name": "f"}]'
    for entry in ({}, {"columns": {"prompt": "instruction", "response": "output", "tools": "own"}}):
        tools = {"own" if entry else "tools": text}
        (asked,) = prompt_and_answer(record | tools, entry, "here").messages
        assert asked == {**USER, "tools": text}


def test_a_row_with_images_is_not_scored_as_text():
    row = {"instruction": "What?", "output": "x", "pictures": ["a.png"]}
    entry = {"columns": {"prompt": "instruction", "response": "output", "images": "pictures"}}
    with raises(ContentError, "here", "pictures"):
        prompt.refuse_media(row, entry, "here")
    prompt.refuse_media({**row, "pictures": []}, entry, "here")
    assert prompt_and_answer(row, entry, "here").answer == "x"


def test_the_hint_of_refused_media_says_what_to_do():
    row = {"instruction": "What?", "output": "x", "images": ["a.png"], "videos": ["a.mp4"]}
    unnamed = {"file_name": "a.json"}
    with raises(ContentError, "images"):
        prompt.refuse_media({**row, "videos": []}, unnamed, "here", images=True)
    with raises(ContentError, "videos", "eval.text"):
        prompt.refuse_media({**row, "images": []}, unnamed, "here", images=True)
    with raises(ContentError, "images", "eval.text"):
        prompt.refuse_media(row, unnamed, "here")
