"""`split` of a registry entry with a local file: the rows that LLaMA-Factory takes of it.

`datasets` 4 reads a file as the one split `train`, of which `train[:50%]` or `train[:10]+train[-10:]` are
slices (datasets/arrow_reader.py, `ReadInstruction`). It is not imported: the core has no such package.
"""

import math
import re
from typing import NamedTuple

from tuneyard.core.datasets import REMOTE_SOURCES
from tuneyard.core.errors import Problem, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _
from tuneyard.core.records import Entry

UNLOADABLE_FILE = ProblemCode(
    "E405",
    _("a file or `split` at which the loader stops"),
    _("Correct what the loader's own message names."),
)


WHOLE, ALL = "train", "all"
_PART = re.compile(
    r"(?P<split>\w+(?:\.\w+)*)"
    r"(?:\[(?:(?P<start>-?[0-9_]{1,20})(?P<start_percent>%)?)?:(?:(?P<end>-?[0-9_]{1,20})(?P<end_percent>%)?)?\])?"
    r"(?:\((?P<rounding>[^)]*)\))?"
)
_CLOSEST = "closest"
_ROUNDINGS = (None, _CLOSEST, "pct1_dropremainder")


class _Slice(NamedTuple):
    start: int | None
    end: int | None
    in_percent: bool
    rounding: str | None

    def rows(self, records: int) -> int:
        """How many of so many records it takes.

        A slice that ends one record before its start goes on to the last one (`take` of -1 in `datasets`).
        """
        start, end = self._boundary(self.start, 0, records), self._boundary(self.end, records, records)
        if end - start == -1:
            end = records
        return max(0, end - start)

    def _boundary(self, boundary: int | None, default: int, records: int) -> int:
        if boundary is None:
            return default
        if self.in_percent and self.rounding in (None, _CLOSEST):
            boundary = round(boundary * records / 100)
        elif self.in_percent:
            boundary *= math.trunc(records / 100)
        if boundary < 0:
            boundary = max(records + boundary, 0)
        return min(boundary, records)


def rows_of_split(entry: Entry, records: int) -> int | None:
    """How many of a file's records LLaMA-Factory takes by `split`, None if it stops at the value.

    >>> rows_of_split({"split": "train[:50%]"}, 24)
    12
    """
    slices = _slices(entry.get("split", WHOLE))
    if slices is None:
        return None
    return sum(each.rows(records) for each in slices)


def split_problem(place: str, entry: Entry) -> Problem | None:
    """E405 if `split` names another split than the one of a local file, or cannot be read."""
    is_local = "file_name" in entry and not any(source in entry for source in REMOTE_SOURCES)
    if not is_local or _slices(entry.get("split", WHOLE)) is not None:
        return None
    message = _(
        'found {value}: a local file is the one split "train", and LLaMA-Factory stops at any other',
        value=show_value(entry["split"]),
    )
    return Problem(
        UNLOADABLE_FILE, place, message, "split", _('take it out, or write a part such as "train[:50%]"')
    )


def _slices(split: object) -> list[_Slice] | None:
    if not isinstance(split, str):
        return None
    if split == ALL:
        split = WHOLE
    slices = []
    texts = split.split("+")
    for number, text in enumerate(texts, 1):
        if "[" in text and number < len(texts):  # only there `datasets` takes blanks before a +
            text = text.rstrip()
        match = _PART.fullmatch(text)
        if match is None or match["split"] != WHOLE or match["rounding"] not in _ROUNDINGS:
            return None
        in_percent = bool(match["start_percent"] or match["end_percent"])
        if match["rounding"] and not in_percent:
            return None
        try:
            start, end = (int(match[name]) if match[name] else None for name in ("start", "end"))
        except ValueError:  # two underscores
            return None
        if in_percent and any(boundary is not None and abs(boundary) > 100 for boundary in (start, end)):
            return None
        slices.append(_Slice(start, end, in_percent, match["rounding"]))
    return slices
