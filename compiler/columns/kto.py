"""KTO tags: is an answer desirable? LLaMA-Factory 0.9.5 reads them as `kto_tag` (stage kto)."""

from collections import Counter
from collections.abc import Sequence

from tuneyard.compiler.rows.problem_codes import NO_PREFERENCE
from tuneyard.compiler.spec.column_types import KTO_TAG, Beside, ColumnReader, ColumnType
from tuneyard.core.datasets.answer_flags import as_number
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
"""The share of rows with a tag, from which on the others are rejected rows."""


class KtoReader(ColumnReader):
    """Reads tags, and ratings if the column has `at_least`."""

    def read(self, value: object) -> bool:
        """True if the answer is desirable."""
        at_least = self.column.options.get("at_least")
        if at_least is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise unusable(value, _("a number, since the column has `at_least`"))
            return bool(value >= at_least)
        number = as_number(value)
        if number not in (-1, 0, 1):
            raise unusable(value, _("true or false (`at_least` at the column takes ratings)"))
        return number == 1


class KtoType(ColumnType):
    """KTO tags, of which a dataset needs both."""

    judges_values = True

    def answers_learned(self, numbers: list[int]) -> list[int]:
        """The last answer alone (data/processor/feedback.py)."""
        return numbers[-1:]

    def judge(self, values: Counter[object], location: str) -> Problem | str:
        """The ratio of both. An error if one is missing: KTO learns from the contrast."""
        desirable, undesirable = values[True], values[False]
        if desirable and undesirable:
            return _(
                "{desirable} desirable answers, {undesirable} undesirable ({ratio:.2f} to 1)",
                desirable=desirable,
                undesirable=undesirable,
                ratio=desirable / undesirable,
            )
        message = _("all {count} answers are desirable: KTO learns from both kinds", count=desirable)
        if undesirable:
            message = _("all {count} answers are undesirable: KTO learns from both kinds", count=undesirable)
        return Problem(
            ONE_KIND_OF_ANSWER,
            location,
            message,
            "",
            _("`at_least` at the column says which ratings are desirable"),
        )


def _are_tags(name: str, values: Sequence[object]) -> bool:
    """True for two tags, one of them for good answers. In a `label` only true and false are no classes."""
    if name == "label":
        return {str(value).lower() for value in values} <= {"true", "false"}
    tags = [value for value in values if value not in ("", None)]
    return set(map(as_number, tags)) in ({0, 1}, {-1, 1}) and len(tags) > MOSTLY * len(values)


KTO = KtoType(
    "kto",
    {"description": _("true or false, or a number"), "type": ["boolean", "number", "string"]},
    options={
        "at_least": {
            "description": "of ratings: an answer with this one or a higher one is desirable",
            "type": "number",
        }
    },
    code=NO_PREFERENCE,
    registry_key="kto_tag",
    compared=KTO_TAG,
    beside=Beside(
        (*USUAL_NAMES["kto_tag"], *USUAL_NAMES["feedback"], "label"), questions=True, accepts=_are_tags
    ),
    reader=KtoReader,
)
