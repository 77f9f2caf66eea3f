"""Kinds of columns (`is:` in a spec): one object each, in a file of this folder.

A kind says which values it takes, which outputs can hold it, how its values are read, and what it adds to a
record and to its registry entry. A new kind is a new file with a `Kind`, and its name in schemas/spec.json.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from tuneyard.core.errors import Problem
from tuneyard.core.plugins import bundled_with

if TYPE_CHECKING:
    from tuneyard.compiler.check.marks import TurnKeys
    from tuneyard.compiler.spec.model import Column, Spec

Values = list[object]
Clean = Callable[[Values], Values]
Schema = Mapping[str, Any]
ASKED, ANSWERED, MARK = "asked", "answered", "mark"


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """The columns of a spec (kind by name), and the outputs that hold them.

    `texts` if an output is plain text or a mixture, `answered` if a template writes an answer.
    """

    kinds: Mapping[str, str]
    texts: bool
    answered: bool
    formats: Collection[str]

    @property
    def has_turns(self) -> bool:
        """Whether a column has the turns of conversations."""
        return "turns" in self.kinds.values()


@dataclass(frozen=True, slots=True)
class FileContext:
    """One source file that is read by a spec, for the readers of its columns.

    `shown` is its path as in messages, `clean` makes the spec's changes to texts, `warn` takes warnings.
    `sources` maps columns to source columns as they are found, `keys_of` says what the spec does with the
    keys of the turns in a column.
    """

    spec: "Spec"
    shown: str
    clean: Clean
    warn: Callable[[Problem], None]
    sources: Mapping[str, str]
    keys_of: "Callable[[Column], TurnKeys]"


class ColumnReader:
    """Reads the values of one column in one file. A kind overrides the steps that it needs."""

    reads_each = False
    """Whether `read` turns each value into another one, or refuses it."""

    def __init__(self, column: "Column", file: FileContext) -> None:
        self.column = column
        self.file = file
        self.checks_rows = False

    def unfold(self, values: Values) -> Values:
        """Bring other spellings of values into the one that the schema describes."""
        return values

    def settle(self, values: Values) -> Values:
        """Bring the checked values of a batch into the form that rendering expects (without `reads_each`)."""
        return values

    def read(self, value: Any) -> object:
        """Read one checked value; `WrongValueError` says why it cannot be used."""
        return value

    def look_at(self, raw: Sequence[Any], values: Sequence[Any], place: Callable[[int], str]) -> None:
        """Warn of values that were read; `raw` are the same values before, `place` has the place of each."""

    def check_row(self, row: dict[str, Any], place: str) -> dict[str, object]:
        """Check a value against the rest of its row (with `checks_rows`); the columns that change.

        `WrongValueError` says why the row cannot be used.
        """
        del row, place
        return {}

    def notes(self) -> list[str]:
        """Notes for people on the whole file."""
        return []


@dataclass(frozen=True)
class Kind:
    """A kind of column, and its part in each step from a raw value to the entry of a dataset.

    - `schema`: the JSON Schema of a value. Messages show its description.
    - `default`: the value if the file lacks the column. `is_optional`: it may be missing without a default.
    - `code`: the problem of a value that cannot be read. `row_code`: of a value that does not fit its row.
    - `is_text`: values are texts once they are read. `is_cleaned`: `clean:` changes values before that.
    - `has_turns`: a value may be turns of a conversation.
    - `joins_turns`: values become part of the turns.
    - `part`: the key of the column in `columns` of a registry entry. Every record contains such a column.
    - `is_pair`: one of two answers, which LLaMA-Factory reads by `ranking: true`.
    - `compared`: how the lint compares rows by it, as `ASKED`, `ANSWERED` or a `MARK` of the answer.
    """

    name: str
    schema: Schema = field(repr=False)
    default: object = None
    is_optional: bool = False
    code: str = "E107"
    row_code: str = "E107"
    is_text: bool = False
    is_cleaned: bool = False
    has_turns: bool = False
    joins_turns: bool = False
    part: str = ""
    is_pair: bool = False
    compared: str = ""
    reader: type[ColumnReader] = ColumnReader

    @property
    def takes_lists(self) -> bool:
        """Whether a value may be a list, so that a message names the item that is wrong."""
        types = self.schema.get("type")
        return types == "array" or (isinstance(types, list) and "array" in types)

    def check(self, column: str, layout: RecordLayout) -> None:
        """Refuse a column of this kind if the outputs cannot hold it; `ValueError` says why."""
        if not self.part:
            return
        if layout.texts:
            raise ValueError(
                f"column {column}: neither a mixture nor a text for pretraining can contain {self.name}"
            )
        if "alpaca" in layout.formats and layout.has_turns:
            raise ValueError(
                f"column {column}: alpaca leaves out turns that {self.name} may refer to. "
                "Write sharegpt or messages."
            )

    def learned_answers(self, answers: list[int]) -> list[int]:
        """The turns that are learned beside a column of this kind, of all answers of a conversation."""
        return answers

    def recorded(self, values: Values, output_format: str) -> Values:
        """The values as a record of a format has them."""
        del output_format
        return values


@cache
def kinds() -> dict[str, Kind]:
    """All kinds by name, in the order of the files of this folder."""
    return {kind.name: kind for kind in bundled_with(__name__, Kind)}


def kind_of(name: str) -> Kind:
    """The kind of a name that schemas/spec.json allows."""
    return kinds()[name]


def check_kinds(layout: RecordLayout) -> None:
    """Refuse columns that the outputs of a spec cannot hold; `ValueError` names the first."""
    for column, kind in layout.kinds.items():
        kind_of(kind).check(column, layout)
