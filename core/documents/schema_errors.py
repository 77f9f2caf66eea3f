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
from tuneyard.core.language.message import _, joined, marked

_TYPES = {
    "string": _("text"),
    "integer": _("a whole number"),
    "number": _("a number"),
    "array": _("a list"),
    "object": _("a mapping"),
    "boolean": _("true or false"),
}
_BOUNDS = {
    "minimum": marked("{bound} or more"),
    "exclusiveMinimum": marked("more than {bound}"),
    "maximum": marked("{bound} or less"),
    "exclusiveMaximum": marked("less than {bound}"),
    "minLength": marked("{bound} or more characters"),
    "maxLength": marked("{bound} or fewer characters"),
    "minItems": marked("{bound} or more items"),
    "maxItems": marked("{bound} or fewer items"),
    "minProperties": marked("{bound} or more keys"),
    "uniqueItems": marked("no item twice"),
}
YES_OR_NO = _("YAML reads a bare yes or no as true or false: write it in quotes (in a shell 'KEY=\"no\"')")


class Violation(NamedTuple):
    """One violation: its place (`rules.0.weight`, "" for the whole value), the failed keyword and the fix."""

    place: str
    keyword: str
    message: str
    hint: str = ""

    def line(self, whole: str) -> str:
        """Format as `place: message; hint`. `whole` names the whole value."""
        line = _("{place}: {message}", place=self.place or whole, message=self.message)
        if self.hint:
            return _("{problem}; {fix}", problem=line, fix=self.hint)
        return line


def check_file(
    path: Path | str,
    schema: Mapping[str, Any],
    value: object,
    whole: str = _("the file"),
    *,
    exact: bool = True,
) -> None:
    """Validate a file's value. `ContentError` has a line for each violation."""
    lines: dict[str, None] = {}
    for violation in violations(schema, value, exact=exact):
        lines[_("{path}: {problem}", path=path, problem=violation.line(whole))] = None
    if lines:
        raise ContentError(joined(lines, "\n"))


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
        others = _("the keys are {keys}", keys=joined(keys)) if keys else ""
        for name in value:
            if name not in keys:
                message = _("unknown key {key!r}", key=name)
                yield Violation(place, keyword, message, nearest(name, keys, others))
        return
    if keyword == "required":
        lacking = [repr(key) for key in bound if key not in value]
        yield Violation(place, keyword, _("{keys} is missing: add it", keys=joined(lacking)))
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
        expected = "null"
        if not kinds.isdisjoint(_TYPES):
            expected = joined((words for name, words in _TYPES.items() if name in kinds), _(" or "))
        if "description" in schema:
            expected = _("{type} ({description})", type=expected, description=schema["description"])
        if isinstance(value, bool) and "string" in kinds:
            hint = YES_OR_NO
    elif keyword == "enum":
        choices = [
            choice if isinstance(choice, str) else show_value(choice)
            for choice in bound
            if choice is not None
        ]
        names = joined([*choices[:20], "…"] if len(choices) > 20 else choices)
        expected = _("one of {names}", names=names)
        if isinstance(value, str):
            hint = nearest(value, choices)
        elif value is False and "no" in choices:
            hint = YES_OR_NO
    elif keyword in _BOUNDS:
        bounds = [keyword]
        if keyword.endswith("imum"):  # a range is reported with both of its ends
            bounds = [name for name in _BOUNDS if name in schema]
        expected = joined((_(_BOUNDS[name], bound=schema[name]) for name in bounds), _(" and "))
    else:
        expected = str(schema.get("description") or f"{keyword} {show_value(bound)}")
    yield Violation(
        place,
        keyword,
        _("found {value}, expected {expected}", value=show_value(value), expected=expected),
        hint,
    )
