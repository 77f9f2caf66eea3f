"""JSON Schema violations in plain words: place, value, expected value and fix.

jsonschema reports each failed keyword with its place and the schema around it. It is imported only for a
report: jsonschema-rs checks much faster whether a value is valid.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tuneyard.core.documents import LARGEST, is_number
from tuneyard.core.errors import ContentError, nearest, show_value
from tuneyard.core.language.message import _

_TYPES = {"string": "text", "integer": "a whole number", "number": _("a number")}
_TYPES |= {"array": _("a list"), "object": _("a mapping"), "boolean": _("true or false")}
_BOUNDS = {
    "minimum": _("{{}} or more"),
    "exclusiveMinimum": _("more than {{}}"),
    "maximum": _("{{}} or less"),
    "exclusiveMaximum": "less than {}",
    "minLength": "{} or more characters",
    "maxLength": "{} or fewer characters",
    "minItems": _("{{}} or more items"),
    "maxItems": _("{{}} or fewer items"),
    "minProperties": "{} or more keys",
    "uniqueItems": "no item twice",
}
YES_OR_NO = "YAML reads a bare yes or no as true or false: write it in quotes (in a shell 'KEY=\"no\"')"


class Violation(NamedTuple):
    """One violation: its place (`rules.0.weight`, "" for the whole value), the failed keyword and the fix."""

    place: str
    keyword: str
    message: str
    hint: str = ""

    def line(self, whole: str) -> str:
        """Format as `place: message; hint`. `whole` names the whole value."""
        line = f"{self.place or whole}: {self.message}"
        if self.hint:
            line += f"; {self.hint}"
        return line


def check_file(
    path: Path, schema: Mapping[str, Any], value: object, whole: str = "the file", *, exact: bool = True
) -> None:
    """Validate a file's value. `ContentError` has a line for each violation."""
    lines = [f"{path}: {violation.line(whole)}" for violation in violations(schema, value, exact=exact)]
    if lines:
        raise ContentError("\n".join(dict.fromkeys(lines)))


def violations(schema: Mapping[str, Any], value: object, *, exact: bool = False) -> Iterator[Violation]:
    """Yield every violation. If `exact`, 8.0 is no integer, and NaN and 1e99 are no numbers.

    Where a value may have several forms, it is the one that jsonschema takes for the best match.
    """
    from jsonschema.exceptions import best_match

    errors = _in_order(value, _validator(exact)(schema).iter_errors(value))
    for error in errors:
        yield from _in_words(best_match([error]))


def _in_order(value: object, errors: Iterable[Any]) -> list[Any]:
    """Errors in the order of the document, those inside an error as well.

    jsonschema finds some of them by sets of keys, whose order is another one in each process.
    """

    numbers_of_keys: dict[int, dict[object, int]] = {}

    def position(error: Any) -> tuple[list[int], str, str]:
        inner: Any = value
        numbers = []
        for step in error.absolute_path:
            number = step
            if isinstance(inner, dict):
                if id(inner) not in numbers_of_keys:
                    numbers_of_keys[id(inner)] = {key: at for at, key in enumerate(inner)}
                number = numbers_of_keys[id(inner)][step]
            numbers.append(number)
            inner = inner[step]
        return numbers, str(error.validator), error.message

    errors = sorted(errors, key=position)
    for error in errors:
        error.context = _in_order(value, error.context)
    return errors


@cache
def _validator(exact: bool) -> Any:
    from jsonschema import Draft202012Validator as Validator
    from jsonschema.validators import extend

    if not exact:
        return Validator
    checks = {
        "integer": lambda _unused, value: is_number(value) and isinstance(value, int),
        "number": lambda _unused, value: is_number(value),
    }
    checker = Validator.TYPE_CHECKER.redefine_many(checks)
    return extend(Validator, type_checker=checker)  # type: ignore[no-untyped-call]


def _in_words(error: Any) -> Iterator[Violation]:
    """Describe a `ValidationError` of jsonschema."""
    place = ".".join(map(str, error.absolute_path))
    keyword = str(error.validator)
    schema, bound, value = error.schema, error.validator_value, error.instance
    if keyword == "additionalProperties":
        keys = schema.get("properties", {})
        others = f"the keys are {', '.join(keys)}" if keys else ""
        for name in value:
            if name not in keys:
                yield Violation(place, keyword, f"unknown key {name!r}", nearest(name, keys, others))
        return
    if keyword == "required":
        lacking = [key for key in bound if key not in value]
        yield Violation(place, keyword, f"{', '.join(map(repr, lacking))} is missing: add it")
        return
    kind = schema.get("type", [])
    kinds = {kind} if isinstance(kind, str) else set(kind)
    hint = ""
    expected: str
    too_large = isinstance(value, int | float) and not abs(value) <= LARGEST
    if keyword == "type" and too_large and kinds & {"integer", "number"}:
        keyword = "maximum"
        expected = _("a number of at most {number:,.0f}", number=LARGEST)
    elif keyword == "type":
        expected = " or ".join(words for name, words in _TYPES.items() if name in kinds) or "null"
        if "description" in schema:
            expected += f" ({schema['description']})"
        if isinstance(value, bool) and "string" in kinds:
            hint = YES_OR_NO
    elif keyword == "enum":
        choices = [
            choice if isinstance(choice, str) else show_value(choice)
            for choice in bound
            if choice is not None
        ]
        expected = _("one of {names}", names=", ".join(choices[:20]))
        if len(choices) > 20:
            expected += ", …"
        if isinstance(value, str):
            hint = nearest(value, choices)
        elif value is False and "no" in choices:
            hint = YES_OR_NO
    elif keyword in _BOUNDS:
        bounds = [keyword]
        if keyword.endswith("imum"):  # a range is reported with both of its ends
            bounds = [name for name in _BOUNDS if name in schema]
        expected = " and ".join(_BOUNDS[name].format(schema[name]) for name in bounds)
    else:
        expected = str(schema.get("description") or f"{keyword} {show_value(bound)}")
    yield Violation(
        place, keyword, _("found {role}, expected {other}", role=show_value(value), other=expected), hint
    )
