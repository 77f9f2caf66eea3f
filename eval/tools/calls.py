"""Tool calls: compare those of generated answers with the expected ones, and count."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

from tuneyard.core.records.calls import Call, declared
from tuneyard.eval.figures.accuracy import accuracy_figures
from tuneyard.eval.figures.labels import UNKNOWN
from tuneyard.eval.statistics.rates import Rows, hits, is_answered, share_of
from tuneyard.eval.tools.call_forms import read_answer

NONE = "no call"


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


class JudgedCalls(TypedDict):
    """Fields of predictions.jsonl that say whether calls are correct."""

    expected_output: str
    predicted_output: str
    functions: list[str]
    calls: int | None
    right_function: bool
    right_number: bool


def judge(expected: Sequence[Call], text: str, tools: str, tool_format: str | None = None) -> JudgedCalls:
    """Judge a prediction: expected and predicted calls as texts, and whether functions and number match.

    `tool_format` is that of LLaMA-Factory's template, None to read calls of every form.
    """
    answer = read_answer(text, tools, expected, tool_format)
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
    begun = [row for row in rows if is_answered(row) and row["calls"] != 0]
    none = [row for row in rows if not row["functions"]]
    expected = Counter(row["expected_output"] for row in rows)
    names = Counter(name for row in with_calls for name in row["functions"])
    return {
        **accuracy_figures(rows),
        "majority": max(expected.values()) / len(rows),
        **_of_calls(with_calls),
        "valid_json": share_of([row["calls"] is not None for row in begun], begun),
        "no_call": share_of(hits(none), none),
        "tools": {
            name: _of_calls([row for row in with_calls if name in row["functions"]])
            for name, _count in names.most_common()
        },
    }


def _of_calls(rows: Rows) -> dict[str, dict[str, object] | None]:
    return {
        "function": share_of([bool(row["right_function"]) for row in rows], rows),
        "arguments": share_of(hits(rows), rows),
        "number": share_of([bool(row["right_number"]) for row in rows], rows),
    }
