"""What JSON Schema refuses, in plain words: the place, what was found, what is expected, and the fix.

jsonschema walks over the value and tells each keyword that failed, with its place and the schema around it.
It is imported only where that is asked: whether a value is valid jsonschema-rs says much faster.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from tuneyard.core.errors import ContentError, nearest, show_value

if TYPE_CHECKING:
    from jsonschema import ValidationError

LARGEST = 2.0**53  # above it not every whole number is a float; no step, rank or rate is as large
_TYPES = {"string": "text", "integer": "a whole number", "number": "a number"}
_TYPES |= {"array": "a list", "object": "a mapping", "boolean": "true or false"}
_BOUNDS = {
    "minimum": "{} or more",
    "exclusiveMinimum": "more than {}",
    "maximum": "{} or less",
    "exclusiveMaximum": "less than {}",
    "minLength": "{} or more characters",
    "maxLength": "{} or fewer characters",
    "minItems": "{} or more items",
    "maxItems": "{} or fewer items",
    "minProperties": "{} or more keys",
    "uniqueItems": "no item twice",
}
YES_OR_NO = "YAML reads a bare yes or no as true or false: write it in quotes (in a shell 'KEY=\"no\"')"


@dataclass(frozen=True, slots=True)
class Violation:
    """Where a value fails its schema (`rules.0.weight`, "" for itself) and by which keyword; the fix."""

    place: str
    keyword: str
    message: str
    hint: str = ""

    def line(self, whole: str) -> str:
        """Return `place: message; hint`, with a name for the whole value."""
        return f"{self.place or whole}: {self.message}{f'; {self.hint}' if self.hint else ''}"


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a number to calculate with: no truth value, no NaN, none too large."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def check_file(
    path: Path, schema: Mapping[str, Any], value: object, whole: str = "the file", *, exact: bool = True
) -> None:
    """Raise `ContentError` with a line for everything that a schema refuses in a file's value, each once."""
    lines = [f"{path}: {one.line(whole)}" for one in violations(schema, value, exact=exact)]
    if lines:
        raise ContentError("\n".join(dict.fromkeys(lines)))


def violations(schema: Mapping[str, Any], value: object, *, exact: bool = False) -> Iterator[Violation]:
    """Yield everything that a schema refuses; if `exact`, 8.0 is no integer, and NaN and 1e99 no numbers."""
    for error in _validator(exact)(schema).iter_errors(value):
        for inner in _innermost(error):
            yield from _in_words(inner)


@cache
def _validator(exact: bool) -> Any:
    from jsonschema import Draft202012Validator as Validator
    from jsonschema.validators import extend

    kinds = {"integer": lambda _, one: is_number(one) and isinstance(one, int)}
    checker = Validator.TYPE_CHECKER.redefine_many({**kinds, "number": lambda _, one: is_number(one)})
    return extend(Validator, type_checker=checker) if exact else Validator  # type: ignore[no-untyped-call]


def _innermost(error: "ValidationError") -> "Iterator[ValidationError]":
    """Go into the one branch of a `oneOf` that was meant; any other error stands for itself."""
    meant = _meant(error)
    if len(meant) != 1:
        yield error
        return
    for inner in meant[0]:
        yield from _innermost(inner)


def _meant(error: "ValidationError") -> "list[list[ValidationError]]":
    """Return the errors of each branch that is for values of this kind."""
    branches: dict[str | int, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    return [errors for errors in branches.values() if not any(map(_of_another_kind, errors))]


def _of_another_kind(error: "ValidationError") -> bool:
    if error.relative_path:
        return False
    if error.validator == "enum":  # choices are texts and numbers
        return isinstance(error.instance, list | dict)
    return error.validator in ("type", "const") or (bool(error.context) and not _meant(error))


def _in_words(error: "ValidationError") -> Iterator[Violation]:
    place, keyword = ".".join(map(str, error.absolute_path)), str(error.validator)
    schema, bound = cast("dict[str, Any]", error.schema), cast("Any", error.validator_value)
    value, hint = cast("Any", error.instance), ""
    if keyword == "additionalProperties":
        known = schema.get("properties", {})
        for name in [name for name in value if name not in known]:
            hint = nearest(str(name), known) or (f"the keys are {', '.join(known)}" if known else "")
            shown = repr(name) if isinstance(name, str) else show_value(name)
            yield Violation(place, keyword, f"unknown key {shown}", hint)
        return
    if keyword == "required":
        lacking = [key for key in bound if key not in value]
        if schema.get("additionalProperties") is False:  # a misspelt key is reported as unknown
            unknown = [str(name) for name in value if name not in schema.get("properties", {})]
            lacking = [key for key in lacking if not any(nearest(name, [key]) for name in unknown)]
        if lacking:
            yield Violation(place, keyword, f"{', '.join(map(repr, lacking))} is missing")
        return
    kind = schema.get("type", [])
    kinds = {kind} if isinstance(kind, str) else set(kind)
    too_large = isinstance(value, int | float) and not abs(value) <= LARGEST
    if keyword == "type" and too_large and kinds & {"integer", "number"}:
        keyword, expected = "maximum", f"a number of at most {LARGEST:,.0f}"
    elif keyword == "type":
        expected = " or ".join(words for one, words in _TYPES.items() if one in kinds) or "null"
        hint = YES_OR_NO if isinstance(value, bool) and "string" in kinds else ""
    elif keyword == "enum":
        known = [one if isinstance(one, str) else show_value(one) for one in bound if one is not None]
        expected = f"one of {', '.join(known[:20])}{', …' * (len(known) > 20)}"
        hint = nearest(value, known) if isinstance(value, str) else ""
    elif keyword in _BOUNDS:
        said = [one for one in _BOUNDS if one in schema] if keyword.endswith("imum") else [keyword]
        expected = " and ".join(_BOUNDS[one].format(schema[one]) for one in said)
    else:
        expected = str(schema.get("description") or f"{keyword} {show_value(bound)}")
    if keyword == "type" and kinds & {"array", "object"} and "description" in schema:
        expected += f" ({schema['description']})"
    yield Violation(place, keyword, f"found {show_value(value)}, expected {expected}", hint)
