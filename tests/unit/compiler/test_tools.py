"""Turns with tools: what no output could keep is an error with its place; nothing is lost or flattened."""

import json
from pathlib import Path

import pytest

from tests.messages import printed, printed_line
from tests.unit.compiler.conftest import Bench
from tuneyard.compiler.init.command import propose

ASK = {"role": "user", "content": "Sum 2 and 3."}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 2}'}}]}
RESULT = {"role": "tool", "content": "5", "tool_call_id": "x", "name": "add"}
SAY = {"role": "assistant", "content": "It is 5."}
TALK = [ASK, CALL, RESULT, SAY]
ALPACA = "{dataset: t, file: t.jsonl, format: alpaca, turns: TURNS}"
HEAD = "about: a\ncolumns: {turns: {names: [messages], is: turns}}\nwrite:\n  - "
MIX = "about: a\nmix: {total: 1, parts: {p: {share: 1, as: messages}}}\nwrite:\n  - "


def compiled(bench: Bench, spec: object, *talks: list[dict]) -> list[tuple[str, str]]:
    """Return (line, message) of each error."""
    source = bench.rows("t.jsonl", [{"messages": talk} for talk in talks])
    report = bench.compile(spec, f"p={source}" if Path(spec).name == "mix.yaml" else source, force=True)
    assert {problem.code for problem in report.problems.errors} <= {"E107"}
    return [(p.place.rsplit(":", 1)[1], p.message) for p in report.problems.errors]


def messages_in(bench: Bench) -> list[dict]:
    """The turns of the first record."""
    return bench.first("messages.jsonl")["conversations"]


@pytest.mark.parametrize(
    ("number", "change", "named"),
    [
        (2, CALL | {"content": "Let me see."}, "content"),
        (4, SAY | {"reasoning": "Add.", "thinking": "2."}, "thinking"),
        (4, SAY | {"reasoning": {"steps": 2}}, "reasoning"),
        (1, ASK | {"reasoning": "Add."}, "reasoning"),
        (4, {"role": "assistant", "reasoning": "Add.", "content": "<think>Add.</think>It is 5."}, "content"),
        (4, SAY | {"function_call": {"name": "f"}}, "function_call"),
        (1, ASK | {"tool_calls": CALL["tool_calls"]}, "tool_calls"),
        (4, SAY | {"refusal": "I cannot."}, "refusal"),
        (1, ASK | {"images": ["a.jpg"]}, "images"),
        (1, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}, "image_url"),
    ],
)
def test_what_a_turn_would_lose_is_an_error_with_its_place(bench, number, change, named):
    wrong = [*TALK[: number - 1], change, *TALK[number:]]
    ((line, message),) = compiled(bench, "messages", TALK, wrong)
    assert line == "2"
    printed(message, f"turn {number}", named)
    assert not bench.out.exists()


@pytest.mark.parametrize("beside", [{"content": None}, {"content": " \n"}, {"reasoning_content": ""}])
def test_nothing_beside_a_call_is_no_loss(bench, beside):
    talk = [ASK, CALL | beside, RESULT | {"tool_calls": []}, SAY | {"reasoning_content": None}]
    assert compiled(bench, "messages", talk) == []
    turns = messages_in(bench)
    assert [turn["from"] for turn in turns] == ["human", "function_call", "observation", "gpt"]
    assert json.loads(turns[1]["value"]) == {"name": "add", "arguments": {"a": 2}}


def test_a_system_turn_may_come_first(bench):
    system = {"role": "system", "content": "Be brief."}
    ((row, message),) = compiled(bench, "messages", [system, ASK, SAY], [system, SAY])
    assert row == "2"
    printed(message, "turn 2", "assistant", "user")


def test_all_calls_of_a_turn_are_kept(bench):
    calls = [{"function": {"name": name, "arguments": {}}} for name in ("add", "sub")]
    talk = [ASK, {"role": "assistant", "tool_calls": calls}, RESULT, RESULT, SAY]
    assert compiled(bench, "messages", talk) == []
    value = messages_in(bench)[1]["value"]
    assert json.loads(value) == [{"name": "add", "arguments": {}}, {"name": "sub", "arguments": {}}]


@pytest.mark.parametrize(
    ("file", "head", "turns"), [("t", HEAD, "first"), ("t", HEAD, "history"), ("mix", MIX, "history")]
)
def test_an_exchange_has_no_place_for_tools(bench, file, head, turns):
    spec = bench.write(f"{file}.yaml", head + ALPACA.replace("TURNS", turns))
    says = "the call of a tool, which this output would make plain text (t.jsonl); write sharegpt or messages"
    assert compiled(bench, spec, [ASK, SAY], TALK) == [("2", f"turn 2: found {says}")]
    assert compiled(bench, spec, [ASK, SAY]) == []


SYSTEM = {"role": "system", "content": "Be brief."}


def test_a_system_turn_that_an_output_leaves_out_is_an_error(bench):
    outputs = [ALPACA.replace("TURNS", turns) for turns in ("first", "history")]
    for output in [*outputs, "{file: t.jsonl, format: text, roles: {user: '{}', assistant: '{}'}}"]:
        spec = bench.write("t.yaml", HEAD + output)
        ((line, says),) = compiled(bench, spec, [ASK, SAY], [SYSTEM, ASK, SAY])
        assert line == "2"
        printed(says, "turn 1", "system")
        ignoring = bench.write("t.yaml", "ignore: [system]\n" + HEAD + output)
        assert compiled(bench, ignoring, [SYSTEM, ASK, SAY]) == []
        report = bench.compile(ignoring, bench.folder / "t.jsonl", force=True)
        left_out = "1 conversation: t.jsonl leaves the system turn out (`ignore: [system]`)"
        assert report.problems.notes[0].endswith(left_out)


@pytest.mark.parametrize("spec", ["messages", "tools", "kto"])
def test_two_system_texts_of_a_row_are_an_error_where_they_differ(bench, spec):
    texts = {"": True, "Be brief.\n": False, "Be long.": True}
    rows = [{"system": text, "messages": [SYSTEM, ASK, SAY]} for text in texts]
    if spec == "kto":
        rows = [row | {"kto_tag": texts[row["system"]]} for row in rows]
    report = bench.compile_rows(spec, rows)
    ((code, place),) = [found for found in bench.codes(report) if found[0].startswith("E")]
    assert (code, place) == ("E107", "train.jsonl:3")
    printed(report.problems.errors[0].message, '"Be brief."', '"Be long."')


def test_conversations_of_which_one_exchange_is_kept_are_counted(bench):
    spec = bench.write("t.yaml", HEAD + ALPACA.replace("TURNS", "first"))
    source = bench.rows("t.jsonl", [{"messages": [ASK, SAY, ASK, SAY]}, {"messages": [ASK, SAY]}])
    (note,) = bench.compile(spec, source).problems.notes
    printed(note, source, "1", "`turns: history`")


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


CALLS = [{"id": name, "function": {"name": "add", "arguments": {"a": 1}}} for name in "xy"]
TWO = {"role": "assistant", "tool_calls": CALLS}
RESULTS = [{"role": "tool", "content": text, "tool_call_id": name} for name, text in ("x5", "y6")]
TOOLS = [{"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}]


def call(value: object) -> list[dict]:
    text = value if isinstance(value, str) else json.dumps(value)
    turns = [("human", "Sum."), ("function_call", text), ("observation", "5"), ("gpt", "5.")]
    return [{"from": role, "value": said} for role, said in turns]


@pytest.mark.parametrize("results", [RESULTS, RESULTS[::-1]])
def test_several_results_are_one_turn_as_llamafactory_joins_them(bench, results):
    """In the order of their calls, since no record keeps ids."""
    assert compiled(bench, "messages", [ASK, TWO, *results, SAY]) == []
    turns = messages_in(bench)
    assert turns[2] == {"from": "observation", "value": "5\n</tool_response>\n<tool_response>\n6"}


def test_ids_may_be_numbers_and_results_in_any_order(bench):
    calls = [call | {"id": number} for number, call in enumerate(CALLS, 1)]
    results = [RESULT | {"tool_call_id": number} for number in (2, 1)]
    assert compiled(bench, "messages", [ASK, {"role": "assistant", "tool_calls": calls}, *results, SAY]) == []


def test_another_number_of_results_than_of_calls_is_trained(bench):
    report = bench.compile_rows("messages", [{"messages": [ASK, TWO, RESULTS[0], SAY]}])
    assert report.kept == 1 and not report.failed
    assert messages_in(bench)[2] == {"from": "observation", "value": "5"}


@pytest.mark.parametrize(
    ("talk", "number"),
    [
        ([{"question": "Sum 2 and 3."}, SAY], 1),
        ([ASK, TWO, RESULTS[0], RESULTS[0], SAY], 2),
        ([ASK, TWO, ASK, SAY], 3),
        ([ASK, SAY, RESULT, SAY], 3),
        (call('{"name": "add"'), 2),
        (call({"arguments": {}}), 2),
        (call({"name": "add", "arguments": "5"}), 2),
        (call([]), 2),
        (call('<tool_call>{"name": "a", "arguments": {}}</tool_call> Done.'), 2),
    ],
)
def test_a_call_that_cannot_be_trained_on_is_named(bench, talk, number):
    ((line, message),) = compiled(bench, "messages", talk)
    assert line == "1" and message.startswith(f"turn {number}: ")


def test_a_result_may_follow_a_call_that_is_text(bench):
    hermes = SAY | {"content": '<tool_call>{"name": "add", "arguments": {}}</tool_call>'}
    assert compiled(bench, "messages", [ASK, hermes, RESULT, SAY]) == []


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ('{"name":  "add", "arguments": {}}', '{"name":  "add", "arguments": {}}'),
        ({"name": "add", "arguments": '{"a": 1}'}, '{"name": "add", "arguments": {"a": 1}}'),
        ('<think>Sum</think>{"name": "add", "arguments": {}}',
         '<think>\nSum\n</think>\n\n{"name": "add", "arguments": {}}'),
        ('Well.<tool_call>{"name": "add", "arguments": {}}</tool_call>',
         'Well.<tool_call>{"name": "add", "arguments": {}}</tool_call>'),
        ('Well.<tool_call>{"name": "add", "arguments": "{}"}</tool_call>',
         'Well.<tool_call>{"name": "add", "arguments": {}}</tool_call>'),
    ],
)  # fmt: skip
def test_a_call_is_kept_as_it_is_or_made_what_llamafactory_takes(bench, value, kept):
    assert compiled(bench, "messages", call(value)) == []
    assert messages_in(bench)[1]["value"] == kept


THOUGHT = "<think>\nAdd.\n</think>\n\n"
PARTS = [
    {"type": "thinking", "thinking": "Add."},
    {"type": "text", "text": "It "},
    {"type": "text", "text": "is 5."},
]


@pytest.mark.parametrize(
    ("change", "role", "text"),
    [
        (SAY | {"reasoning_content": "\nAdd.\n"}, "gpt", THOUGHT + "It is 5."),
        (SAY | {"reasoning_content": None, "reasoning": "Add."}, "gpt", THOUGHT + "It is 5."),
        (SAY | {"reasoning_content": "Add.", "reasoning": "Add."}, "gpt", THOUGHT + "It is 5."),
        (SAY | {"content": PARTS}, "gpt", THOUGHT + "It is 5."),
        (CALL | {"reasoning": "Add."}, "function_call", THOUGHT + '{"name": "add", "arguments": {"a": 2}}'),
        (CALL | {"content": "<think>Add.</think>"}, "function_call",
         THOUGHT + '{"name": "add", "arguments": {"a": 2}}'),
    ],
)  # fmt: skip
def test_reasoning_becomes_a_thought_before_what_it_leads_to(bench, change, role, text):
    assert compiled(bench, "messages", [ASK, change]) == []
    assert messages_in(bench)[1] == {"from": role, "value": text}


def test_calls_text_keeps_what_is_said_before_a_call(bench):
    spec = bench.write(
        "t.yaml", "about: a\nlike: messages\ncolumns: {turns: {names: [messages], is: turns, calls: text}}"
    )
    said = CALL | {"content": "Let me see.", "reasoning": "Add."}
    assert compiled(bench, spec, [ASK, said, RESULT, SAY]) == []
    value = '<tool_call>{"name": "add", "arguments": {"a": 2}}</tool_call>'
    assert messages_in(bench)[1]["value"] == f"{THOUGHT}Let me see.\n{value}"


@pytest.mark.parametrize(
    ("tools", "kept"),
    [
        (TOOLS, json.dumps(TOOLS)),
        (json.dumps(TOOLS, indent=1), json.dumps(TOOLS, indent=1)),
        *[(none, "") for none in (None, "", " ", [], "[]")],
    ],
)
def test_tools_are_a_list_or_its_text_and_none_is_empty(bench, tools, kept):
    source = bench.rows("t.jsonl", [{"messages": [ASK, SAY], "tools": tools}])
    assert not bench.compile("messages", source).problems.errors
    assert bench.first("messages.jsonl")["tools"] == kept


@pytest.mark.parametrize(
    "tools", ["{", '{"name": "add"}', [{"type": "function"}], [{"name": "a", "parameters": "b"}]]
)
def test_tools_that_are_none_are_refused(bench, tools):
    report = bench.compile_rows("messages", [{"messages": [ASK, SAY], "tools": tools}])
    assert [code for code, _ in bench.codes(report)] == ["E107"]


@pytest.mark.parametrize(
    ("name", "arguments", "tools", "code", "says"),
    [
        ("sub", {}, TOOLS, "E109", 'turn 2: the tool "sub" is not declared: the row has "add"'),
        ("sub", {}, [], "W215", 'turn 2: the tool "sub" is not declared: the row declares none'),
        ("add", {"a": "b"}, TOOLS, "W215", 'turn 2: the call of "add": a: "b" is not of type "integer"'),
        ("add", {"a": 1}, [{"type": "function", "function": TOOLS[0]}], None, None),
        ("add", {}, [{"name": "add", "parameters": {"$ref": "http://localhost:9/x"}}], "W215",
         'turn 2: the call of "add": the tool\'s parameters are no JSON Schema: Resource '),
    ],
)  # fmt: skip
@pytest.mark.parametrize("strict", [False, True])
def test_calls_are_held_against_the_tools_of_their_row(bench, name, arguments, tools, code, says, strict):
    source = bench.rows(
        "t.jsonl", [{"conversations": call({"name": name, "arguments": arguments}), "tools": tools}]
    )
    more = ", arguments: error" if strict else ""
    spec = f"about: a\nlike: messages\ncolumns: {{tools: {{names: [tools], is: tools{more}}}}}"
    problems = bench.compile(bench.write("t.yaml", spec), source).problems
    both = (*problems.errors, *problems.warnings)
    found = [(problem.code, problem.message[: len(says or "")]) for problem in both]
    assert found == ([("E109" if strict else code, says)] if code else [])


def test_the_same_question_with_other_tools_is_another_question(bench):
    rows = [
        {"messages": [ASK, SAY], "tools": TOOLS},
        {"messages": [ASK, SAY | {"content": "I have no tool for it."}], "tools": []},
    ]
    assert not bench.compile_rows("messages", rows).problems.counts


@pytest.mark.parametrize("tools", [TOOLS, [*TOOLS, {"name": "sub"}], json.dumps(TOOLS), None])
@pytest.mark.parametrize("content", [None, "Let me see."])
def test_init_proposes_a_column_of_tools_and_keeps_text_beside_calls(bench, tools, content):
    talk = [ASK, CALL | {"content": content}, RESULT, SAY]
    rows = [{"chat": {"messages": [ASK, SAY]}}, {"chat": {"messages": talk}, "tools": tools}]
    text, said, steps = propose(bench.rows("t.jsonl", rows), share=0)
    assert "like: messages" in text and ("calls: text" in text) == bool(content)
    printed_line(said, "read 2", "kept 2")
    assert "recipe check recipes/sft-lora.yaml dataset=t output_dir=saves/t" in steps


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ('{"x": NaN}', "NaN is not JSON"),
        ('{"x": 1e999}', "Out of range float values"),
        ('{"x": 1, "x": 2}', "duplicate key"),
        ('{"x": "\\ud800"}', "surrogates not allowed"),
    ],
)
@pytest.mark.parametrize("form", ["text", "object"])
def test_what_no_other_reader_takes_is_no_call(bench, arguments, why, form):
    talk = call(f'{{"name": "add", "arguments": {arguments}}}')
    if form == "object":
        given = {"function": {"name": "add", "arguments": arguments}}
        talk = [ASK, {"role": "assistant", "tool_calls": [given]}, RESULT, SAY]
    [(line, message)] = compiled(bench, "messages", talk)
    assert line == "1" and (why in message or "found the arguments" in message)


@pytest.mark.parametrize("form", ["tool_calls", "function_call"])
def test_arguments_encoded_as_json_twice_are_unwrapped(bench, form):
    """Exports often contain the arguments' text as JSON text once more."""
    call = {"name": "add", "arguments": json.dumps(json.dumps({"a": 2}))}
    turn = {"role": "assistant", "tool_calls": [{"function": call}]}
    if form == "function_call":
        turn = {"role": "function_call", "content": json.dumps(call)}
    rows = [{"messages": [ASK, each, RESULT, SAY]} for each in (CALL, turn)]
    report = bench.compile_rows("messages", rows)
    assert not report.failed
    values = [turns[1]["value"] for turns in bench.values("messages.jsonl", "conversations")]
    assert [json.loads(value) for value in values] == [{"name": "add", "arguments": {"a": 2}}] * 2
    text = {"role": "function_call", "content": json.dumps(call | {"arguments": '"2"'})}
    rows[1]["messages"][1] = text
    report = bench.compile_rows("messages", rows)
    assert bench.codes(report)[0][0] == "E107", "a text is no object of arguments"
