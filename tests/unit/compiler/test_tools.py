"""Turns with tools: what no output could keep is an error with its place; nothing is lost or flattened."""

import json

import pytest

from tests.unit.compiler.conftest import Bench

ASK = {"role": "user", "content": "Sum 2 and 3."}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 2}'}}]}
RESULT = {"role": "tool", "content": "5", "tool_call_id": "x", "name": "add"}
SAY = {"role": "assistant", "content": "It is 5."}
TALK = [ASK, CALL, RESULT, SAY]
ALPACA = "{dataset: t, file: t.jsonl, format: alpaca, turns: TURNS}"
HEAD = "about: a\ncolumns: {turns: {names: [messages], is: turns}}\nwrite:\n  - "


def compiled(bench: Bench, spec: object, *talks: list[dict]) -> list[tuple[str, str]]:
    """Return (line, message) of each error."""
    source = bench.rows("t.jsonl", [{"messages": talk} for talk in talks])
    report = bench.compile(str(spec), f"p={source}" if spec == "mix.yaml" else source, force=True)
    assert {problem.code for problem in report.problems.errors} <= {"E107"}
    return [(p.place.rsplit(":", 1)[1], p.message) for p in report.problems.errors]


@pytest.mark.parametrize(
    ("number", "change", "says"),
    [
        (2, CALL | {"content": "Let me see."}, "turn 2: content beside tool_calls would be lost"),
        (2, CALL | {"reasoning": "Add."}, "turn 2: reasoning beside tool_calls would be lost"),
        (4, SAY | {"reasoning_content": "Add."}, "turn 4: reasoning_content beside content would be lost"),
        (4, SAY | {"thinking": "Add."}, "turn 4: thinking beside content would be lost"),
        (4, SAY | {"function_call": {"name": "f"}}, "turn 4: function_call beside content would be lost"),
        (4, {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}},
         "turn 4: function_call beside content would be lost"),
        (1, ASK | {"tool_calls": CALL["tool_calls"]}, "turn 1: tool_calls beside content would be lost"),
        (4, SAY | {"refusal": "I cannot."}, "turn 4: refusal beside content would be lost"),
        (4, SAY | {"weight": 0}, "turn 4: weight beside content would be lost"),
        (1, ASK | {"images": ["a.jpg"]}, "turn 1: images beside content would be lost"),
        (1, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
         "turn 1: found parts (text, image_url), expected text in 'content'"),
    ],
)  # fmt: skip
def test_what_a_turn_would_lose_is_an_error_with_its_place(bench, number, change, says):
    wrong = [*TALK[: number - 1], change, *TALK[number:]]
    says += "; put it into the text or leave it out" if says.endswith("lost") else ""
    assert compiled(bench, "messages", TALK, wrong) == [("2", says)]
    assert not bench.out.exists()


@pytest.mark.parametrize("beside", [{"content": None}, {"content": " \n"}, {"reasoning_content": ""}])
def test_nothing_beside_a_call_is_no_loss(bench, beside):
    talk = [ASK, CALL | beside, RESULT | {"tool_calls": []}, SAY | {"reasoning_content": None}]
    assert compiled(bench, "messages", talk) == []
    turns = bench.records("messages.jsonl")[0]["conversations"]
    assert [turn["from"] for turn in turns] == ["human", "function_call", "observation", "gpt"]
    assert json.loads(turns[1]["value"]) == {"name": "add", "arguments": {"a": 2}}


def test_a_system_turn_may_come_first(bench):
    system = {"role": "system", "content": "Be brief."}
    assert compiled(bench, "messages", [system, ASK, SAY], [system, SAY]) == [
        ("2", "turn 2: found assistant, expected user (turns alternate)")
    ]


def test_all_calls_of_a_turn_are_kept(bench):
    calls = [{"function": {"name": name, "arguments": {}}} for name in ("add", "sub")]
    assert compiled(bench, "messages", [ASK, {"role": "assistant", "tool_calls": calls}, RESULT, SAY]) == []
    value = bench.records("messages.jsonl")[0]["conversations"][1]["value"]
    assert json.loads(value) == [{"name": "add", "arguments": {}}, {"name": "sub", "arguments": {}}]


@pytest.mark.parametrize("turns", ["first", "history"])
def test_an_exchange_has_no_place_for_tools(bench, turns):
    spec = bench.write("t.yaml", HEAD + ALPACA.replace("TURNS", turns))
    says = "the call of a tool, which this output would make plain text; write sharegpt or messages"
    assert compiled(bench, spec, [ASK, SAY], TALK) == [("2", f"turn 2: found {says}")]
    assert compiled(bench, spec, [ASK, SAY]) == []


def test_nor_has_a_mixture(bench, monkeypatch):
    monkeypatch.chdir(bench.folder)
    mix = "about: a\nmix: {total: 1, parts: {p: {share: 1, as: messages}}}\nwrite:\n  - "
    bench.write("mix.yaml", mix + ALPACA.replace("TURNS", "history"))
    assert "turn 2: found the call of a tool" in compiled(bench, "mix.yaml", TALK)[0][1]
    assert compiled(bench, "mix.yaml", [ASK, SAY]) == []


@pytest.mark.parametrize(
    ("roles", "kept"),
    [("call: 'C {}', observation: 'O {}'", True), ("call: 'C {}'", False), ("system: '{}'", False)],
)
def test_plain_text_keeps_tools_where_its_roles_have_both(bench, roles, kept):
    output = f"{{file: t.jsonl, format: text, roles: {{user: 'U {{}}', assistant: 'A {{}}', {roles}}}}}"
    errors = compiled(bench, bench.write("t.yaml", HEAD + output), TALK)
    assert bool(errors) != kept
    if kept:
        text = 'U Sum 2 and 3.\n\nC {"name": "add", "arguments": {"a": 2}}\n\nO 5\n\nA It is 5.'
        assert bench.records("t.jsonl") == [{"text": text}]
