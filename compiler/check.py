"""Rows as read become checked columns: JSON Schema on every value, labels mapped, bad rows told apart."""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, cast

import orjson

from compiler.clean import cleaner, wrapped
from compiler.problems import Problems
from compiler.rows import MISSING, Batch, Rows
from compiler.spec import ROW_NUMBER, UNLABELLED, Column, Spec
from compiler.specfile import read_schema
from compiler.turns import WrongValueError, best_of, read_turns
from core.errors import Problem, nearest, show_value

Values = list[object]
Validator = Callable[[object], bool]
CLEANED = ("text", "answer", "extra")
NESTED = ("list", "turns", "best")
EXPECTED = {
    "text": "text",
    "answer": "text",
    "extra": "text or nothing",
    "any": "a value that JSON can hold",
    "id": "a whole number or text",
    "list": "a list of texts",
    "turns": "a list of turns",
    "best": "a list of objects",
}


class Checker:
    """Checks the rows of one file against a spec; counts what it reads and drops."""

    def __init__(self, spec: Spec, problems: Problems, overrides: dict[str, str], start: int = 0) -> None:
        self.spec = spec
        self.problems = problems
        self.overrides = overrides
        self.theirs: dict[str, str] = {}
        self.lookup = _labels(spec)
        self.clean = cleaner(spec.clean)
        self.ids = [column.name for column in spec.columns if column.kind == "id"]
        self.valid: dict[str, Validator] = {}
        self.all_valid: dict[str, Validator] = {}
        for column in spec.columns:
            self.valid[column.name], self.all_valid[column.name] = _validators(column, self.lookup)
        self.number = start
        self.bad = 0
        self.unlabelled = 0
        self.failed = False

    def check(self, rows: Rows) -> Batch | None:
        """Return the good rows as columns, or None where the file lacks a column that is needed."""
        if not self._resolve(rows):
            return None
        columns = {column.name: self._values(column, rows) for column in self.spec.columns}
        batch = Batch(rows.prefix, rows.lines, columns)
        wrong = {name: self._wrong(name, values) for name, values in columns.items()}
        if any(wrong.values()):
            batch = batch.keep(self._sort_out(rows, columns, wrong))
        self.number += len(rows.lines)
        for column in self.spec.columns:
            batch = self._shape(column, batch, rows)
        self.problems.settle()
        return self._label(batch) if self.lookup else batch

    def notes(self, shown: str) -> list[str]:
        """Return, for people, which columns were taken of those that go by several names.

        For a source that the spec names, only those that are neither ours nor the first we look for.
        """
        several = [column for column in self.spec.columns if len(column.names) > 1 and column.kind != "id"]
        taken = [column for column in several if self._worth_a_note(column)]
        none = [column.name for column in several if self.spec.anyones and column.name not in self.theirs]
        parts = [f"took {', '.join(f'{c.name} = {self.theirs[c.name]}' for c in taken)}"] if taken else []
        parts += [f"found none for {', '.join(none)}"] if taken and none else []
        return [f"{shown}: {', '.join(parts)}"] if parts else []

    def _worth_a_note(self, column: Column) -> bool:
        theirs = self.theirs.get(column.name)
        usual = () if self.spec.anyones else (column.name, column.names[0])
        return theirs is not None and theirs not in usual

    def _shape(self, column: Column, batch: Batch, rows: Rows) -> Batch:
        """Bring the values of a column that passed into the one form that rendering knows."""
        values = batch.columns[column.name]
        if column.kind == "turns":
            return self._reread(column, batch, rows, read_turns)
        if column.kind == "best":
            return self._reread(column, batch, rows, partial(best_of, column))
        if column.kind == "list":
            values = ["\n".join(cast("list[str]", value)) for value in values]
        elif column.kind == "extra" and None in values:
            values = ["" if value is None else value for value in values]
        batch.columns[column.name] = wrapped(column.wrap, values)
        return batch

    def _reread(self, column: Column, batch: Batch, rows: Rows, reader: Callable[[Any], object]) -> Batch:
        """Read each value of a nested column; what its reader refuses is a bad row."""
        read: Values = []
        good = []
        numbers = {line: number for number, line in enumerate(rows.lines)}
        for number, value in enumerate(batch.columns[column.name]):
            try:
                read.append(reader(value))
                good.append(number)
            except WrongValueError as error:
                problem = Problem("E107", batch.place(number), str(error), self._field(column.name))
                self.problems.bad_row([problem], rows.row(numbers[batch.lines[number]]))
                self.bad += 1
        batch = batch.keep(good) if len(good) < len(batch) else batch
        batch.columns[column.name] = read
        return batch

    def _resolve(self, rows: Rows) -> bool:
        """Find the columns that are not found yet by the names they go by; False if one is missing."""
        absent = [column for column in self.spec.columns if column.name not in self.theirs]
        names = rows.names() if absent else []
        for column in absent:
            theirs = self._find(column, names, rows)
            if theirs is not None:
                self.theirs[column.name] = theirs
            elif column.required and column.kind != "label":
                self.failed = True
                accepted = " or ".join(map(show_value, self._accepted(column)))
                hint = _way_out(column.name, names, rows.typed)
                place = f"{rows.prefix}{rows.lines[0] if rows.typed else 1}"
                found = ", ".join(map(show_value, names)) or "none at all"
                message = f"no such column: found {found}, expected {accepted}"
                self.problems.bad_file(Problem("E101", place, message, column.name, hint))
        return not self.failed

    def _accepted(self, column: Column) -> tuple[str, ...]:
        override = self.overrides.get(column.name)
        return (override,) if override else column.names

    def _find(self, column: Column, names: list[str], rows: Rows) -> str | None:
        lower = {name.lower(): name for name in reversed(names)}
        accepted = self._accepted(column)
        for name in accepted:
            if name in names or ("." in name and any(v is not MISSING for v in rows.column(name))):
                return name
        return next((lower[name.lower()] for name in accepted if name.lower() in lower), None)

    def _values(self, column: Column, rows: Rows) -> Values:
        theirs = self.theirs.get(column.name)
        if theirs is None:
            return self._absent(column, len(rows.lines))
        values = self.clean(rows.column(theirs)) if column.kind in CLEANED else rows.column(theirs)
        if not column.required and column.kind != "id":
            values = [column.default if value is MISSING else value for value in values]
        if column.kind == "id" and not rows.typed:
            return _numbers(values)
        return values

    def _absent(self, column: Column, count: int) -> Values:
        if column.default == ROW_NUMBER:
            return list(range(self.number, self.number + count))
        if column.kind == "label":
            return [MISSING] * count
        return ["" if column.default is None else column.default] * count

    def _wrong(self, name: str, values: Values) -> Sequence[int]:
        """Return the numbers of the values that the column's schema refuses.

        One call of the compiled validator is enough for a whole column in which nothing is wrong.
        """
        if name == "label" and name not in self.theirs:
            return ()
        kinds = set(map(type, values))
        whole = kinds.isdisjoint((type(MISSING), float) if name in self.ids else (type(MISSING),))
        # 1.0 and true equal 1: only where there are none of them does a set hold every label
        distinct = list(set(values)) if name == "label" and kinds <= {int, str} else values
        if whole and _holds(self.all_valid[name], distinct):
            return ()
        valid = self.valid[name]
        if distinct is not values:
            refused = {value for value in distinct if not _holds(valid, value)}
            return [n for n, value in enumerate(values) if value in refused]
        return [n for n, value in enumerate(values) if not _holds(valid, value) or self._rounded(name, value)]

    def _rounded(self, name: str, value: object) -> bool:
        """Whether an id is no whole number: JSON Schema takes 1.0 for one, orjson reads 10**30 as 1e30."""
        return name in self.ids and isinstance(value, float)

    def _sort_out(self, rows: Rows, columns: dict[str, Values], wrong: dict[str, Sequence[int]]) -> list[int]:
        """Record the rows in which something is wrong; return the numbers of the others."""
        fields: dict[int, list[str]] = {}
        for name, numbers in wrong.items():
            for number in numbers:
                fields.setdefault(number, []).append(name)
        for number, names in sorted(fields.items()):
            place = f"{rows.prefix}{rows.lines[number]}"
            found = [self._explain(name, columns[name][number], place, rows, number) for name in names]
            self.problems.bad_row(found, rows.row(number))
        self.bad += len(fields)
        return [number for number in range(len(rows.lines)) if number not in fields]

    def _explain(self, name: str, value: object, place: str, rows: Rows, number: int) -> Problem:
        kind = next(column.kind for column in self.spec.columns if column.name == name)
        field = self._field(name)
        expected = EXPECTED.get(kind, "")
        if value is MISSING:
            row = rows.row(number)
            keys = ", ".join(map(show_value, row)) if isinstance(row, dict) else ""
            return Problem("E102", place, f"missing; the row has {keys}", field)
        if kind == "label":
            options = tuple(dict.fromkeys(str(raw) for raw in self.lookup))
            near = _nearest(value, options) if isinstance(value, str) else ""
            message = f"found {show_value(value)}, expected one of {', '.join(options)}"
            return Problem("E104", place, message, field, near)
        if value is None:
            return Problem("E103", place, f"found null, expected {expected}", field)
        found = show_value(value)
        if isinstance(value, str) and not value.replace("\ufeff", "").strip():  # what \\S of JSON Schema is
            return Problem("E106", place, f"found {found}, expected text that is not blank", field)
        if isinstance(value, list) and kind in NESTED:
            where, what = _inside(kind, value)
            return Problem("E105", place, what, f"{field} {where}".rstrip())
        return Problem("E105", place, f"found {found} ({_type(value)}), expected {expected}", field)

    def _field(self, name: str) -> str:
        theirs = self.theirs[name]
        return theirs if theirs == name else f"{theirs} ({name})"

    def _label(self, batch: Batch) -> Batch:
        """Map labels to what we write; rows without a gold label are dropped and counted."""
        if "label" not in self.theirs:
            self.unlabelled += len(batch)
            return batch.keep(())
        labels = list(map(self.lookup.__getitem__, batch.columns["label"]))
        batch.columns["label"] = labels
        if UNLABELLED not in labels:
            return batch
        kept = [number for number, label in enumerate(labels) if label != UNLABELLED]
        self.unlabelled += len(batch) - len(kept)
        return batch.keep(kept)


def _way_out(name: str, names: list[str], typed: bool) -> str:
    """Return what to do about a column that is not there: a header of one field has another delimiter."""
    sign = next((sign for sign in ";\t|," if not typed and len(names) == 1 and sign in names[0]), None)
    if sign:
        return f"name the delimiter in a spec under `source:`: `delimiter: {show_value(sign)}`"
    near = nearest(name, names)
    return f"{near} --column {name}=NAME says which it is" if near else ""


def _holds(valid: Validator, value: object) -> bool:
    """Ask a compiled validator; what JSON has no word for (`MISSING`, a date, bytes) is not valid."""
    try:
        return valid(value)
    except ValueError:
        return False


def _labels(spec: Spec) -> dict[object, object]:
    """Return raw label → what we write, or UNLABELLED; whole numbers also as digits."""
    lookup: dict[object, object] = {}
    for ours, raws in spec.labels.items():
        for raw in raws:
            lookup[raw] = ours
            if isinstance(raw, int):
                lookup[str(raw)] = ours
    return lookup


def _validators(column: Column, lookup: dict[object, object]) -> tuple[Validator, Validator]:
    """Return the compiled validators of one value of a column, and of a list of them."""
    import jsonschema_rs

    if column.kind == "any":
        return _writable, _writable
    schemas = cast("dict[str, dict[str, Any]]", read_schema("columns")["$defs"])
    schema = {"enum": list(lookup)} if column.kind == "label" else schemas[column.kind]
    of_list = {"type": "array", "items": schema}
    return jsonschema_rs.validator_for(schema).is_valid, jsonschema_rs.validator_for(of_list).is_valid


def _writable(value: object) -> bool:
    """Whether JSON can hold a value: no bytes, no NaN, not nested too deep."""
    try:
        json.dumps(value, allow_nan=False, default=lambda other: orjson.dumps(other).decode())
        orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _numbers(values: Sequence[object]) -> Values:
    """Return text cells as whole numbers where all are written as such."""
    try:
        numbers = [int(cast("str", value)) for value in values]
    except ValueError:
        return list(values)
    return cast("Values", numbers) if list(map(str, numbers)) == list(values) else list(values)


@lru_cache(1000)
def _nearest(label: str, options: tuple[str, ...]) -> str:
    """Return the hint for a label; a wrong one often stands in every row, and looking takes 70 µs."""
    return nearest(label, options)


def _inside(kind: str, value: object) -> tuple[str, str]:
    """Return where in a nested value the first thing is wrong, and what: the words that we have not here."""
    from compiler.explain import explain

    schema = cast("dict[str, dict[str, Any]]", read_schema("columns")["$defs"])[kind]
    return next(explain(schema, value))


def _type(value: object) -> str:
    names = {
        bool: "a truth value",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        str: "text",
    }
    return names.get(type(value), type(value).__name__)
