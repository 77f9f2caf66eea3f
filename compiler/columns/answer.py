"""Answers as texts."""

from tuneyard.compiler.columns.text import CleanedType
from tuneyard.compiler.spec.column_types import ColumnReader, Values
from tuneyard.core.files import are_texts
from tuneyard.core.language.message import _, counted

OTHERS = "rows with other answers"


class AnswerReader(ColumnReader):
    """Reads an answer. Of a list of accepted answers the first one is learned."""

    def unfold(self, values: Values) -> Values:
        """Take the first of the texts in a list."""
        return [self._first(value) for value in values]

    def _first(self, value: object) -> object:
        if not isinstance(value, list) or not value or not are_texts(value):
            return value
        if len(set(value)) > 1:
            self.noted[OTHERS] += 1
        return value[0]

    def notes(self) -> list[str]:
        """How many rows have answers that are not learned."""
        if not self.noted[OTHERS]:
            return []
        rows = counted(self.noted[OTHERS], "row", "rows")
        return [
            _(
                "{name}: {rows} with several different answers, of which the first is "
                "learned, as of alternatives; if they are parts of one answer, write `is: "
                "list` for the column",
                name=self.column.name,
                rows=rows,
            )
        ]


ANSWER = CleanedType(
    "answer",
    {"description": _("text"), "type": "string"},
    is_text=True,
    is_cleaned=True,
    may_be_blank=True,
    has_answer=True,
    shapes=("question", "summary", "two texts"),
    leaf_types=("text", "texts"),
    reader=AnswerReader,
)
