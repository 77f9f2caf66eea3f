"""Rows become checked columns: JSON Schema on every value, labels mapped, bad rows reported."""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import Any

from tuneyard.compiler.chat.forms import form_names
from tuneyard.compiler.chat.message_forms import SYSTEM
from tuneyard.compiler.check.cleaning import cleaner, wrapped
from tuneyard.compiler.check.label_keys import keys_of, label_keys
from tuneyard.compiler.check.plugin_columns import reader_of, refuse_unwritable
from tuneyard.compiler.check.source_columns import all_are_filled, is_filled, source_columns_in
from tuneyard.compiler.check.text_columns import fallback_columns
from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.columns.loss_flags import MessageKeys
from tuneyard.compiler.columns.turns import unread_keys
from tuneyard.compiler.rows import MISSING, Batch, Fields, Location, Rows, taken, together
from tuneyard.compiler.rows.problem_codes import MISSING_FIELD
from tuneyard.compiler.rows.problems import Problems, some_of
from tuneyard.compiler.spec.column_types import (
    CodedError,
    Column,
    ColumnReader,
    FileContext,
    Validator,
    Values,
)
from tuneyard.compiler.spec.model import ROW_NUMBER, UNLABELLED, Spec
from tuneyard.core.documents.schema_errors import violations
from tuneyard.core.errors import Problem, nearest, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, joined, ngettext
from tuneyard.core.records.calls import WrongValueError

MISSING_COLUMN = ProblemCode(
    "E101", _("a column that is not there"), _("Name the file's column by `--column TARGET=NAME`.")
)
NULL_VALUE = ProblemCode(
    "E103",
    _("null where a value is due"),
    _("Fill in the value, or delete the row."),
    _(
        "LLaMA-Factory silently drops a row with a null answer. In Excel a formula "
        "without a computed value, `#N/A` and merged cells look filled."
    ),
)
WRONG_TYPE = ProblemCode(
    "E105",
    _("a value of the wrong type"),
    _("Write text; in a spec, `is: any` takes other types."),
)
BLANK_TEXT = ProblemCode("E106", _("text that is blank"), _("Fill in the text, or delete the row."))
Types = dict[str, str]
Reader = Callable[[Any], Any]
_TYPES: dict[type, str] = {bool: _("a truth value"), int: _("a number"), float: _("a number")}
_TYPES |= {list: _("a list"), dict: _("an object"), str: _("text")}
NO_SOURCES: Mapping[str, str] = {}


class LateColumnError(Exception):
    """Later rows have `sources`, columns that decide what the earlier rows are that lack them.

    The file is read again: a row without a column is wrong if another row has it, and right if none has it.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        super().__init__(sources)
        self.sources = sources


class TextIdError(Exception):
    """An id is text, and the ids before it were numbers. They are read again, as text."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


class Checker:
    """Checks the rows of one file against a spec, and counts bad rows and rows without a label."""

    def __init__(
        self,
        spec: Spec,
        display_path: str,
        problems: Problems,
        unused: Unused,
        types: Types,
        start: int = 0,
        late: Mapping[str, str] = NO_SOURCES,
    ) -> None:
        """`types` are the types of kept columns in earlier rows, also of other files of the split.

        `start` is the number of the first row (from 0). `late` are the source columns, by target column, that
        only later rows of the file have (`LateColumnError`).
        """
        self.spec, self.display_path, self.problems, self.unused = spec, display_path, problems, unused
        self.fallback_columns = fallback_columns(spec)
        self.lost_in = spec.lost_in
        self.mapped = {*spec.used, *self.lost_in}
        self.sources: dict[str, str] = {}
        self.source_by_column = dict(late)
        self.absent: set[str] = set()
        self.rows_by_source: dict[str, Counter[str]] = {column.name: Counter() for column in spec.columns}
        self.lookup = label_keys(spec)
        self.file = FileContext(spec, display_path, cleaner(spec.clean), self.sources, [])
        self.readers = [reader_of(column, self.file) for column in spec.columns]
        self.kept = {name for output in spec.outputs for name in output.keep}
        self.types = types
        self.column_types = spec.types
        self.conversation_columns = [
            column.name for column in spec.columns if column.type.may_be_messages(column.options)
        ]
        self.valid = {name: column_type.validators() for name, column_type in self.column_types.items()}
        self.number = start
        self.bad = self.unlabelled = 0
        self.failed = False

    def check(self, rows: Rows) -> Batch | None:
        """Validate a batch, and return its good rows as columns. None if a required column is missing.

        Rows that take a column from other names are checked apart, and come back in their order.
        `LateColumnError` if earlier rows must be checked again, with a column that they lack.
        """
        groups = self._groups(rows)
        if self.failed:
            return None
        if len(groups) == 1:
            ((sources, numbers),) = groups
            batch = self._check_group(rows, sources, numbers)
        else:
            batch = together(
                rows,
                [self._check_group(taken(rows, numbers), sources, numbers) for sources, numbers in groups],
            )
        self.number += len(rows.lines)
        return batch

    def _check_group(self, rows: Rows, sources: Mapping[str, str], numbers: Sequence[int]) -> Batch:
        """Validate rows with the same source columns. `numbers` are those of the rows in their batch."""
        self.sources.clear()
        self.sources.update(sources)
        mapped_sources = {source for name, source in self.sources.items() if name in self.mapped}
        mapped_sources.update(self.spec.source.turns.values())
        self.unused.note(self.spec, rows, mapped_sources)
        self.unused.note_lost(self.spec, rows, self.sources, self.lost_in)
        columns = {reader.column.name: self._values(reader, rows, numbers) for reader in self.readers}
        self._count_inside_messages(columns)
        batch = Batch(rows.prefix, rows.lines, columns)
        wrong = {name: self._wrong(name, values) for name, values in columns.items()}
        for name, other in self.fallback_columns.items():
            values, other_values = columns[name], columns[other]
            wrong[name] = [row for row in wrong[name] if values[row] != "" or not other_values[row]]
        if rows.empty_cells:
            for name, source in self.sources.items():
                empty = [n for n, line in enumerate(rows.lines) if (line, source) in rows.empty_cells]
                wrong[name] = sorted({*wrong[name], *empty})
        if any(wrong.values()):
            batch = batch.keep(self._sort_out(rows, columns, wrong))
        for reader in self.readers:
            batch = self._shape(reader, batch, rows)
        for reader in self.readers:
            if reader.checks_rows:
                batch = self._check_rows(reader, batch, rows)
        for column in self.spec.columns:
            if column.type.plugin is not None:
                refuse_unwritable(column, column.type.plugin, batch)
        return self._label(batch) if self.lookup else batch

    def _count_inside_messages(self, columns: dict[str, Values]) -> None:
        """Count the keys of messages that reading leaves out, once for each source column."""
        conversations_by_source = {
            self.sources[name]: columns[name] for name in self.conversation_columns if name in self.sources
        }
        for source, conversations in conversations_by_source.items():
            counts = Counter(chain.from_iterable(map(unread_keys, conversations)))
            keys = MessageKeys(self.spec, source)
            for key, rows in sorted(counts.items()):
                self.unused.add(f"{source}.{key}", rows, ignored=keys.is_ignored(key))

    def notes(self) -> list[str]:
        """Notes for people: the source column of each target column that accepts several, and missing ones.

        A missing system text is not worth a note: most files have none.
        """
        used = []
        missing = []
        mixed = []
        for column in self.spec.columns:
            if len(column.names) == 1 or column.type.is_id():
                continue
            counts = self.rows_by_source[column.name]
            source = max(counts, key=lambda name: bool(counts[name]), default=None)
            if len(+counts) > 1:
                columns = [
                    _(
                        "column {name} ({number} of {total})",
                        name=show_value(name),
                        number=number,
                        total=counts.total(),
                    )
                    for name, number in (+counts).items()
                ]
                mixed.append(
                    _("using {columns} as {name}", columns=joined(columns, _(" and ")), name=column.name)
                )
            elif source is None:
                if self.spec.is_generic and column.name != SYSTEM:
                    missing.append(column.name)
            elif self.spec.is_generic or source not in (column.name, column.names[0]):
                used.append(_("column {source} as {name}", source=show_value(source), name=column.name))
        lines: list[str] = []
        if used and missing:
            lines.append(
                _("using {columns}, no column for {missing}", columns=joined(used), missing=joined(missing))
            )
        elif used:
            lines.append(_("using {columns}", columns=joined(used)))
        lines += mixed
        for reader in self.readers:
            lines += reader.notes()
        return [_("{path}: {line}", path=self.display_path, line=line) for line in dict.fromkeys(lines)]

    def _shape(self, reader: ColumnReader, batch: Batch, rows: Rows) -> Batch:
        """Bring the values of a column that passed the check into the form that rendering expects."""
        column = reader.column
        values = batch.columns[column.name]
        if reader.read:
            code, field = column.type.code, self._field(column.name)
            batch, values = self._read_each(batch, rows, values, reader.read, code, field)
        if column.wrap != "{}" and column.type.is_text:
            values = wrapped(column.wrap, values)
        batch.columns[column.name] = values
        return batch

    def _read_each(
        self, batch: Batch, rows: Rows, values: Iterable[Any], read: Reader, code: str, field: str = ""
    ) -> tuple[Batch, list[Any]]:
        """The rows whose values can be read, and these values once read. Any other row is recorded as bad."""
        read_values, good = [], []
        for number, value in enumerate(values):
            try:
                read_values.append(read(value))
                good.append(number)
            except WrongValueError as error:
                error_code, fix = code, ""
                if isinstance(error, CodedError):
                    error_code, fix = error.code, error.fix
                location = batch.location(number)
                wrong = [Problem(error_code, location, message, field, fix) for message in error.args]
                self._refuse(batch, rows, number, wrong)
            for warning, message, fix in self.file.warnings:
                self.problems.warn(Problem(warning, batch.location(number), message, "", fix))
            self.file.warnings.clear()
        if len(good) < len(batch):
            batch = batch.keep(good)
        return batch, read_values

    def _check_rows(self, reader: ColumnReader, batch: Batch, rows: Rows) -> Batch:
        """Check a column against the rest of each row, and change the row by it. Refused rows are bad."""

        def check(row: Fields) -> Fields:
            return row | reader.check_row(row)

        names = list(batch.columns)
        each = zip(*batch.columns.values(), strict=True)
        row_values = (dict(zip(names, values, strict=True)) for values in each)
        batch, changed = self._read_each(batch, rows, row_values, check, reader.column.type.code)
        for name in names:
            batch.columns[name] = [row[name] for row in changed]
        return batch

    def _groups(self, rows: Rows) -> list[tuple[Mapping[str, str], Sequence[int]]]:
        """The numbers of the rows that have the same source columns, with these by target column.

        Records the error (E101) for a required column that the batch lacks, and the file before it.
        """
        names = rows.names()
        sources: dict[str, str] = {}
        sources_of_rows: dict[str, list[str | None]] = {}
        missing = []
        for column in self.spec.columns:
            filled_sources = source_columns_in(column, names, rows)
            if filled_sources:
                chosen = self._chosen(column, filled_sources, rows)
                if isinstance(chosen, str):
                    sources[column.name] = chosen
                else:
                    sources_of_rows[column.name] = chosen
            elif column.required or column.type.is_id():
                if column.name in self.source_by_column:
                    sources[column.name] = self.source_by_column[column.name]
                    continue
                self.absent.add(column.name)
                if column.required and not column.type.drops_rows_without_it():
                    missing.append(column)
        late = {name: source for name, source in self.source_by_column.items() if name in self.absent}
        if late:
            raise LateColumnError(late)
        if missing and not self.failed:
            self.failed = True
            self.problems.bad_file(self._missing_columns(missing, names, rows))
        if not sources_of_rows:
            return [(sources, range(len(rows.lines)))]
        groups: dict[tuple[str | None, ...], list[int]] = {}
        for number, each in enumerate(zip(*sources_of_rows.values(), strict=True)):
            groups.setdefault(each, []).append(number)
        return [
            (
                sources
                | {name: source for name, source in zip(sources_of_rows, each, strict=True) if source},
                numbers,
            )
            for each, numbers in groups.items()
        ]

    def _chosen(self, column: Column, filled_sources: Sequence[str], rows: Rows) -> str | list[str | None]:
        """The source of a column in all rows of a batch, or in each: the first that a row fills.

        A row that fills none takes the first that it has. Next to messages a row may have none.
        """
        self.source_by_column.setdefault(column.name, filled_sources[0])
        counts = self.rows_by_source[column.name]
        if len(filled_sources) == 1:
            source = filled_sources[0]
            values = rows.column(source)
            count = len(values)
            if not column.required and len(column.names) > 1:
                count = sum(map(is_filled, values))
            counts[source] += count
            if column.type.joins_conversation() and any(value is MISSING for value in values):
                return [None if value is MISSING else source for value in values]
            return source
        values_of_sources = [rows.column(source) for source in filled_sources]
        if all_are_filled(values_of_sources[0]):
            counts[filled_sources[0]] += len(rows.lines)
            return filled_sources[0]
        chosen: list[str | None] = []
        for values_of_row in zip(*values_of_sources, strict=True):
            source = next(
                (
                    source
                    for source, value in zip(filled_sources, values_of_row, strict=True)
                    if is_filled(value)
                ),
                "",
            )
            if source:
                counts[source] += 1
            else:
                present = zip(filled_sources, values_of_row, strict=True)
                source = next(
                    (source for source, value in present if value is not MISSING), filled_sources[0]
                )
                counts[source] += 0
            chosen.append(source)
        first = chosen[0]
        if first is not None and chosen.count(first) == len(chosen):
            return first
        return chosen

    def _missing_columns(self, columns: list[Column], names: list[str], rows: Rows) -> Problem:
        """E101 for required columns that the file lacks."""
        accepted = [column.names for column in columns]
        alternatives = [joined(map(show_value, names), _(" or ")) for names in accepted]
        expected = joined(alternatives, _(", and "))
        listed = some_of(tuple(names), accepted[0][0]) or _("none at all")
        fix: str = _("`tuneyard data init FILE` proposes a spec for this file")
        forms = form_names(map(rows.row, range(len(rows.lines))))
        if forms:
            command = f"tuneyard data init {shlex.quote(self.display_path)}"
            fix = _(
                "`{command}` proposes a spec for this export (`source: {{form: {forms}}}`)",
                command=command,
                forms=joined(forms, _(" or ")),
            )
        for column in columns:
            near = nearest(column.name, names)
            if near:
                fix = _("{hint} --column {column}=NAME says which it is", hint=near, column=column.name)
                break
        line = rows.lines[0] if rows.typed else 1
        message = ngettext(
            "no such column: found {names}, expected {expected}",
            "no such columns: found {names}, expected {expected}",
            len(columns),
            names=listed,
            expected=expected,
        )
        field = ", ".join(column.name for column in columns)
        return Problem(MISSING_COLUMN, Location(rows.prefix, line), message, field, fix)

    def _values(self, reader: ColumnReader, rows: Rows, numbers: Sequence[int]) -> Values:
        column = reader.column
        source = self.sources.get(column.name)
        if source is None and column.default == ROW_NUMBER:
            return [self.number + number for number in numbers]
        if source is None:
            default = "" if column.default is None else column.default
            return [default] * len(rows.lines)
        values = reader.unfold(rows.column(source))
        column_type = column.type
        if column_type.is_cleaned and self.spec.clean:
            values = [self.file.clean(value) if isinstance(value, str) else value for value in values]
        if not column.required and not column_type.is_id():
            values = [column.default if value is MISSING else value for value in values]
        if not rows.typed:
            values = column_type.from_cells(values, self.types.get(column.name))
        return values

    def _wrong(self, name: str, values: Values) -> Sequence[int]:
        """The numbers of the values that the schema refuses. If all are right, a single call shows it."""
        if name == "label" and self.lookup:
            if name not in self.sources:
                return ()
            keys = keys_of(values)
            unknown = set(keys) - self.lookup.keys()
            return [number for number, key in enumerate(keys) if key in unknown] if unknown else ()
        refused_types = (type(MISSING), *self.column_types[name].refused_types)
        types = set(map(type, values))
        is_valid, all_are_valid = self.valid[name]
        if types.isdisjoint(refused_types) and _holds(all_are_valid, values):
            return ()
        return [
            number
            for number, value in enumerate(values)
            if not _holds(is_valid, value) or isinstance(value, refused_types)
        ]

    def _ids_of_one_type(self, batch: Batch) -> None:
        """Write the ids of a split as numbers if all are numbers, otherwise all as text.

        `TextIdError` if earlier ids were written as numbers.
        """
        for column in self.spec.columns:
            values = batch.columns[column.name]
            if not column.type.is_id() or not values:
                continue
            before = self.types.get(column.name)
            if before != _TYPES[str] and set(map(type, values)) == {int}:
                self.types[column.name] = _TYPES[int]
                continue
            if before == _TYPES[int]:
                raise TextIdError(column.name)
            self.types[column.name] = _TYPES[str]
            batch.columns[column.name] = list(map(str, values))

    def of_one_type(self, batch: Batch, rows: Rows) -> Batch:
        """Refuse rows with a kept value of another type than before: a dataset's column has one type.

        The type of a column is that of its first row that nothing else refuses or drops. Ids are numbers only
        if all are.
        """
        self._ids_of_one_type(batch)
        names = [name for name in batch.columns if name in self.kept and not self.column_types[name].is_id()]
        types_of_rows = list(zip(*(map(type, batch.columns[name]) for name in names), strict=True))
        changed = {}
        for types in dict.fromkeys(types_of_rows):
            type_by_name = {
                name: _type(of) for name, of in zip(names, types, strict=True) if of is not NoneType
            }
            changed[types] = [name for name, of in type_by_name.items() if of != self.types.get(name, of)]
            if not changed[types]:
                self.types.update(type_by_name)
        if not any(changed.values()):
            return batch
        good = []
        for number, types in enumerate(types_of_rows):
            if changed[types]:
                wrong = [self._changed(name, batch, number, rows) for name in changed[types]]
                self._refuse(batch, rows, number, wrong)
            else:
                good.append(number)
        return batch.keep(good)

    def _changed(self, name: str, batch: Batch, number: int, rows: Rows) -> Problem:
        """E105 for a kept value of another type than before."""
        value = batch.columns[name][number]
        value_and_type = _("found {value} ({type})", value=show_value(value), type=_type(type(value)))
        message = _(
            "{finding}, expected {types} as in the rows before",
            finding=value_and_type,
            types=self.types[name],
        )
        in_table = _("in a spec, `is: extra` keeps all of them as text")
        fix = _("write all of them as text") if rows.typed else in_table
        return Problem(WRONG_TYPE, batch.location(number), message, self._field(name), fix)

    def _refuse(self, batch: Batch, rows: Rows, number: int, wrong: Sequence[Problem]) -> None:
        """Record a row of a batch as bad."""
        self.problems.bad_row(wrong, rows.row(rows.lines.index(batch.lines[number])))
        self.bad += 1

    def _sort_out(self, rows: Rows, columns: dict[str, Values], wrong: dict[str, Sequence[int]]) -> list[int]:
        """Record the rows with wrong values. Returns the numbers of the other rows."""
        fields: dict[int, list[str]] = {}
        for name, numbers in wrong.items():
            for number in numbers:
                fields.setdefault(number, []).append(name)
        for number, names in sorted(fields.items()):
            location = rows.location(number)
            wrong_values = [
                self._explain(name, columns[name][number], location, rows, number) for name in names
            ]
            self.problems.bad_row(wrong_values, rows.row(number))
        self.bad += len(fields)
        return [number for number in range(len(rows.lines)) if number not in fields]

    def _explain(self, name: str, value: object, location: str, rows: Rows, number: int) -> Problem:
        column_type, field = self.column_types[name], self._field(name)
        empty_cell = rows.empty_cells.get((rows.lines[number], self.sources.get(name, "")))
        if empty_cell:
            message: str = _(
                "found {cause}, expected {expected}",
                cause=empty_cell.cause,
                expected=column_type.schema["description"],
            )
            return Problem(NULL_VALUE, location, message, field, empty_cell.fix)
        if value is MISSING:
            row = rows.row(number)
            keys = some_of(tuple(row), field.partition(" ")[0])
            return Problem(MISSING_FIELD, location, _("missing; the row has {keys}", keys=keys), field)
        problem = column_type.explain(value, location, field, self.file)
        if problem is not None:
            return problem
        schema = column_type.schema
        expected = schema["description"]
        if value is None:
            return Problem(
                NULL_VALUE, location, _("found null, expected {expected}", expected=expected), field
            )
        value_text = show_value(value)
        if isinstance(value, str) and not value.replace("\ufeff", "").strip():  # what \\S of JSON Schema is
            return Problem(
                BLANK_TEXT,
                location,
                _("found {value}, expected text that is not blank", value=value_text),
                field,
            )
        if isinstance(value, list) and "items" in schema:  # the message names the item
            wrong = next(violations(schema, value))
            return Problem(WRONG_TYPE, location, wrong.message, f"{field} {wrong.place}".rstrip())
        fix = column_type.fix_of(value, field)
        message = _(
            "found {value} ({type}), expected {expected}",
            value=value_text,
            type=_type(type(value)),
            expected=expected,
        )
        return Problem(WRONG_TYPE, location, message, field, fix)

    def _field(self, name: str) -> str:
        """The source column in messages, with the target column if it is called otherwise."""
        source = self.sources.get(name, name)
        if source == name:
            return name
        return f"{source} ({name})"

    def _label(self, batch: Batch) -> Batch:
        """Replace raw labels by the spec's. Rows without a gold label are dropped and counted."""
        if "label" not in self.sources:
            self.unlabelled += len(batch)
            return batch.keep(())
        labels = list(map(self.lookup.__getitem__, keys_of(batch.columns["label"])))
        batch.columns["label"] = labels
        if UNLABELLED not in labels:
            return batch
        kept = [number for number, label in enumerate(labels) if label != UNLABELLED]
        self.unlabelled += len(batch) - len(kept)
        return batch.keep(kept)


def _holds(valid: Validator, value: object) -> bool:
    """Ask a compiled validator. Values that JSON cannot represent (`MISSING`, dates, bytes) are not valid."""
    try:
        return valid(value)
    except ValueError:
        return False


def _type(of: type) -> str:
    return _TYPES.get(of, of.__name__)
