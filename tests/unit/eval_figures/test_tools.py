"""Calls out of answers, what makes two of them equal, and the figures, worked by hand."""

import json

import pytest

from tuneyard.core.records.calls import Call
from tuneyard.eval.statistics.rates import wilson
from tuneyard.eval.tools.call_forms import read_answer
from tuneyard.eval.tools.calls import NONE, judge, tool_summary, written

ADD, SUB = Call("add", {"a": 1}), Call("sub", {})
ONE = '{"name": "add", "arguments": {"a": 1}}'
TOOLS = json.dumps([{"name": "add", "parameters": {"properties": {"a": {}, "b": {"default": 2.0}}}}])


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (f"<tool_call>\n{ONE}\n</tool_call>", [ADD]),
        (f"<think>\n<tool_call>no</tool_call></think>I add.<tool_call>{ONE}</tool_call>", [ADD]),
        (f"<tool_call>{ONE}</tool_call>\n<tool_call>{json.dumps(SUB._asdict())}", [ADD, SUB]),
        ('Action: add\nAction Input: {"a": 1}\nAction: sub\nAction Input: {}', [ADD, SUB]),
        ('<function=add>{"a": 1}</function>', [ADD]),
        (ONE, [ADD]),
        (f"[{ONE}, {ONE}]", [ADD, ADD]),
        (f"[TOOL_CALLS] [{ONE}]", [ADD]),
        ('{"name": "add", "parameters": {"a": 1}}', [ADD]),
        ("I cannot add.", []),
        ('{"sum": 5}', []),
        ("", []),
        ("The name of the Action is unknown.", []),
    ],
)
def test_calls_are_read_in_every_form(text, calls):
    assert read_answer(text) == (calls, True)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>add(1)</tool_call>",
        '<tool_call>{"name": "add", "arguments": {"a": 1}',
        '{"name": "add", "arguments": {"a": ',
        '<tool_call>{"name": "add", "arguments": [1]}</tool_call>',
        "Action: add\nAction Input: one",
        "[TOOL_CALLS] add",
    ],
)
def test_a_call_that_cannot_be_read_is_told_from_none(text):
    assert read_answer(text) == ([], False)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "c": {"x": 1, "y": [1, 2]}}, {"c": {"y": [1, 2.0], "x": 1.0}, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, True),  # b's default
        ({"a": 1}, {"a": 1, "b": 3}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": 1.5}, {"a": 1}, False),
        ({"a": None}, {}, False),
        ({"a": 1e400}, {"a": 1e400}, True),
    ],
)
def test_arguments_are_compared_as_json_values(one, other, same):
    assert (written([Call("add", one)], TOOLS) == written([Call("add", other)], TOOLS)) == same


def test_the_order_of_calls_is_none_and_their_number_is_some():
    assert written([ADD, SUB], TOOLS) == written([SUB, ADD], "").replace('{"a": 1}', '{"a": 1, "b": 2}')
    assert written([ADD, ADD], TOOLS) != written([ADD], TOOLS)
    assert written([], TOOLS) == NONE


def row(expected, text, **more):
    return {**judge(expected, text, TOOLS), **more}


def test_figures_by_hand():
    wrong = ONE.replace("1", "2")
    rows = [
        row([ADD], ONE),
        row([ADD], wrong),
        row([ADD, SUB], f"[{ONE}, {wrong}]"),
        row([ADD], "No."),
        row([ADD], '{"name": "add'),
        row([], "Fine."),
        row([], ONE),
        row([], "<tool_call>"),
        row([ADD], "", too_long="too long") | {"calls": None, "right_function": False, "right_number": False},
    ]
    found = tool_summary(rows)
    share = {
        name: (found[name]["value"] * found[name]["n"], found[name]["n"])
        for name in ("function", "arguments", "number", "valid_json", "no_call")
    }
    assert {name: (round(hits), n) for name, (hits, n) in share.items()} == {
        "function": (2, 6),
        "arguments": (1, 6),
        "number": (3, 6),
        "valid_json": (4, 6),
        "no_call": (1, 3),
    }
    assert (found["n"], found["accuracy"], found["majority"]) == (9, 2 / 9, 5 / 9)
    assert found["ci95"] == list(wilson(2, 9))
    assert {name: part["arguments"]["n"] for name, part in found["tools"].items()} == {"add": 6, "sub": 1}
    assert found["tools"]["sub"]["function"]["value"] == 0


def test_what_no_row_tells_is_none():
    found = tool_summary([row([ADD], ONE)])
    assert found["no_call"] is None and found["valid_json"]["value"] == 1
