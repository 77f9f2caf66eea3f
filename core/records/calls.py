"""Tool calls as JSON in LLaMA-Factory's function messages, and the tools that a row declares.

LLaMA-Factory 0.9.5 (data/formatter.py, FunctionFormatter) takes one call {"name", "arguments"} or a list of
them. A thought in <think> tags may precede the JSON, other text only if <tool_call> tags enclose it.
"""

import contextlib
import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from tuneyard.core.errors import show_value
from tuneyard.core.files import JsonObject, unique
from tuneyard.core.language.message import _

OPEN, CLOSE = "<tool_call>", "</tool_call>"
RESULTS = "\n</tool_response>\n<tool_response>\n"
"""Between several results of one message, as LLaMA-Factory's own OpenAI converter joins them."""
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


class WrongValueError(Exception):
    """A nested value that cannot be used. The message names the value and the expected form."""


def unusable(value: object, expected: str) -> WrongValueError:
    """The error for a value of another kind: `found 3, expected a list of tools`."""
    return WrongValueError(_("found {role}, expected {other}", role=show_value(value), other=expected))


class Call(NamedTuple):
    """One call: the tool's name and its arguments."""

    name: str
    arguments: JsonObject


def thought(text: str) -> str:
    """Wrap reasoning as Qwen3's chat template and LLaMA-Factory write it before an answer; "" if blank."""
    inner = text.strip("\n")
    if not inner.strip():
        return ""
    return f"<think>\n{inner}\n</think>\n\n"


def call_text(calls: list[Call], before: str = "") -> str:
    """Value of a function message: the thought or text `before`, then the calls as JSON."""
    objects = [call._asdict() for call in calls]
    value = objects if len(objects) > 1 else objects[0]
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        read_strict(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongValueError(_("a call that JSON cannot hold: {error}", error=error)) from error
    reasoning = only_thought(before)
    if reasoning:
        return reasoning + text
    if before.strip():
        return f"{before}\n{OPEN}{text}{CLOSE}"
    return text


def only_thought(text: str) -> str:
    """Normalise a text that consists of one thought, as `thought` does; "" for any other text."""
    match = _THOUGHT.fullmatch(text.strip())
    if match is None:
        return ""
    return thought(match[1])


def function_text(text: str) -> str:
    """Rewrite a function message in the form that LLaMA-Factory reads. `WrongValueError` if it has none."""
    before, body = _parted(text)
    calls = parse_calls(body)
    objects = [call._asdict() for call in calls]
    is_canonical = json.loads(body) in (objects, objects[0])
    if (only_thought(before) or not before.strip()) and OPEN not in text:
        if is_canonical:
            return only_thought(before) + body.strip()
        return call_text(calls, before)
    if is_canonical:
        return text
    return f"{before}{OPEN}{call_text(calls)}{CLOSE}"


def calls_of(text: str) -> list[Call]:
    """Parse the calls in the value of a function message."""
    return parse_calls(_parted(text)[1])


def before_calls(text: str) -> str:
    """Thought or text before the calls of a function message, without the line break between them."""
    before = _parted(text)[0]
    return (only_thought(before) or before).removesuffix("\n")


def _parted(text: str) -> tuple[str, str]:
    """Split a function message into the text before its calls and their JSON, as LLaMA-Factory does."""
    start, opened, rest = text.partition(OPEN)
    if not opened:
        match = _THOUGHT.match(text.lstrip())
        if match is None:
            return "", text
        return match[0], text.lstrip()[match.end() :]
    body, _unused, after = rest.partition(CLOSE)
    if after.strip():
        raise WrongValueError(
            _(
                "found {after} after {close}, which LLaMA-Factory would put before the call; "
                "expected one {open} with all calls as a list in it, last",
                after=show_value(after.strip()),
                close=CLOSE,
                open=OPEN,
            )
        )
    return start, body


def read_strict(text: str) -> Any:
    """Parse JSON. `ValueError` for NaN, duplicate keys or half a character."""

    def refused(name: str) -> None:
        raise ValueError(_("{name} is not JSON", name=name))

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refused)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError(_("nested too deep")) from error
    return value


def parse_calls(value: object) -> list[Call]:
    """Parse calls from JSON text or its value. OpenAI's wrappers and arguments as text are unwrapped."""
    if isinstance(value, str):
        try:
            value = read_strict(value)
        except ValueError as error:
            raise unusable(value, f'JSON, {{"name": …, "arguments": {{…}}}} ({error})') from error
    items = value if isinstance(value, list) else [value]
    calls = []
    for item in items:
        name, inner = _named(item)
        if not name:
            raise WrongValueError(
                _('found the call {item}, expected a "name" and "arguments"', item=show_value(item))
            )
        arguments = _decoded(inner.get("arguments"))
        if isinstance(arguments, str):  # encoded twice
            arguments = _decoded(arguments)
        if not isinstance(arguments, dict):
            raise WrongValueError(
                _(
                    "the call of {name}: found the arguments {arguments}, expected an object of them as JSON",
                    name=show_value(name),
                    arguments=show_value(arguments),
                )
            )
        calls.append(Call(name, arguments))
    if not calls:
        raise WrongValueError(_("found no call, expected at least one"))
    return calls


def _decoded(arguments: object) -> object:
    """Parse arguments that are JSON text, {} if blank. Other values and invalid JSON stay unchanged."""
    if not isinstance(arguments, str):
        return arguments
    with contextlib.suppress(ValueError):
        if not arguments.strip():
            return {}
        return read_strict(arguments)
    return arguments


def _named(value: object) -> tuple[str, JsonObject]:
    """Name of a call or a tool ("" without one) and its object, unwrapped from OpenAI's {"function": {…}}."""
    inner = value.get("function", value) if isinstance(value, dict) else {}
    if not isinstance(inner, dict):
        return "", {}
    name = inner.get("name")
    if not isinstance(name, str) or not name.strip():
        return "", inner
    return name, inner


def tools_text(value: object) -> str:
    """Serialise a row's tools as a JSON list, "" without tools. `WrongValueError` for other values."""
    text = ""
    try:
        if isinstance(value, str):
            text = value
        elif value:
            text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise unusable(value, _("a list of tools that JSON can hold ({error})", error=error)) from error
    return text if declared(text) else ""


@lru_cache(1000)  # many rows declare the same tools
def declared(text: str) -> dict[str, JsonObject]:
    """JSON Schema of each tool's arguments by the tool's name, {} for a tool without a schema."""
    try:
        tools = read_strict(text) if text.strip() else []
    except ValueError as error:
        raise unusable(text, _("a list of tools as JSON ({error})", error=error)) from error
    if not isinstance(tools, list):
        raise unusable(tools, _("a list of tools"))
    schemas = {}
    for number, tool in enumerate(tools, 1):
        name, inner = _named(tool)
        if not name:
            raise WrongValueError(
                _(
                    'tool {number}: found {value}, expected an object with a "name"',
                    number=number,
                    value=show_value(tool),
                )
            )
        schema = inner.get("parameters") or {}
        if not isinstance(schema, dict):
            raise WrongValueError(
                _(
                    "tool {number}: found the parameters {value}, expected an object",
                    number=number,
                    value=show_value(schema),
                )
            )
        schemas[name] = schema
    return schemas


def wrapped_tools(text: str) -> list[JsonObject]:
    """Wrap declared tools as chat templates read them: {"type": "function", "function": {…}} each."""
    if not declared(text):
        return []
    wrapped = []
    for tool in json.loads(text):
        if "function" not in tool:
            tool = {"type": "function", "function": tool}
        wrapped.append(tool)
    return wrapped
