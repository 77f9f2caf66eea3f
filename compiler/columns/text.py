"""Plain values: texts, ids, lists of texts, and any other value."""

from tuneyard.compiler.columns.json_values import writable
from tuneyard.compiler.spec.column_types import ColumnReader, ColumnType, Validator
from tuneyard.compiler.spec.model import ROW_NUMBER


class ExtraReader(ColumnReader):
    """Reads a text that may be missing."""

    def read(self, value: str | None) -> str:
        """Put an empty text in place of null."""
        return value or ""


class ListReader(ColumnReader):
    """Reads a list of texts as one text."""

    def read(self, value: list[str]) -> str:
        """Join the texts by line breaks."""
        return self.file.clean("\n".join(value))


class AnyType(ColumnType):
    """Any value that JSON can represent. A JSON Schema cannot express that."""

    def validators(self) -> tuple[Validator, Validator]:
        """Checks by writing the values as JSON."""
        return writable, writable


_NOT_BLANK = {"description": "text", "type": "string", "pattern": "\\S"}
TEXT = ColumnType(
    "text",
    _NOT_BLANK,
    is_text=True,
    is_cleaned=True,
    shapes=("plain text",),
    leaf_types=("text",),
)
EXTRA = ColumnType(
    "extra",
    {"description": "text or nothing", "type": ["string", "null"]},
    is_optional=True,
    is_text=True,
    is_cleaned=True,
    leaf_types=("text", "null"),
    reader=ExtraReader,
)
ID = ColumnType(
    "id",
    {"description": "a whole number or text", "type": ["integer", "string"]},
    default=ROW_NUMBER,
    is_id=True,
)
ANY = AnyType(
    "any",
    {"description": "a value that JSON can hold, numbers below 2^64"},
    may_be_blank=True,
    takes_objects=True,
)
LIST = ColumnType(
    "list",
    {"description": "a list of texts", "type": "array", "items": {"type": "string"}},
    may_be_blank=True,
    is_text=True,
    leaf_types=("texts",),
    reader=ListReader,
)
