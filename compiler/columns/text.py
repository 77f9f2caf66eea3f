"""Plain values: texts, ids, lists of texts, and any other value."""

from tuneyard.compiler.columns.json_values import numbers_in, writable
from tuneyard.compiler.rows import are_objects
from tuneyard.compiler.spec.column_types import ColumnReader, ColumnType, Validator, Values
from tuneyard.compiler.spec.model import ROW_NUMBER
from tuneyard.core.language.message import _


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


class CleanedType(ColumnType):
    """Texts as the file has them, which `clean:` changes."""

    def fix_of(self, value: object, field: str) -> str:
        """The column type that reads a number, messages or a list."""
        del field
        if isinstance(value, int | float):
            return _("in a spec, `is: any` writes it as JSON has it, and `labels` maps it")
        if are_objects(value) and all(len(item) > 1 for item in value):
            return _("in a spec, `is: turns` reads turns")  # TRL's prompt
        if isinstance(value, list):
            return _("write a text in each row; in a spec, `is: list` joins the texts of a list")
        return ""


class IdType(ColumnType):
    """Identifies a row. JSON Schema takes 1.0 for an integer, and orjson reads 10**30 as 1e30."""

    refused_types = (float,)

    def is_usual_for(self, column: str, *, has_labels: bool) -> bool:
        """True for the column `idx`."""
        del has_labels
        return column == "idx"

    def is_id(self) -> bool:
        """Ids of a split are all numbers, or all texts."""
        return True

    def is_always_used(self) -> bool:
        """Duplicate ids are found, whatever the records contain."""
        return True

    def from_cells(self, values: Values, type_before: str | None) -> Values:
        """Text cells that are whole numbers become numbers."""
        return numbers_in(values, type_before)

    def fix_of(self, value: object, field: str) -> str:
        """The whole number, and how pandas writes it."""
        if isinstance(value, float) and value.is_integer():
            return _(
                "write it as {value} (pandas: df[{column!r}].astype('Int64'))",
                value=int(value),
                column=field.partition(" ")[0],
            )
        return ""


class AnyType(ColumnType):
    """Any value that JSON can represent. A JSON Schema cannot express that."""

    def validators(self) -> tuple[Validator, Validator]:
        """Checks by writing the values as JSON."""
        return writable, writable


_NOT_BLANK = {"description": _("text"), "type": "string", "pattern": "\\S"}
TEXT = CleanedType(
    "text",
    _NOT_BLANK,
    is_text=True,
    is_cleaned=True,
    shapes=("plain text",),
    leaf_types=("text",),
)
EXTRA = CleanedType(
    "extra",
    {"description": _("text or nothing"), "type": ["string", "null"]},
    is_optional=True,
    is_text=True,
    is_cleaned=True,
    leaf_types=("text", "null"),
    reader=ExtraReader,
)
ID = IdType(
    "id",
    {"description": _("a whole number or text"), "type": ["integer", "string"]},
    default=ROW_NUMBER,
)
ANY = AnyType(
    "any",
    {"description": _("a value that JSON can hold, numbers below 2^64")},
    may_be_blank=True,
    takes_objects=True,
)
LIST = ColumnType(
    "list",
    {"description": _("a list of texts"), "type": "array", "items": {"type": "string"}},
    may_be_blank=True,
    is_text=True,
    leaf_types=("texts",),
    reader=ListReader,
)
