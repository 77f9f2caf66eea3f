r"""Words of a command that name an adapter or a result: `NAME=REFERENCE[:WEIGHT]`.

`half=rte:0.5+mnli:0.5` names a weighted sum, `rte=0.5` an adapter with its weight, `before=results/base` a
result. A reference may have `=`, `:` and `+` in it (`saves/lr=1e-4`, `C:\saves\rte`, `saves/a+b`): what is
there is never split.
"""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

IsThere = Callable[[str], bool]
"""True if a text names something that is there."""
_NUMBER = re.compile(r"(?:[-+]?\.?\d[\d.,]*(?:[eE][-+]?\d+)?%?(?:@[-\d.,@eE+ ]*)?)?")
"""A number, also one that gets an error of its own: `0,5`, `50%`, `0.5@0-11`, and nothing at all."""
_LONGEST_NUMBER = 40  # characters
_BEFORE_EXPONENT = re.compile(r"[=:][-+]?[\d.]+[eE]$")


class NamedReference(NamedTuple):
    """One word. `name` and `weight` are None if the word has none; the weight is not read as a number."""

    name: str | None
    reference: str
    weight: str | None


def parse_reference(
    text: str, is_there: IsThere, *, named: bool, weight: Literal["never", "optional", "always"]
) -> NamedReference:
    """Split a word. It may have a name if `named`, and a weight as `weight` says.

    Between name and reference is the first `=`, before a weight the last `=` or `:`. A weight has no slash.
    """
    name, reference = None, text
    if named and not is_there(text):
        first, equals, rest = text.partition("=")
        first_part = sum_parts(equals + rest)[0].removeprefix(equals)
        is_weight = weight != "never" and _NUMBER.fullmatch(first_part) and not is_there(rest)
        if equals and not is_weight:
            name, reference = first, rest
    if weight == "never" or (weight == "optional" and is_there(reference)):
        return NamedReference(name, reference, None)
    weighted = re.fullmatch(r"(.*)[=:](.*)", reference, re.DOTALL)
    if weighted is None or (weight == "optional" and re.search(r"[/\\]", weighted[2])):
        return NamedReference(name, reference, None)
    return NamedReference(name, weighted[1], weighted[2])


def parse_sum(text: str, is_there: IsThere) -> tuple[str | None, list[NamedReference]]:
    """Split `NAME=REFERENCE:WEIGHT+…`: the name, and the references of the sum. One may have no weight."""
    name, reference, weight = parse_reference(text, is_there, named=True, weight="optional")
    words = text if name is None else text.partition("=")[2]
    parts = sum_parts(words)
    if len(parts) == 1 or is_there(words) or is_there(reference):
        return name, [NamedReference(None, reference, weight)]
    return name, [parse_reference(part, is_there, named=False, weight="always") for part in parts]


def sum_parts(text: str) -> list[str]:
    """Split `a:0.5+b:1e+2` at the signs between adapters. That of a number, as in `1e+2`, stays."""
    parts = []
    start = 0
    for sign in re.finditer(r"\+", text):
        before = text[max(start, sign.start() - _LONGEST_NUMBER) : sign.start()]
        is_of_number = before.endswith(("=", ":")) or _BEFORE_EXPONENT.search(before)
        if not is_of_number:
            parts.append(text[start : sign.start()])
            start = sign.end()
    return [*parts, text[start:]]
