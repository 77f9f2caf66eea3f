"""The order of the messages of a table: by numbers or times, if their form leaves no doubt."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import product
from typing import Any

Reading = Callable[[list[str]], list[Any]]
"""The keys that sort the messages of one conversation. Errors if one of the texts has another form."""
_DATES = (
    "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y", "%Y/%m/%d", "%b %d %Y", "%B %d %Y", "%d %b %Y",
    "%d %B %Y", "%a %d %b %Y",
)  # fmt: skip
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", " %H:%M:%S %z")
_OTHER_FORM = (ArithmeticError, ValueError, TypeError)  # TypeError: offsets in some times alone
_SIGN = re.compile(r"(?<=\d)[.-](?=\d)")
_LAST_ZERO = re.compile(r"\d+\.\d+0")
_CLOCK = r"\d?\d:\d\d(:\d\d([.,]\d{3})?)?"
_PARTS = re.compile(rf"\D*\d+|\d+(\.\d+)+|{_CLOCK}|\d{{4}}[-/.年]\d\d?[-/.月]\d\d?日?([T ]{_CLOCK})?")
"""A text that sorts by the numbers in it: `turn 10`, `1.2.3`, `9:59`, `2024-3-1 9:59`."""


def orders_of(conversations: list[list[str]]) -> list[list[int]] | None:
    """The positions of each conversation's messages in the order of these texts. None if it is not certain.

    Readings of one kind must agree: 3/4/2024 is in March or in April.
    """
    tidy = [
        [" ".join(text.replace(", ", " ").split()) for text in conversation] for conversation in conversations
    ]
    for readings in _READINGS:
        orders = []
        for reading in readings:
            with suppress(*_OTHER_FORM):
                keys = map(reading, tidy)
                orders.append([sorted(range(len(each)), key=each.__getitem__) for each in keys])
        if orders:
            return orders[0] if orders.count(orders[0]) == len(orders) else None
    return None


def _numbers(texts: list[str]) -> list[Decimal]:
    """Numbers. A last zero in some of them, as in 1.10 next to 1.9, may make them versions."""
    digits = {len(text.partition(".")[2]) for text in texts}
    if len(digits) > 1 and any(map(_LAST_ZERO.fullmatch, texts)):
        raise ValueError(texts)
    return list(map(Decimal, texts))


def _iso_times(texts: list[str]) -> list[datetime]:
    return [datetime.fromisoformat(text.replace(" UTC", "Z")) for text in texts]


def _times(form: str, texts: list[str]) -> list[datetime]:
    return [datetime.strptime(_SIGN.sub("/", text), form) for text in texts]


def _parts(texts: list[str]) -> list[list[int]]:
    """The numbers in texts that differ by them alone. 1.10 may be a version or a number."""
    are_alike = len({re.sub(r"\d+", "", text) for text in texts}) == 1 and all(map(_PARTS.fullmatch, texts))
    if not are_alike or any(map(_LAST_ZERO.fullmatch, texts)):
        raise ValueError(texts)
    return [list(map(int, re.findall(r"\d+", text))) for text in texts]


_READINGS: tuple[tuple[Reading, ...], ...] = (
    (_numbers,),
    (_iso_times,),
    tuple(partial(_times, date + clock) for date, clock in [("", "%I:%M %p"), *product(_DATES, _CLOCKS)]),
    (_parts,),
)
