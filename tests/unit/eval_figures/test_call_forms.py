"""Calls in every notation that LLaMA-Factory trains, written by its own formatters."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tool_formats import TOOL_FORMATS, TOOL_UTILS, extract_calls, format_calls
from tuneyard.core.records.calls import Call
from tuneyard.eval.tools.call_forms import NOTATIONS, read_answer
from tuneyard.eval.tools.calls import judge

SINGLE = {"glm4"}  # formats of one call
TOOL_NAMES = ("add", "mul", "get-weather", "api.get", "查询", "from")
TOOLS = json.dumps([{"name": name} for name in TOOL_NAMES])
CALLS = {
    "one": [Call("add", {"a": 1})],
    "parallel": [Call("add", {"a": 1}), Call("mul", {"b": 2.5, "c": "x"}), Call("add", {"a": 2})],
    "no arguments": [Call("add", {})],
    "two without arguments": [Call("add", {}), Call("mul", {})],
    "nested": [Call("add", {"o": {"k": [1, {"z": None}], "t": True}, "l": ["a", "b"], "e": {}, "n": []})],
    "text with a colon": [Call("add", {"note": "meet, time: 5", "b": 1})],
    "markup": [Call("add", {"html": "<b>x</b> </tool_call> <tool_call>", "x": "</parameter>"})],
    "a thought's tags": [Call("add", {"html": "<think>a</think>", "x": "</think>", "y": "[/THINK] <think>"})],
    "quotes": [Call("add", {"q": 'say "hi"\nnew', "r": "it's"})],
    "quotes like arguments": [Call("add", {"q": 'a", b="c")]', "b": "\\"})],
    "numbers as texts": [Call("add", {"code": "5", "flag": "true", "none": "null", "list": "[1]"})],
    "spaces": [Call("add", {"s": "  around  ", "n": "\nline\n"})],
    "hyphen": [Call("get-weather", {"city": "Köln"})],
    "dot": [Call("api.get", {"city": "北京"})],
    "letters of no alphabet": [Call("查询", {"城市": "東京"})],
    "keywords": [Call("from", {"class": "a", "from": "b"})],
    "keys with signs": [Call("add", {"a-b": 1, "c d": "x"})],
    "braces": [Call("add", {"s": "} { }}", "t": "]["})],
    "another form": [Call("add", {"s": 'Action: g\nAction Input: {"x": 1}', "t": "[TOOL_CALLS] ["})],
    "empty": [Call("add", {"s": ""})],
    "backslashes": [Call("add", {"s": "C:\\new\\table"})],
    "numbers": [Call("add", {"n": 12345678901234567890, "e": 1e30, "m": -3, "f": 0.1})],
    "words": [Call("add", {"a": True, "b": None, "c": [True, None, False, "true"]})],
}
CASES = [
    pytest.param(tool_format, calls, id=f"{tool_format}: {name}")
    for tool_format in TOOL_FORMATS
    for name, calls in CALLS.items()
    if len(calls) == 1 or tool_format not in SINGLE
]


def test_every_format_of_llamafactory_has_a_notation():
    assert NOTATIONS.keys() == TOOL_FORMATS.keys()


@pytest.mark.parametrize(("tool_format", "calls"), CASES)
@pytest.mark.parametrize(
    "before",
    ["", "Let me see.\n", "<think>\nI call <tool_call> now.\n</think>\n\n"],
    ids=["", "text", "thought"],
)
def test_what_llamafactory_writes_is_read(tool_format, calls, before):
    answer = before + format_calls(tool_format, calls)
    for chosen in (None, tool_format):
        judged = judge(calls, answer, TOOLS, chosen)
        assert judged["predicted_output"] == judged["expected_output"]
        assert judged["right_function"] and judged["right_number"]
        assert judged["calls"] == len(calls)


@pytest.mark.parametrize(("tool_format", "calls"), CASES)
def test_what_llamafactory_reads_of_its_own_writing_is_read_alike(tool_format, calls):
    answer = format_calls(tool_format, calls)
    if extract_calls(tool_format, answer) == calls:
        assert read_answer(answer, TOOLS, calls).calls == calls


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b_2", "c-d"]), VALUES, max_size=3)


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
@settings(max_examples=60, deadline=None)
@given(all_arguments=st.lists(ARGUMENTS, min_size=1, max_size=3))
def test_any_arguments_that_llamafactory_writes_are_read(tool_format, all_arguments):
    if tool_format in SINGLE:
        del all_arguments[1:]
    calls = [Call(name, arguments) for name, arguments in zip(TOOL_NAMES, all_arguments, strict=False)]
    judged = judge(calls, format_calls(tool_format, calls), TOOLS, tool_format)
    assert judged["predicted_output"] == judged["expected_output"]


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_a_wrong_value_is_a_wrong_argument_of_the_right_function(tool_format):
    expected, wrong = [Call("add", {"a": 1, "s": "x: y"})], [Call("add", {"a": 2, "s": "x: y"})]
    judged = judge(expected, format_calls(tool_format, wrong), TOOLS)
    assert judged["predicted_output"] == 'add {"a": 2, "s": "x: y"}'
    assert (judged["right_function"], judged["calls"]) == (True, 1)


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_a_thought_without_an_end_has_no_calls(tool_format):
    answer = "<think>\nI could call it: " + format_calls(tool_format, [Call("add", {"a": 1})])
    assert read_answer(answer, TOOLS) == ([], True)


@pytest.mark.parametrize("tool_format", TOOL_FORMATS)
def test_calls_of_a_thought_that_began_in_the_prompt_do_not_count(tool_format):
    thought = format_calls(tool_format, [Call("mul", {"a": 1})])
    answer = thought + "\nNo.</think>\n\n" + format_calls(tool_format, [Call("add", {"a": 1})])
    assert read_answer(answer, TOOLS).calls == [Call("add", {"a": 1})]
    assert read_answer(thought + "\nNo.</think>\n\nIt is 3.", TOOLS) == ([], True)


CUT = {
    "qwen": '<tool_call>{"name": "add", "arguments": {"a": [1',
    "qwen3_5": "<tool_call>\n<function=add>\n<parameter=a>\n1",
    "glm4_moe": "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1",
    "seed_oss": "<seed:tool_call>\n<function=add>\n<parameter=a>1</parameter>",
    "minimax1": '<tool_calls>\n{"name": "add", "arguments": {"a": 1}}\n{"name"',
    "minimax2": '<invoke name="add">\n<parameter name="a">1</parameter>',
    "gemma4": '<|tool_call>call:add{a:<|"|>x',
    "lfm2": '<|tool_call_start|>[add(a="x',
    "mistral": '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}',
    "llama3": '{"name": "add", "parameters": {"a": 1',
    "default": 'Action: add\nAction Input: {"a": 1',
    "glm4": 'add\n{"a": 1',
}


@pytest.mark.parametrize("tool_format", CUT)
def test_a_call_that_is_cut_is_not_valid(tool_format):
    for chosen in (None, tool_format):
        assert read_answer(CUT[tool_format], TOOLS, tool_format=chosen) == ([], False)


@pytest.mark.parametrize("tool_format", sorted(set(TOOL_FORMATS) - {"qwen", "ling"}))
def test_a_template_chooses_the_form(tool_format):
    qwen = format_calls("qwen", [Call("add", {"a": 1})])
    assert read_answer(qwen, TOOLS, tool_format=tool_format) == ([], False)
    assert read_answer(qwen, TOOLS, tool_format="ling").calls == [Call("add", {"a": 1})]


@pytest.mark.parametrize(
    "written",
    [
        '```{"a": 1}```', '```json\n{"a": 1}\n```', '"{"a": 1}"', ' {"a": 1}\n\n', '{"a": 1}\n```',
    ],
)  # fmt: skip
def test_signs_around_the_input_of_an_action_are_no_part_of_it(written):
    answer = f"I add.\nAction: add\nAction Input: {written}"
    assert read_answer(answer, TOOLS) == ([Call("add", {"a": 1})], True)
    if "json" not in written:
        assert extract_calls("default", answer) == [Call("add", {"a": 1})]


OFFICIAL = [
    "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
    '<minimax:tool_call>\n<invoke name="add">\n<parameter name="a">1</parameter>\n</invoke>\n'
    "</minimax:tool_call>",
    "<seed:tool_call>\n<function=add>\n<parameter=a>1</parameter>\n</function>\n</seed:tool_call>",
    "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
    "<|tool_call>call:add{a:1}<tool_call|>",
    "<|tool_call_start|>[add(a=1)]<|tool_call_end|>",
    '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
    '<|python_tag|>{"name": "add", "parameters": {"a": 1}}',
]


@pytest.mark.parametrize("answer", OFFICIAL)
@pytest.mark.parametrize("after", ["", "\n", "\nDone."])
def test_calls_as_the_models_own_templates_write_them_are_read(answer, after):
    assert read_answer(f"Let me add.\n{answer}{after}", TOOLS) == ([Call("add", {"a": 1})], True)


def test_xml_values_are_texts_if_the_schema_says_so():
    properties = {"zip": {"type": "string"}, "count": {"type": "integer"}}
    tools = json.dumps([{"name": "find", "parameters": {"properties": properties}}])
    answer = format_calls("qwen3_5", [Call("find", {"zip": "01234", "count": 3, "other": True})])
    assert read_answer(answer, tools).calls == [Call("find", {"zip": "01234", "count": 3, "other": True})]
    assert read_answer(answer.replace("01234", "81234"), tools).calls[0].arguments["zip"] == "81234"


def test_lists_and_words_of_python_are_read():
    answer = "<|tool_call_start|>[add(a=['x', \"y\"], b=True, c={'k': None}, d='it\\'s')]<|tool_call_end|>."
    arguments = {"a": ["x", "y"], "b": True, "c": {"k": None}, "d": "it's"}
    assert read_answer(answer, TOOLS) == ([Call("add", arguments)], True)


@pytest.mark.parametrize(
    "answer",
    [
        "<tool_call>" * 50_000,
        "<tool_call><function=a>" * 20_000,
        "<tool_call>a\n<arg_key>" * 20_000,
        "<tool_call>" + "[" * 100_000,
        "<|tool_call>call:f{a:" + "[" * 100_000,
        "<|tool_call_start|>[f(a=" + "{" * 100_000,
        '<|tool_call_start|>[f(a="' * 20_000,
        "Action: a\nAction Input: " * 20_000,
        "<think>" * 50_000,
        "</think><tool_call>" * 20_000,
        '{"name":' * 50_000,
        "\n{" * 50_000,
        "<invoke name=\"a\"><parameter name=\"b\">" * 20_000,
        "<tool_calls>" + '{"name": "a", "arguments": {}}\n' * 20_000,
        " " * 200_000 + "<tool_call>",
    ],
)  # fmt: skip
def test_hostile_answers_take_little_time(answer):
    began = time.process_time()
    read_answer(answer, TOOLS)
    assert time.process_time() - began < 2


def test_llamafactory_has_the_formatter_without_an_end():
    """The reason why `>` may be missing after a function's name."""
    assert "<function=add\n" in TOOL_UTILS.SeedToolUtils.function_formatter(
        [TOOL_UTILS.FunctionCall("add", "{}")]
    )
