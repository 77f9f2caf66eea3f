"""What a JSON Schema error means, in the house's words: found, expected."""

import jsonschema_rs

from core.errors import nearest, show_value

_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "array": "a list",
    "object": "a mapping",
    "boolean": "true or false",
    "null": "null",
}


def explain(error: jsonschema_rs.ValidationError) -> str:
    """Return `found X, expected Y` for one error of jsonschema-rs (JSON Schema 2020-12, validation)."""
    details = error.kind.as_dict()
    found = f"found {show_value(error.instance)}"
    match error.kind.name:
        case "required":
            return f"{details['property']!r} is missing"
        case "additionalProperties":
            return _unknown(error, details["unexpected"])
        case "type":
            return f"{found}, expected {' or '.join(_TYPES[name] for name in details['types'])}"
        case "enum":
            return f"{found}, expected one of {', '.join(map(show_value, details['options']))}"
        case _:
            return error.message if len(error.message) < 200 else f"{found}: does not fit {error.kind.name}"


def _unknown(error: jsonschema_rs.ValidationError, names: list[str]) -> str:
    known = getattr(error, "known", ())
    hints = [f"unknown key {name!r} {nearest(name, known)}".rstrip() for name in names]
    return "; ".join(hints)
