"""Tool calls: parse them from generated answers, and compare them with the expected calls.

The parser reads <tool_call> … </tool_call> (Qwen, Hermes), `Action:` and `Action Input:` (LLaMA-Factory),
<function=name> … </function> (Llama 3.1), and answers that consist of the JSON of calls.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from tuneyard.core.records.calls import OPEN, Call, WrongValueError, declared, parse_calls
from tuneyard.eval.metrics.answers import cut_thought
from tuneyard.eval.metrics.labels import UNKNOWN
from tuneyard.eval.statistics.rates import Rows, accuracy_of, groups_of, hits, share_of

NONE = "no call"
_BLOCK = re.compile(rf"{OPEN}(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_NAMED = re.compile(
    r"^Action:[ \t]*(\S+)\s*Action Input:\s*(.*?)(?=^Action:|\Z)|<function=([^>\s]+)>(.*?)(?:</function>|\Z)",
    re.DOTALL | re.MULTILINE,
)
_MARK = re.compile(r"\A\s*(?:\[TOOL_CALLS\]|<\|python_tag\|>|functools)\s*")
_BEGUN = re.compile(r'\A\s*\[?\s*\{\s*"name"\s*:')


class Answer(NamedTuple):
    """The calls in an answer ([] for none). `valid` is False if a call begins but cannot be parsed."""

    calls: list[Call]
    valid: bool


def read_answer(text: str) -> Answer:
    """Parse the calls in an answer, without its thought and the text around the calls."""
    answer = cut_thought(text)
    bodies: list[object] = list(_BLOCK.findall(answer))
    if not bodies:
        for action, action_input, function, arguments in _NAMED.findall(answer):
            bodies.append({"name": action or function, "arguments": action_input or arguments})
    bare = _MARK.sub("", answer)
    if not bodies and (_BEGUN.match(bare) or bare != answer):
        bodies = [bare]
    calls: list[Call] = []
    try:
        for body in bodies:
            calls += parse_calls(_with_arguments(body))
    except WrongValueError:
        return Answer([], False)
    return Answer(calls, True)


def _with_arguments(body: object) -> object:
    """Rename `parameters`, as Llama 3 writes them, to `arguments` in the JSON of calls."""
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return body
    calls = body if isinstance(body, list) else [body]
    renamed: list[object] = []
    for call in calls:
        if isinstance(call, dict) and "parameters" in call and "arguments" not in call:
            renamed.append({"name": call.get("name"), "arguments": call["parameters"]})
        else:
            renamed.append(call)
    return renamed


def written(calls: Sequence[Call], tools: str) -> str:
    """Normalise calls to one text, so that equal calls have equal texts. `no call` if there are none.

    Arguments are JSON values: the order of keys and of calls does not matter, 5 equals 5.0 (JSON Schema's
    integer) but not "5". A missing argument has the default of its tool's JSON Schema.
    """
    schemas = declared(tools)
    texts = []
    for name, arguments in calls:
        properties = schemas.get(name, {}).get("properties")
        defaults = {}
        for key, schema in properties.items() if isinstance(properties, dict) else ():
            if isinstance(schema, dict) and "default" in schema:
                defaults[key] = schema["default"]
        plain = _plain({**defaults, **arguments})
        texts.append(f"{name} {json.dumps(plain, ensure_ascii=False, sort_keys=True)}")
    return "\n".join(sorted(texts)) or NONE


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def judge(expected: Sequence[Call], text: str, tools: str) -> dict[str, Any]:
    """Judge a prediction: expected and predicted calls as texts, and whether functions and number match."""
    answer = read_answer(text)
    names = [call.name for call in expected]
    called = [call.name for call in answer.calls]
    return {
        "expected_output": written(expected, tools),
        "predicted_output": written(answer.calls, tools) if answer.valid else UNKNOWN,
        "functions": sorted(set(names)),
        "calls": len(called) if answer.valid else None,
        "right_function": answer.valid and Counter(names) == Counter(called),
        "right_number": answer.valid and len(names) == len(called),
    }


def tool_summary(rows: Rows) -> dict[str, object]:
    """Figures of scored turns, and under `tools` the figures of each expected tool.

    `accuracy` counts turns with correct calls, arguments included, and turns that correctly have no call.
    `majority` is the majority-class baseline.
    """
    with_calls = [row for row in rows if row["functions"]]
    begun = [row for row in rows if "too_long" not in row and row["calls"] != 0]
    none = [row for row in rows if not row["functions"]]
    expected = Counter(row["expected_output"] for row in rows)
    names = Counter(name for row in with_calls for name in row["functions"])
    return {
        **accuracy_of(hits(rows), groups_of(rows)),
        "majority": max(expected.values()) / len(rows),
        **_of_calls(with_calls),
        "valid_json": share_of([row["calls"] is not None for row in begun], begun),
        "no_call": share_of(hits(none), none),
        "tools": {
            name: _of_calls([row for row in with_calls if name in row["functions"]])
            for name, _ in names.most_common()
        },
    }


def _of_calls(rows: Rows) -> dict[str, dict[str, object] | None]:
    return {
        "function": share_of([bool(row["right_function"]) for row in rows], rows),
        "arguments": share_of(hits(rows), rows),
        "number": share_of([bool(row["right_number"]) for row in rows], rows),
    }
