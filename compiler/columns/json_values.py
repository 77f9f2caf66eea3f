"""Values that JSON can hold, and text cells that are whole numbers."""

import json
from collections.abc import Sequence
from typing import Any

import orjson

SMALLEST, LARGEST = -(1 << 63), (1 << 64) - 1  # what orjson writes


def writable(value: object) -> bool:
    """True if JSON can represent a value: no bytes, no NaN, not nested too deep, no rounded number."""
    try:
        text = json.dumps(value, allow_nan=False, default=lambda other: orjson.dumps(other).decode())
        json.loads(text, parse_float=_unrounded)
        orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _unrounded(number: str) -> None:
    """Refuse a number that may have lost digits: orjson reads integers above 64 bits as floats."""
    if abs(float(number)) > LARGEST:
        raise ValueError(number)


def numbers_in(values: Sequence[Any], before: str | None) -> list[Any]:
    """Message text cells into whole numbers, if all are written so and none is too large for JSON.

    `before` is the type of the column in earlier rows. After text all stay text. After numbers each cell is
    decided alone.
    """
    try:
        numbers = list(map(int, values))
        small = min(numbers) >= SMALLEST and max(numbers) <= LARGEST
        if before != "text" and small and list(map(str, numbers)) == list(values):
            return numbers
    except ValueError:
        pass
    if before != "a number" or len(values) < 2:
        return list(values)
    return [numbers_in([value], None)[0] for value in values]
