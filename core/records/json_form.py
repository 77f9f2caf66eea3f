"""Records of ours as JSON: dataclasses, tuples, mappings and messages, and back again by their types.

json_form(Rows(problems=[(3, _("no answer"))]))  →  {"problems": [[3, {"template": "no answer", …}]], …}
from_json_form(Rows, …)                          →  Rows(problems=[(3, _("no answer"))])
"""

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from tuneyard.core.language.message import Message

T = TypeVar("T")
_MESSAGE = {"template", "values", "plural", "number"}
"""Keys of a message in JSON."""


def json_form(value: object) -> object:
    """Lists, mappings and plain values. A message keeps its template, so that it can be translated."""
    if isinstance(value, Message):
        values = {name: json_form(field) for name, field in value.values.items()}
        return {"template": value.template, "values": values, "plural": value.plural, "number": value.number}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_form(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: json_form(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_form(item) for item in value]
    return value


def from_json_form(kind: type[T], raw: object) -> T:
    """Make a value of a type from its JSON form. `object` and `Any` are JSON as it is."""
    value: T = _value(kind, raw)
    return value


def _value(kind: Any, raw: Any) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _value_of_union(parts, raw)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _value(hints[name], item) for name, item in raw.items()})
    if kind is str:
        return _text(raw)
    if origin is tuple:
        return tuple(_items(parts, raw))
    if parts and _is_a(origin, Mapping):
        return {name: _value(parts[-1], item) for name, item in raw.items()}
    if parts and _is_a(origin, Sequence):
        return [_value(parts[0], item) for item in raw]
    return raw


def _is_a(origin: Any, kind: type) -> bool:
    return isinstance(origin, type) and issubclass(origin, kind)


def _value_of_union(kinds: Sequence[Any], raw: Any) -> Any:
    """A value of `X | None`, the only unions of our records."""
    if raw is None:
        return None
    (kind,) = [kind for kind in kinds if kind is not types.NoneType]
    return _value(kind, raw)


def _items(kinds: Sequence[Any], raw: Sequence[Any]) -> Iterable[Any]:
    """The items of a tuple, `tuple[X, Y]` or `tuple[X, ...]`."""
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return [_value(kinds[0], item) for item in raw]
    return [_value(kind, item) for kind, item in zip(kinds, raw, strict=True)]


def _text(raw: Any) -> Any:
    """A text, or the message that it was."""
    if not isinstance(raw, dict):
        return raw
    values = {}
    for name, value in raw["values"].items():
        is_message = isinstance(value, dict) and value.keys() == _MESSAGE
        values[name] = _text(value) if is_message else value
    return Message(raw["template"], values, raw["plural"], raw["number"])
