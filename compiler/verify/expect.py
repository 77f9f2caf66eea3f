"""The rows that LLaMA-Factory should make of a registered file, and the mistakes in the file's entry.

Naming `columns` (or `tags`) unsets each part that is not named, and LLaMA-Factory ignores keys that it does
not know (data/parser.py). core/records/__init__.py reads the records after the documented format, so that
LLaMA-Factory's own rows can be compared with them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tuneyard.compiler.read.dataset_reader import single_records
from tuneyard.core.datasets import (
    FORMATS,
    filled,
    is_input,
    left_out_texts,
    query_fix,
    unknown_keys,
)
from tuneyard.core.datasets.unread_keys import UNMAPPED_TEXT, UnreadKeys
from tuneyard.core.documents import BOM
from tuneyard.core.errors import ContentError, Problem, nearest, show_value, show_values
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files.bounded_reading import open_regular
from tuneyard.core.language.message import _, counted, joined, message_of
from tuneyard.core.records import (
    ALPACA,
    BARE,
    OPENAI_TAGS,
    PAIR,
    SHAREGPT_TAGS,
    Entry,
    Example,
    Record,
    RecordFormat,
    RecordReader,
    entry_fix,
)

MISSING_PART = ProblemCode(
    "E402", _("`columns` or `tags` lack a part"), _("Add it: otherwise every row is dropped.")
)
NO_SUCH_COLUMN = ProblemCode("E403", _("a column that no record has"), _("Write the key of the records."))
UNLOADABLE_VALUES = ProblemCode(
    "E404",
    _("a byte-order mark, or a column of two types"),
    _("Save the file without a mark; write one type."),
)
UNMAPPED_COLUMNS = ProblemCode(
    "E409",
    _("columns of the records that the entry lacks"),
    _("Map them under `columns`."),
    _("Input, system, history, tools, media or `kto_tag`."),
)


NOT_NEEDED = ("system_tag", "observation_tag", "function_tag")  # a record with such a message is E406
Records = Iterator[tuple[str, Record, Example | str]]
# Of Arrow; null goes with every type.
TYPES = {
    bool: _("truth values"),
    int: _("numbers"),
    float: _("numbers"),
    str: _("texts"),
    list: _("lists"),
    dict: _("objects"),
}
TEXT_KEYS = ("system", "tools")


def entry_problems(
    location: str, entry: Entry, record_format: RecordFormat, *, has_calls: bool = False
) -> Iterator[Problem]:
    """Report unknown keys of an entry (E401), and parts and tags that it leaves out (E402).

    `has_calls`: its records have `tool_calls`, which only `formatting: openai` reads.
    """
    yield from unknown_keys(location, entry, has_calls=has_calls)
    formatting = record_format.formatting
    if formatting not in FORMATS:
        return
    registry_keys = ["prompt" if formatting == "alpaca" else "messages"]
    if record_format.ranking:
        registry_keys += PAIR
    elif formatting == "alpaca":
        registry_keys.append("response")
    for registry_key in registry_keys:
        if registry_key not in record_format.columns:
            message = _(
                "{key!r} is not named: naming `columns` makes every part that is not named empty",
                key=registry_key,
            )
            yield Problem(
                MISSING_PART, location, message, "columns", _("add {key!r}: its column", key=registry_key)
            )
    if formatting == "alpaca":
        return
    for tag, usual in SHAREGPT_TAGS.items():
        if record_format.tags.get("role_tag") == OPENAI_TAGS["role_tag"]:
            usual = OPENAI_TAGS[tag]
        if tag not in NOT_NEEDED and tag not in record_format.tags:
            message = _("{tag!r} is not named: naming `tags` makes every tag that is not named None", tag=tag)
            yield Problem(
                MISSING_PART, location, message, "tags", _("add {tag!r}: {usual!r}", tag=tag, usual=usual)
            )


def column_problems(
    location: str, record_format: RecordFormat, keys: set[str], fix: str = ""
) -> Iterator[Problem]:
    """Report the columns that an entry names and no record has (E403). `keys` are those of all records.

    `fix` is the `entry_fix` of the first of them.
    """
    registry_keys = {"messages", *TEXT_KEYS}
    if record_format.formatting == "alpaca":
        registry_keys = {*ALPACA, "history", *TEXT_KEYS}
    for registry_key, column in record_format.columns.items():
        if registry_key in registry_keys and column not in keys:
            columns = show_values(sorted(keys)) or _("no columns")
            message = _(
                "no record has {column} (found: {columns})", column=show_value(column), columns=columns
            )
            yield Problem(
                NO_SUCH_COLUMN,
                location,
                message,
                f"columns.{registry_key}",
                nearest(column, keys, fix or _("name a column of the records")),
            )


@dataclass
class _LeftOut:
    """A column that the entry does not name: its first record, and how many have it."""

    location: str
    row: int
    records: int = 0


@dataclass
class Expected:
    """Reads a file record by record. Notes why the loader would fail on a whole file.

    `count` is the number of records read so far. `problems` are each with the number of its record, if any.
    `unread_keys` counts the keys of records and messages that the loader does not read.
    """

    path: Path
    format: RecordFormat
    mask_history: bool = False
    count: int = 0
    fix: str = ""  # of the entry, by the first record
    keys: set[str] = field(default_factory=set)
    problems: list[tuple[Problem, int | None]] = field(default_factory=list)
    _left_out: "dict[str, _LeftOut]" = field(default_factory=dict)
    _types: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin the count of unread keys."""
        self.unread_keys = UnreadKeys(self.path, self.format, mask_history=self.mask_history)

    def records(self) -> Records:
        """Yield location, the raw record, and its example or the reason for its loss.

        `ProblemsError` if the file cannot be read to its end; its problems have their locations.
        """
        reader = RecordReader(self.format)
        with open_regular(self.path) as file:
            has_mark = file.read(3) == BOM
        if has_mark:
            message = _("begins with a byte-order mark, which LLaMA-Factory's loader takes for broken JSON")
            problem = Problem(UNLOADABLE_VALUES, f"{self.path}:1", message, hint=_("save it without one"))
            self.problems.append((problem, None))
        for location, record in single_records(self.path, str(self.path)):
            if not self.count:
                self.fix = entry_fix(record)
            self._note(record, location)
            self._find_left_out(record, location)
            self.unread_keys.note(record, location, self.count)
            yield location, record, example_or_loss(reader, record)
            self.count += 1
        self.problems += self._left_out_problems()
        for key in self.unread_keys.problems(self.count):
            self.problems.append((Problem(key.code, key.place, key.message, key.name, key.fix), key.row))

    def _left_out_problems(self) -> Iterator[tuple[Problem, int]]:
        """One problem for each part that the entry does not name, one for all inputs, one for other texts."""
        inputs: list[str] = []
        texts: list[str] = []
        for name in self._left_out:
            if name in BARE:
                fix = _(
                    'add "{name}": "{name}" to the entry\'s `columns`, or take it out of the file', name=name
                )
                yield self._left_out_columns(UNMAPPED_COLUMNS, [name], fix)
            elif is_input(name):
                inputs.append(name)
            else:
                texts.append(name)
        if inputs:
            yield self._left_out_columns(
                UNMAPPED_COLUMNS, inputs, _("{fix}, or take it out of the file", fix=query_fix(inputs))
            )
        if texts:
            yield self._left_out_columns(
                UNMAPPED_TEXT, texts, _("if the prompt needs it, {hint}", hint=query_fix(texts))
            )

    def _left_out_columns(self, code: str, names: list[str], fix: str) -> tuple[Problem, int]:
        """The problem of several columns, at the first record of the first of them."""
        shares = []
        for name in names:
            records = counted(self._left_out[name].records, "record", "records")
            shares.append(_("{name!r} is filled in {records}", name=name, records=records))
        first = self._left_out[names[0]]
        message = _(
            "{columns}, and the entry does not name it: LLaMA-Factory leaves it out",
            columns=joined(shares, _(" and ")),
        )
        return Problem(code, first.location, message, ", ".join(names), fix), first.row

    def _find_left_out(self, record: Record, location: str) -> None:
        """Count the records with a part or an input that LLaMA-Factory reads only if the entry names it."""
        if self.format.text_only:
            return
        columns = self.format.columns
        names = left_out_texts(record, columns, self.format.formatting)
        for name in BARE:
            if name in record and name not in columns.values() and filled([record[name]]):
                names.append(name)
        for name in names:
            self._left_out.setdefault(name, _LeftOut(location, self.count)).records += 1

    def _note(self, record: Record, location: str) -> None:
        """Remember keys and types: one number among texts makes the loader refuse the whole file."""
        for key, value in record.items():
            self.keys.add(key)
            type_name = TYPES.get(type(value), "")
            if not type_name:
                continue
            first_type = self._types.setdefault(key, type_name)
            if type_name != first_type and not any(
                problem.field == key for problem, _unused in self.problems
            ):
                message = _(
                    "found {value} ({type_name}) in a column of {first_type}: the loader refuses the file",
                    value=show_value(value),
                    type_name=type_name,
                    first_type=first_type,
                )
                problem = Problem(
                    UNLOADABLE_VALUES,
                    location,
                    message,
                    key,
                    _("write it as {first_type}", first_type=first_type),
                )
                self.problems.append((problem, self.count))


def example_or_loss(reader: RecordReader, record: Record) -> Example | str:
    """Read a record. The reason if LLaMA-Factory loses it."""
    try:
        example = reader.read(record)
    except ContentError as error:
        return message_of(error)
    return example.fault or example
