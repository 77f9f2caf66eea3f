"""`--limit`: the first rows of a file, whether they can be read or not."""

import re
from collections.abc import Sequence

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.rows import Line

_NUMBER = re.compile(r"\d+")


def within_limit(room: int, problems: Problems, prefix: str = "", lines: Sequence[Line] = ()) -> int:
    """How many rows of a batch are among the next `room` rows of their file. Unreadable rows count, too.

    A reader records unreadable rows before it yields the batch. Those beyond the limit are taken back.
    """
    room = max(room, 0)
    unreadable = problems.unsettled_rows()
    if len(lines) + len(unreadable) <= room:
        return len(lines)
    order_of_lines = [_order(str(line), "") for line in lines]
    order_of_places = [_order(place, prefix) for place in unreadable]
    beyond = sorted([*order_of_lines, *order_of_places])[room]
    places = zip(unreadable, order_of_places, strict=True)
    problems.take_back({place for place, order in places if order >= beyond})
    return sum(order < beyond for order in order_of_lines)


def _order(place: str, prefix: str) -> tuple[int, ...]:
    """The numbers of a place, such as line and record. Places of a file before this one come first."""
    if not place.startswith(prefix):
        return ()
    return tuple(map(int, _NUMBER.findall(place.removeprefix(prefix))))
