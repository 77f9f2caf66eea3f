"""The best of several rated answers in a list of objects."""

from tuneyard.compiler.spec.column_types import ColumnReader, ColumnType
from tuneyard.core.errors import show_value
from tuneyard.core.language.message import _
from tuneyard.core.records.calls import WrongValueError

BY_NUMBER = {
    "best": {
        "description": "of a list of objects: the text under `take` of the one with the highest `by`, or the "
        "lowest `rank` (with `is: rejected`, of the other end)",
        "type": "object",
        "additionalProperties": False,
        "required": ["by", "take"],
        "properties": {"by": {"type": "string"}, "take": {"type": "string"}},
    }
}
"""The option that names the number by which one object of a list is taken, and the key of its text."""


class BestReader(ColumnReader):
    """Reads the text of the answer with the highest number."""

    def read(self, value: object) -> str:
        """The cleaned text under `take` of the item with the highest `by`."""
        return best_of(self, value)


def best_of(reader: ColumnReader, value: object, *, lowest: bool = False, in_pair: bool = False) -> str:
    """The cleaned text of the item with the highest (or `lowest`) number by the column's `best`.

    `in_pair`: the items must differ in their numbers, since no answer is preferred otherwise.
    `WrongValueError` for an item without number or text.
    """
    best = reader.column.options.get("best", {})
    by, take = best.get("by", ""), best.get("take", "")
    scored: list[tuple[float, str]] = []
    items = value if isinstance(value, list) else [value]
    for number, item in enumerate(items, 1):
        fields = item if isinstance(item, dict) else {}
        score, text = fields.get(by), fields.get(take)
        if isinstance(score, bool) or not isinstance(score, int | float) or not isinstance(text, str):
            raise WrongValueError(
                _(
                    "item {number}: found {item}, expected a number {by!r} and a text {take!r}",
                    number=number,
                    item=show_value(item),
                    by=by,
                    take=take,
                )
            )
        scored.append((score, text))
    if in_pair and len({score for score, _unused in scored}) == 1:
        raise WrongValueError(
            _(
                "{column} is {score} for all of {answers} answers: none is preferred",
                column=by,
                score=scored[0][0],
                answers=len(scored),
            )
        )
    choose = min if lowest != (by == "rank") else max
    _unused, best = choose(scored, key=lambda answer: answer[0])
    text = reader.file.clean(best)
    if not text.strip():
        raise WrongValueError(_("the best of them has no text"))
    return text


BEST = ColumnType(
    "best",
    {"description": _("a list of objects"), "type": "array", "minItems": 1, "items": {"type": "object"}},
    options=BY_NUMBER,
    is_text=True,
    takes_objects=True,
    has_answer=True,
    reader=BestReader,
)
