"""The JSON Schema of a record from its TypedDict: what a key may hold, its description and its limits.

    class Interval(TypedDict):
        low: Annotated[float, "at 95 %", Limits(least=0)]

A text in `Annotated` is the description of a key, `Limits` are its bounds. A TypedDict inside another one is
in `$defs` under its name, with the first line of its docstring.
"""

import inspect
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import _

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LARGEST_COUNT = 2**53  # above it not every whole number is a float
LARGEST_FIGURE = 1e300  # a sum of some of them is still finite
_TYPES: dict[object, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    NoneType: "null",
}
_BOUNDS = {"array": ("minItems", "maxItems"), "object": ("minProperties", "maxProperties")}


class Limits(NamedTuple):
    """Bounds of a number, or of the count of items in a list or of keys in an object; None: unbounded."""

    least: float | None = None
    most: float | None = None


Count = Annotated[int, Limits(0, LARGEST_COUNT)]
Share = Annotated[float, Limits(0, 1)]
Figure = Annotated[float, Limits(-LARGEST_FIGURE, LARGEST_FIGURE)]
Spread = Annotated[float, Limits(0, LARGEST_FIGURE)]


def json_schema(record_type: type, title: str, *, closed: bool = False) -> JsonObject:
    """The schema of a TypedDict. `closed`: other keys than those of the type are errors."""
    definitions: JsonObject = {}
    schema = {"$schema": DIALECT, "title": title, **_object_schema(record_type, definitions, closed=closed)}
    if definitions:
        schema["$defs"] = dict(sorted(definitions.items()))
    return schema


def _object_schema(record_type: type, definitions: JsonObject, *, closed: bool) -> JsonObject:
    properties: JsonObject = {}
    for key, hint in get_type_hints(record_type, include_extras=True).items():
        properties[key] = _schema(hint, definitions, closed=closed)
    required: Any = record_type.__required_keys__  # type: ignore[attr-defined]  # of each TypedDict
    schema: JsonObject = {"type": "object", "properties": properties}
    if required:
        schema["required"] = [key for key in properties if key in required]
    if closed:
        schema["additionalProperties"] = False
    return schema


def _schema(hint: Any, definitions: JsonObject, *, closed: bool) -> JsonObject:
    """The schema of one annotation. `TypeError` for one that JSON has no values of."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        schema = _schema(arguments[0], definitions, closed=closed)
        for extra in arguments[1:]:
            schema = _with_extra(schema, extra)
        return schema
    if origin in (Required, NotRequired):
        return _schema(arguments[0], definitions, closed=closed)
    if hint in (Any, object):
        return {}
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if origin is Literal:
        if len(arguments) == 1:
            return {"const": arguments[0]}
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], definitions, closed=closed)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions, closed=closed)}
    if origin in (Union, UnionType):
        return _one_of([_schema(part, definitions, closed=closed) for part in arguments])
    if is_typeddict(hint):
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", hint.__name__).lower()
        if name not in definitions:
            definitions[name] = {}  # a record inside of itself refers to it
            description = (inspect.getdoc(hint) or "").partition("\n")[0]
            definitions[name] = {
                "description": description,
                **_object_schema(hint, definitions, closed=closed),
            }
        return {"$ref": f"#/$defs/{name}"}
    raise TypeError(_("{hint!r} in a record: JSON has no such values", hint=hint))


def _one_of(schemas: list[JsonObject]) -> JsonObject:
    """A schema that takes what any of these takes; null joins the type of another one."""
    others = [schema for schema in schemas if schema != {"type": "null"}]
    if len(others) == 1 and len(schemas) == 2 and isinstance(others[0].get("type"), str):
        return {**others[0], "type": [others[0]["type"], "null"]}
    if all(schema.keys() == {"type"} for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    return {"anyOf": schemas}


def _with_extra(schema: JsonObject, extra: object) -> JsonObject:
    """The schema with a description or with limits."""
    if isinstance(extra, str):
        return {**schema, "description": extra}
    if isinstance(extra, Limits):
        kinds = schema["type"]
        kind = kinds if isinstance(kinds, str) else kinds[0]
        bounds = _BOUNDS.get(kind, ("minimum", "maximum"))
        limits = {name: bound for name, bound in zip(bounds, extra, strict=True) if bound is not None}
        return {**schema, **limits}
    raise TypeError(
        _("{extra!r} in the annotation of a record: a description or Limits is expected", extra=extra)
    )
