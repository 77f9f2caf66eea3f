"""Plain values: texts, answers, labels, ids, lists of texts, and any other value."""

from typing import cast

from tuneyard.compiler.check.json_values import writable
from tuneyard.compiler.kinds import ColumnReader, FileContext, Kind, Validator, Values
from tuneyard.compiler.spec.model import ROW_NUMBER, Column
from tuneyard.core.errors import counted


class ExtraReader(ColumnReader):
    """Reads a text that may be missing."""

    def settle(self, values: Values) -> Values:
        """Put an empty text in place of null."""
        if None not in values:
            return values
        return ["" if value is None else value for value in values]


class ListReader(ColumnReader):
    """Reads a list of texts as one text."""

    def settle(self, values: Values) -> Values:
        """Join the texts by line breaks."""
        return self.file.clean(["\n".join(cast("list[str]", value)) for value in values])


class AnswerReader(ColumnReader):
    """Reads an answer. Of a list of accepted answers the first one is learned."""

    def __init__(self, column: Column, file: FileContext) -> None:
        super().__init__(column, file)
        self.rows_with_others = 0

    def unfold(self, values: Values) -> Values:
        """Take the first of the texts in a list."""
        if list not in set(map(type, values)):
            return values
        return [self._first(value) for value in values]

    def _first(self, value: object) -> object:
        if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
            return value
        if len(set(value)) > 1:
            self.rows_with_others += 1
        return value[0]

    def notes(self) -> list[str]:
        """How many rows have answers that are not learned."""
        if not self.rows_with_others:
            return []
        rows = counted(self.rows_with_others, "row")
        return [f"{self.column.name}: {rows} with several different answers, of which the first is learned"]


class AnyKind(Kind):
    """Any value that JSON can represent. A JSON Schema cannot express that."""

    def validators(self) -> tuple[Validator, Validator]:
        """Checks by writing the values as JSON."""
        return writable, writable


_NOT_BLANK = {"description": "text", "type": "string", "pattern": "\\S"}
TEXT = Kind("text", _NOT_BLANK, is_text=True, is_cleaned=True, is_usual=True, leaf_types=("text",))
ANSWER = Kind(
    "answer",
    {"description": "text", "type": "string"},
    is_text=True,
    is_cleaned=True,
    may_be_blank=True,
    leaf_types=("text", "texts"),
    reader=AnswerReader,
)
EXTRA = Kind(
    "extra",
    {"description": "text or nothing", "type": ["string", "null"]},
    is_optional=True,
    is_text=True,
    is_cleaned=True,
    leaf_types=("text", "null"),
    reader=ExtraReader,
)
LABEL = Kind("label", {"description": "one of the spec's labels"}, is_label=True, is_usual=True)
ID = Kind(
    "id",
    {"description": "a whole number or text", "type": ["integer", "string"]},
    default=ROW_NUMBER,
    is_id=True,
)
ANY = AnyKind("any", {"description": "a value that JSON can hold, numbers below 2^64"}, takes_objects=True)
LIST = Kind(
    "list",
    {"description": "a list of texts", "type": "array", "items": {"type": "string"}},
    is_text=True,
    leaf_types=("texts",),
    reader=ListReader,
)
