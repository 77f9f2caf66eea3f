"""What JSON Schema refuses, in plain words; imported only where something is wrong.

jsonschema-rs says in a fraction of a microsecond whether a value is valid. Where it is not, jsonschema
walks over the value again and tells each keyword that failed, with its place and with the schema around it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator, ValidationError

from core.errors import nearest, show_value

_TYPES = {"string": "text", "integer": "a whole number", "number": "a number", "null": "null"}
_TYPES |= {"array": "a list", "object": "a mapping", "boolean": "true or false"}
_BOUNDS = {
    "minimum": "{} or more",
    "maximum": "{} or less",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "{} or more characters",
    "maxLength": "{} or fewer characters",
    "minItems": "{} or more items",
    "maxItems": "{} or fewer items",
    "minProperties": "{} or more keys",
    "uniqueItems": "no item twice",
}


def explain(schema: Mapping[str, Any], value: object) -> Iterator[tuple[str, str]]:
    """Yield (path such as `write.0.file`, `found X, expected Y`) for everything that a schema refuses."""
    for error in Draft202012Validator(schema).iter_errors(value):
        for inner in _innermost(error):
            yield ".".join(map(str, inner.absolute_path)), _words(inner)


def _innermost(error: ValidationError) -> Iterator[ValidationError]:
    """Go into the one branch of a `oneOf` that was meant; any other error stands for itself."""
    meant = _meant(error)
    if len(meant) != 1:
        yield error
        return
    for inner in meant[0]:
        yield from _innermost(inner)


def _meant(error: ValidationError) -> list[list[ValidationError]]:
    """Return the errors of each branch that is for values of this kind."""
    branches: dict[str | int, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    return [errors for errors in branches.values() if not any(map(_of_another_kind, errors))]


def _of_another_kind(error: ValidationError) -> bool:
    if error.relative_path:
        return False
    return error.validator in ("type", "const") or (bool(error.context) and not _meant(error))


def _words(error: ValidationError) -> str:
    schema, keyword = cast("dict[str, Any]", error.schema), error.validator
    bound = cast("Any", error.validator_value)
    value = cast("Any", error.instance)
    found = f"found {show_value(value)}"
    if keyword == "required":
        return f"{', '.join(repr(key) for key in bound if key not in value)} is missing"
    if keyword == "additionalProperties":
        known = schema.get("properties", {})
        unknown = [name for name in value if name not in known]
        return "; ".join(f"unknown key {name!r} {nearest(name, known)}".rstrip() for name in unknown)
    if keyword == "type":
        types = [bound] if isinstance(bound, str) else bound
        return f"{found}, expected {' or '.join(_TYPES[name] for name in types)}"
    if keyword == "enum":
        near = nearest(value, bound) if isinstance(value, str) else ""
        return f"{found}, expected one of {', '.join(map(show_value, bound))} {near}".rstrip()
    if keyword in _BOUNDS:
        return f"{found}, expected {_BOUNDS[keyword].format(show_value(bound))}"
    return f"{found}, expected {schema.get('description') or f'{keyword} {show_value(bound)}'}"
