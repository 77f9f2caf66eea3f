"""The part of Go's text/template that exported Modelfiles use: messages, their fields, choices by role.

Whatever else a template does is refused by name and never rendered wrongly. The syntax is that of
pkg.go.dev/text/template; `{{-` and `-}}` trim the space beside them.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence

from core.errors import ContentError, show_value
from core.prompt import Message

ACTION = re.compile(r'\{\{(-\s)?\s*((?:"(?:[^"\\]|\\.)*"|[^"}])*?)\s*(\s-)?\}\}', re.S)
FIELDS = {".Role": "role", ".Content": "content"}

Piece = tuple[bool, str]  # whether it is an action, and its text
Node = Callable[[Sequence[Message]], str]  # the messages, or within a range the one message → text
Value = Callable[[Sequence[Message]], str]


def compile_template(template: str) -> Callable[[list[Message]], str]:
    """Return what renders conversations by a Go template; `ContentError` names an action not known here."""
    pieces = _pieces(template)
    nodes, ending = _block(pieces)
    if ending:
        raise _unknown(ending)
    return lambda messages: _render(nodes, messages)


def _pieces(template: str) -> Iterator[Piece]:
    place, trim = 0, False
    for action in ACTION.finditer(template):
        text = template[place : action.start()]
        text = text.lstrip() if trim else text
        yield False, text.rstrip() if action[1] else text
        yield True, action[2]
        place, trim = action.end(), bool(action[3])
    rest = template[place:].lstrip() if trim else template[place:]
    if "{{" in rest:
        raise _unknown(rest)
    yield False, rest


def _block(pieces: Iterator[Piece]) -> tuple[list[Node], str]:
    """The nodes up to an `end` or `else` that closes the block, and that action (empty at the text's end)."""
    nodes: list[Node] = []
    for is_action, body in pieces:
        if not is_action:
            nodes.append(_constant(body))
        elif body == "end" or body.split(" ")[0] == "else":
            return nodes, body
        elif body == "range .Messages":
            nodes.append(_range(pieces))
        elif body.startswith("if "):
            nodes.append(_choice(body, pieces))
        else:
            nodes.append(_value(body))
    return nodes, ""


def _range(pieces: Iterator[Piece]) -> Node:
    inner, ending = _block(pieces)
    if ending != "end":
        raise _unknown(ending or "range without end")
    return lambda messages: "".join(_render(inner, [message]) for message in messages)


def _choice(body: str, pieces: Iterator[Piece]) -> Node:
    branches: list[tuple[Callable[[Sequence[Message]], bool], list[Node]]] = []
    while body != "end":
        test = _condition(body.removeprefix("else ")) if body != "else" else (lambda _: True)
        inner, body = _block(pieces)
        branches.append((test, inner))
        if not body:
            raise _unknown("if without end")
    return lambda scope: next((_render(inner, scope) for test, inner in branches if test(scope)), "")


def _condition(body: str) -> Callable[[Sequence[Message]], bool]:
    words = re.findall(r'"(?:[^"\\]|\\.)*"|\S+', body.removeprefix("if "))
    if not body.startswith("if ") or not (len(words) == 1 or (words[0] == "eq" and len(words) == 3)):
        raise _unknown(body)
    values = [_value(word) for word in words[-2:]]
    if len(words) == 1:
        return lambda scope: bool(values[0](scope))
    return lambda scope: values[0](scope) == values[1](scope)


def _value(body: str) -> Value:
    if body.startswith('"'):
        try:
            return _constant(str(json.loads(body)))
        except ValueError as error:
            raise _unknown(body) from error
    if body not in FIELDS:
        raise _unknown(body)
    return lambda scope: scope[0][FIELDS[body]]


def _constant(text: str) -> Value:
    return lambda _: text


def _render(nodes: Sequence[Node], scope: Sequence[Message]) -> str:
    return "".join(node(scope) for node in nodes)


def _unknown(body: str) -> ContentError:
    return ContentError(f"the TEMPLATE does {show_value(body)}, which is not rendered here")
