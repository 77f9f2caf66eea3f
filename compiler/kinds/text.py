"""Plain values: texts, answers, labels, ids, lists of texts, and any other value."""

from typing import cast

from tuneyard.compiler.kinds import ColumnReader, Kind, Values
from tuneyard.compiler.spec import ROW_NUMBER


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


_NOT_BLANK = {"description": "text", "type": "string", "pattern": "\\S"}
TEXT = Kind("text", _NOT_BLANK, is_text=True, is_cleaned=True)
ANSWER = Kind("answer", {"description": "text", "type": "string"}, is_text=True, is_cleaned=True)
EXTRA = Kind(
    "extra",
    {"description": "text or nothing", "type": ["string", "null"]},
    is_optional=True,
    is_text=True,
    is_cleaned=True,
    reader=ExtraReader,
)
LABEL = Kind("label", {"description": "one of the spec's labels"})
ID = Kind("id", {"description": "a whole number or text", "type": ["integer", "string"]}, default=ROW_NUMBER)
ANY = Kind("any", {"description": "a value that JSON can hold, numbers below 2^64"})
LIST = Kind(
    "list",
    {"description": "a list of texts", "type": "array", "items": {"type": "string"}},
    is_text=True,
    reader=ListReader,
)
