"""Marks of answers as wanted or not, which LLaMA-Factory 0.9.5 reads as `kto_tag` (stage kto)."""

from collections import Counter
from collections.abc import Sequence

from tuneyard.compiler.rows.problem_codes import NO_PREFERENCE
from tuneyard.compiler.spec.column_types import KTO_TAG, Beside, ColumnReader, ColumnType
from tuneyard.core.datasets.answer_marks import as_number
from tuneyard.core.datasets.column_meanings import USUAL_NAMES
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _
from tuneyard.core.records.calls import unusable

ONE_KIND_OF_ANSWER = ProblemCode(
    "E112",
    _("a KTO set whose answers are all of one kind"),
    _("Add answers of the other kind; for ratings, write `at_least` at the column."),
)


MOSTLY = 0.9
"""The share of rows that have a mark, from which on the others are rejected ones."""


class KtoReader(ColumnReader):
    """Reads marks, and ratings if the column has `at_least`."""

    def read(self, value: object) -> bool:
        """True if the answer is wanted."""
        at_least = self.column.options.get("at_least")
        if at_least is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise unusable(value, "a number, since the column has `at_least`")
            return bool(value >= at_least)
        number = as_number(value)
        if number not in (-1, 0, 1):
            raise unusable(value, "true or false (`at_least` at the column takes ratings)")
        return number == 1


class KtoType(ColumnType):
    """Marks, of which a dataset needs both."""

    judges_values = True

    def answers_learned(self, numbers: list[int]) -> list[int]:
        """The last answer alone (data/processor/feedback.py)."""
        return numbers[-1:]

    def judge(self, values: Counter[object], place: str) -> Problem | str:
        """The ratio of both. An error if one is missing: KTO learns from the contrast."""
        wanted_rows, unwanted_rows = values[True], values[False]
        if wanted_rows and unwanted_rows:
            ratio = f"{wanted_rows / unwanted_rows:.2f} to 1"
            return f"{wanted_rows} answers wanted, {unwanted_rows} unwanted ({ratio})"
        mark = "wanted" if wanted_rows else "unwanted"
        message = f"all {values.total()} answers are {mark}: KTO learns from both kinds"
        return Problem(
            ONE_KIND_OF_ANSWER,
            place,
            message,
            "",
            _("`at_least` at the column says which ratings are wanted"),
        )


def _are_marks(name: str, values: Sequence[object]) -> bool:
    """True for two marks, one of them for good answers. In a `label` only true and false are no classes."""
    if name == "label":
        return {str(value).lower() for value in values} <= {"true", "false"}
    given = [value for value in values if value not in ("", None)]
    return set(map(as_number, given)) in ({0, 1}, {-1, 1}) and len(given) > MOSTLY * len(values)


KTO = KtoType(
    "kto",
    {"description": _("true or false, or a number"), "type": ["boolean", "number", "string"]},
    options={
        "at_least": {
            "description": "of ratings: an answer with this one or a higher one is wanted",
            "type": "number",
        }
    },
    code=NO_PREFERENCE,
    registry_key="kto_tag",
    compared=KTO_TAG,
    beside=Beside(
        (*USUAL_NAMES["kto_tag"], *USUAL_NAMES["feedback"], "label"), questions=True, accepts=_are_marks
    ),
    reader=KtoReader,
)
