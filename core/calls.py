"""Calls of tools, in the JSON that LLaMA-Factory's function turns hold, and the tools that a row declares.

LLaMA-Factory 0.9.5 (data/formatter.py, FunctionFormatter) takes one call {"name", "arguments"} or a list of
them, after a thought in <think> tags; after other text where the JSON stands in <tool_call> tags. Both train.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from tuneyard.core.errors import show_value

OPEN, CLOSE = "<tool_call>", "</tool_call>"
RESULTS = "\n</tool_response>\n<tool_response>\n"
"""Between several results of one turn, as LLaMA-Factory's own OpenAI converter joins them."""
DEEPEST = 100  # levels of a value: jsonschema-rs takes 255, and nobody means more
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


class WrongValueError(Exception):
    """A nested value that cannot be used: the message says what was found and expected."""


class Call(NamedTuple):
    """One call: the tool's name and its arguments."""

    name: str
    arguments: dict[str, Any]


class Misfit(NamedTuple):
    """What is wrong between a row's calls and its tools; an error, or a warning unless the spec is strict."""

    message: str
    error: bool


def thought(text: str) -> str:
    """Return reasoning as Qwen3's chat template and LLaMA-Factory have it before an answer."""
    inner = text.strip("\n")
    return f"<think>\n{inner}\n</think>\n\n" if inner.strip() else ""


def call_text(calls: list[Call], before: str = "") -> str:
    """Return calls as the value of a function turn, with the thought or text that stands before them."""
    plain = [call._asdict() for call in calls]
    try:
        text = json.dumps(plain if len(plain) > 1 else plain[0], ensure_ascii=False, allow_nan=False)
        read_strict(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongValueError(f"a call that JSON cannot hold: {error}") from error
    if only := only_thought(before):
        return only + text
    return f"{before}\n{OPEN}{text}{CLOSE}" if before.strip() else text


def only_thought(text: str) -> str:
    """Return a text that is a thought and nothing else, in the form of `thought`; "" for any other."""
    found = _THOUGHT.fullmatch(text.strip())
    return thought(found[1]) if found else ""


def function_text(text: str) -> str:
    """Return a function turn as LLaMA-Factory takes it; `WrongValueError` names a fault."""
    before, body = _parted(text)
    calls = parse_calls(body)
    plain = [call._asdict() for call in calls]
    found = json.loads(body)
    if (only_thought(before) or not before.strip()) and OPEN not in text:
        kept = found in (plain, plain[0])
        return only_thought(before) + body.strip() if kept else call_text(calls, before)
    return text if found in (plain, plain[0]) else f"{before}{OPEN}{call_text(calls)}{CLOSE}"


def calls_of(text: str) -> list[Call]:
    """Return the calls in the value of a function turn."""
    return parse_calls(_parted(text)[1])


def before_calls(text: str) -> str:
    """Return the thought or text before the calls of a function turn, without the line break between them."""
    before = _parted(text)[0]
    return (only_thought(before) or before).removesuffix("\n")


def _parted(text: str) -> tuple[str, str]:
    """Return what stands before the calls of a function turn, and their JSON, as LLaMA-Factory finds them."""
    start, opened, rest = text.partition(OPEN)
    if not opened:
        found = _THOUGHT.match(text.lstrip())
        return (found[0], text.lstrip()[found.end() :]) if found else ("", text)
    body, _, after = rest.partition(CLOSE)
    if after.strip():
        raise WrongValueError(
            f"found {show_value(after.strip())} after {CLOSE}, which LLaMA-Factory would put before the "
            f"call; expected one {OPEN} with all calls as a list in it, last"
        )
    return start, body


def read_strict(text: str) -> Any:
    """Return what JSON text holds; `ValueError` for NaN, equal keys, half a character, too many levels."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a key stands twice")
        return found

    def refused(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=refused)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise ValueError("nested too deep")
        outer = [one for one in level if isinstance(one, dict | list)]
        level = [inner for one in outer for inner in (one.values() if isinstance(one, dict) else one)]
        depth += 1
    return value


def parse_calls(value: object) -> list[Call]:
    """Return the calls in JSON text or its value, out of OpenAI's wrappers and arguments as text."""
    if isinstance(value, str):
        try:
            value = read_strict(value)
        except ValueError as error:
            raise WrongValueError(
                f'found {show_value(value)}, expected JSON, {{"name": …, "arguments": {{…}}}} ({error})'
            ) from error
    calls = [_call(each) for each in (value if isinstance(value, list) else [value])]
    if not calls:
        raise WrongValueError("found no call, expected at least one")
    return calls


def _call(value: object) -> Call:
    name, inner = _named(value)
    if not name:
        raise WrongValueError(f'found the call {show_value(value)}, expected a "name" and "arguments"')
    arguments = _decoded(inner.get("arguments"))
    if isinstance(arguments, str):  # encoded twice
        arguments = _decoded(arguments)
    if not isinstance(arguments, dict):
        found = f"the call of {show_value(name)}: found the arguments {show_value(arguments)}"
        raise WrongValueError(f"{found}, expected an object of them as JSON")
    return Call(name, arguments)


def encoded_twice(value: object) -> list[str]:
    """Return the names of the tools whose calls have arguments that are JSON inside JSON text.

    `value` is the text of a function turn or OpenAI's `tool_calls`, whose calls were read without an error.
    """
    if isinstance(value, str):
        value = read_strict(_parted(value)[1])
    calls = [_named(each) for each in (value if isinstance(value, list) else [value])]
    return [name for name, inner in calls if isinstance(_decoded(inner.get("arguments")), str)]


def _decoded(arguments: object) -> object:
    """Return the value of JSON text ({} of blank text); anything else as it is."""
    if not isinstance(arguments, str):
        return arguments
    with contextlib.suppress(ValueError):
        return read_strict(arguments) if arguments.strip() else {}
    return arguments


def _named(value: object) -> tuple[str, dict[str, Any]]:
    """Return the name of a call or a tool ("" without) and itself, out of OpenAI's {"function": {…}}."""
    inner = value.get("function", value) if isinstance(value, dict) else {}
    inner = inner if isinstance(inner, dict) else {}
    name = inner.get("name")
    return (name if isinstance(name, str) and name.strip() else ""), inner


def tools_text(value: object) -> str:
    """Return a row's tools as a JSON list in text, "" for none; `WrongValueError` for anything else."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if value else ""
    except (TypeError, ValueError, RecursionError) as error:
        message = f"found {show_value(value)}, expected a list of tools that JSON can hold ({error})"
        raise WrongValueError(message) from error
    return text if declared(text) else ""


@lru_cache(1000)  # the same tools often stand in many rows
def declared(text: str) -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of each tool's arguments by its name; {} where a tool has none."""
    try:
        tools = read_strict(text) if text.strip() else []
    except ValueError as error:
        message = f"found {show_value(text)}, expected a list of tools as JSON ({error})"
        raise WrongValueError(message) from error
    if not isinstance(tools, list):
        raise WrongValueError(f"found {show_value(tools)}, expected a list of tools")
    return dict(_tool(number, tool) for number, tool in enumerate(tools, 1))


def wrapped_tools(text: str) -> list[dict[str, Any]]:
    """Return declared tools as chat templates take them: {"type": "function", "function": {…}} each."""
    tools = json.loads(text) if declared(text) else []
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


@lru_cache(1000)
def _declared_twice(text: str) -> list[str]:
    names = [tool["function"]["name"] for tool in wrapped_tools(text)]
    return list(dict.fromkeys(name for name in names if names.count(name) > 1))


def _tool(number: int, tool: object) -> tuple[str, dict[str, Any]]:
    name, inner = _named(tool)
    if not name:
        raise WrongValueError(f'tool {number}: found {show_value(tool)}, expected an object with a "name"')
    schema = inner.get("parameters") or {}
    if not isinstance(schema, dict):
        raise WrongValueError(f"tool {number}: found the parameters {show_value(schema)}, expected an object")
    return name, schema


def misfits(calls: list[tuple[int, Call]], tools: str) -> Iterator[Misfit]:
    """Yield what is wrong with the tools of a row, and between them and its calls (by number of the turn)."""
    known = declared(tools)
    for name in _declared_twice(tools):
        yield Misfit(f"the tool {show_value(name)} is declared twice: calls are held to the last", False)
    for turn, (name, arguments) in calls:
        if name not in known:
            there = f"the row has {', '.join(map(show_value, known))}" if known else "the row declares none"
            yield Misfit(f"turn {turn}: the tool {show_value(name)} is not declared: {there}", bool(known))
        elif said := _refused(json.dumps(known[name], sort_keys=True), arguments):
            yield Misfit(f"turn {turn}: the call of {show_value(name)}: {said}", False)


def _refused(schema: str, arguments: dict[str, Any]) -> str:
    """Return the first thing that a tool's JSON Schema refuses of arguments, "" where they fit."""
    validator = _validator(schema)
    if isinstance(validator, str):
        return validator
    for error in validator.iter_errors(arguments):
        place = ".".join(map(str, error.instance_path))
        return f"{place}: {error.message}" if place else str(error.message)
    return ""


@lru_cache(1000)
def _validator(schema: str) -> Any:
    """Return the compiled validator of a schema, or in words why it is none; nothing is fetched for it."""
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(json.loads(schema), retriever=_no_retrieval)
    except (ValueError, RecursionError) as error:
        return f"the tool's parameters are no JSON Schema: {str(error).splitlines()[0]}"


def _no_retrieval(uri: str) -> dict[str, Any]:
    raise ValueError(f"{uri} is outside of it")
