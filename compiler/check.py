"""Rows as read become checked columns: JSON Schema on every value, labels mapped, bad rows named."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Any, cast

from tuneyard.compiler.kinds import CLEANED, CODES, DIALOGUES, HISTORY, KTO, NESTED, PAIR, PLACEHOLDERS
from tuneyard.compiler.marks import MaskedAnswerError, TurnKeys
from tuneyard.compiler.media import Media
from tuneyard.compiler.problems import Problems, some_of
from tuneyard.compiler.rows import MISSING, Batch, Rows
from tuneyard.compiler.spec import ROW_NUMBER, UNLABELLED, Column, Spec
from tuneyard.compiler.specfile import read_schema
from tuneyard.compiler.texts import (
    cleaner,
    keys_of,
    label_keys,
    numbers_in,
    stand_ins,
    wrapped,
    writable,
    written,
)
from tuneyard.compiler.turns import (
    ASSISTANT,
    CALL,
    Talks,
    Turn,
    best_of,
    checked_pair,
    encoded_calls,
    reply_of,
    transcript,
    unread_keys,
    wanted,
)
from tuneyard.compiler.unused import Unused, missing_fix, other_kind
from tuneyard.core.calls import OPEN, WrongValueError, call_errors, calls_of, tools_text
from tuneyard.core.errors import Problem, nearest, show_value
from tuneyard.core.schema_errors import violations

Types = dict[str, str]
Values = list[object]
Reader = Callable[[Any], Any]
Validator = Callable[[object], bool]
_TYPES: dict[type, str] = {bool: "a truth value", int: "a number", float: "a number"}
_TYPES |= {list: "a list", dict: "an object", str: "text"}
_nearest = lru_cache(1000)(nearest)  # a wrong label often stands in every row, and looking takes 70 µs


class Checker:
    """Checks the rows of one file against a spec; counts what it reads and drops."""

    def __init__(
        self, spec: Spec, shown: str, problems: Problems, unused: Unused, types: Types, start: int = 0
    ) -> None:
        """`types` is what the kept columns hold in the rows before, those of other files of a split, too."""
        self.spec, self.shown, self.problems, self.unused = spec, shown, problems, unused
        self.media = Media(spec, shown)
        self.pair = spec.named(*PAIR)
        self.held = {column.kind: column for column in spec.columns if column.kind in ("turns", "tools")}
        self.stand_ins = stand_ins(spec)
        self.used, self.lost_in = spec.used, spec.lost_in
        self.sources: dict[str, str] = {}
        self.turn_keys: dict[str, TurnKeys] = {}
        self.lookup = label_keys(spec)
        self.clean = cleaner(spec.clean)
        self.talks = Talks(spec, self.clean)
        self.ids = spec.named("id")
        self.kept = {name for output in spec.outputs for name in output.keep}
        self.types = types
        kinds = {name: kind for name, kind in spec.kinds.items() if kind != "label"}
        self.valid = {name: _validators(kind) for name, kind in kinds.items()}
        self.number = start
        self.bad = self.unlabelled = 0
        self.failed = False

    def check(self, rows: Rows) -> Batch | None:
        """Return the good rows as columns, or None where the file lacks a column that is needed."""
        if not self._resolve(rows):
            self.problems.settle()
            return None
        mapped = {*self.used, *self.lost_in}
        known = {source for name, source in self.sources.items() if name in mapped}
        self.unused.look(self.spec, rows, known)
        self.unused.look_for_lost(self.spec, rows, self.sources, self.lost_in)
        columns = {column.name: self._values(column, rows) for column in self.spec.columns}
        self._count_inside_turns(columns)
        batch = Batch(rows.prefix, rows.lines, columns)
        wrong = {name: self._wrong(name, values) for name, values in columns.items()}
        for name, other in self.stand_ins.items():
            values, beside = columns[name], columns[other]
            wrong[name] = [row for row in wrong[name] if values[row] != "" or not beside[row]]
        if any(wrong.values()):
            batch = batch.keep(self._sort_out(rows, columns, wrong))
        self.number += len(rows.lines)
        for column in self.spec.columns:
            batch = self._shape(column, batch, rows)
        if len(self.held) > 1:
            talks, tools = (batch.columns[self.held[kind].name] for kind in ("turns", "tools"))
            each = zip(talks, tools, map(batch.place, range(len(batch))), strict=True)
            batch, _ = self._read_each(batch, rows, each, self._held_to_tools, "E109")
        if self.media.columns:
            batch = self._each_row(batch, rows, "E110", self.media.place)
        if self.talks.doubtful:
            both = zip(batch.columns[self.spec.turns], batch.columns["system"], strict=True)
            batch, _ = self._read_each(batch, rows, both, self.talks.one_system, "E107")
        if self.pair:
            check = partial(checked_pair, pair=self.pair, turns=self.spec.turns)
            batch = self._each_row(batch, rows, "E111", check)
        self.problems.settle()
        return self._label(batch) if self.lookup else batch

    def _count_inside_turns(self, columns: dict[str, Values]) -> None:
        """Count the keys of turns that reading leaves out, once for each source column."""
        turns = [column for column in self.spec.columns if column.kind in DIALOGUES and not column.best]
        values = {self.sources[c.name]: columns[c.name] for c in turns if c.name in self.sources}
        for source, talks in values.items():
            counts = Counter(chain.from_iterable(map(unread_keys, talks)))
            keys = self._keys(source)
            for key, rows in counts.items():
                if not keys.is_mapped(key):
                    self.unused.add(f"{source}.{key}", rows, ignored=keys.is_ignored(key))

    def _keys(self, source: str) -> TurnKeys:
        """Return what the spec does with the keys of the turns in a source column."""
        if source not in self.turn_keys:
            self.turn_keys[source] = TurnKeys(self.spec, source)
        return self.turn_keys[source]

    def notes(self) -> list[str]:
        """Return, for people, which of several names columns were found by, and what was left out."""
        several = [column for column in self.spec.columns if len(column.names) > 1 and column.kind != "id"]
        found = [column for column in several if column.name in self.sources]
        usual = {c.name: () if self.spec.anyones else (c.name, c.names[0]) for c in found}
        taken = [name for name in usual if self.sources[name] not in usual[name]]
        none = [column.name for column in several if self.spec.anyones and column.name not in self.sources]
        using = ", ".join(f"column {show_value(self.sources[name])} as {name}" for name in taken)
        said = [f"using {using}" + (f", no column for {', '.join(none)}" if none else "")] if taken else []
        said += self.media.notes() + self.talks.notes()
        return [f"{self.shown}: {each}" for each in said]

    def _shape(self, column: Column, batch: Batch, rows: Rows) -> Batch:
        """Bring the values of a column that passed into the one form that rendering knows."""
        if reader := self._reader(column):
            code, field = CODES.get(column.kind, "E107"), self._field(column.name)
            batch, read = self._read_each(batch, rows, batch.columns[column.name], reader, code, field)
            if column.kind == "turns":
                self._warn_of_calls(batch, cast("Sequence[Any]", batch.columns[column.name]), read)
            batch.columns[column.name] = read
            return batch
        values = batch.columns[column.name]
        if column.kind == "list":
            values = self.clean(["\n".join(cast("list[str]", value)) for value in values])
        elif column.kind == "extra" and None in values:
            values = ["" if value is None else value for value in values]
        batch.columns[column.name] = wrapped(column.wrap, values)
        return batch

    def _warn_of_calls(self, batch: Batch, raw: Sequence[Any], talks: Sequence[list[Turn]]) -> None:
        """Warn of calls whose arguments were unwrapped; `raw` are the turns as the rows have them."""
        for number, talk in enumerate(talks):
            if not any(turn.role == CALL for turn in talk):
                continue
            for turn, item in enumerate(raw[number], 1):
                names = encoded_calls(item)
                if names:
                    called = ", ".join(map(show_value, names))
                    message = f"turn {turn}: the arguments of {called} are JSON inside JSON text: unwrapped"
                    self.problems.warn(Problem("W220", batch.place(number), message))

    def _reader(self, column: Column) -> Reader | None:
        """Return what reads a value of a nested column, or raises `WrongValueError`; None for any other."""
        if column.kind in PLACEHOLDERS:
            return partial(self.media.paths, column.kind)
        source = self.sources.get(column.name)
        of_pair = self.sources.get(self.pair[0]) if self.pair else None
        answered = source is not None and source == of_pair  # the turns stand after the prompt
        keys = self._keys(source or column.name)
        readers: dict[str, Reader] = {
            "turns": partial(self.talks.read, answered, keys),
            "tools": tools_text,
            **dict.fromkeys(PAIR, partial(reply_of, column, self.clean, keys)),
            KTO: partial(wanted, column),
            HISTORY: self.talks.earlier,
            "best": partial(best_of, column, self.clean, keys),
        }
        return readers.get(column.kind)

    def _read_each(
        self, batch: Batch, rows: Rows, values: Iterable[Any], read: Reader, code: str, field: str = ""
    ) -> tuple[Batch, list[Any]]:
        """Return the rows whose values can be read, and what they are read as; any other is a bad row."""
        found, good = [], []
        for number, value in enumerate(values):
            try:
                found.append(read(value))
                good.append(number)
            except MaskedAnswerError as error:
                problem = Problem("E113", batch.place(number), str(error), field, error.fix)
                self.problems.bad_row([problem], rows.row(rows.lines.index(batch.lines[number])))
                self.bad += 1
            except WrongValueError as error:
                wrong = [Problem(code, batch.place(number), message, field) for message in error.args]
                self.problems.bad_row(wrong, rows.row(rows.lines.index(batch.lines[number])))
                self.bad += 1
        return batch.keep(good) if len(good) < len(batch) else batch, found

    def _held_to_tools(self, row: tuple[list[Turn], str, str]) -> None:
        """Hold the calls in turns against the tools declared beside them; the third is the row's place."""
        talk, tools, place = row
        calls = [(turn.number, call) for turn in talk if turn.role == CALL for call in calls_of(turn.text)]
        found = dict.fromkeys(call_errors(calls, tools))
        strict = self.held["tools"].arguments == "error"
        if wrong := [one.message for one in found if one.error or strict]:
            raise WrongValueError(*wrong)
        for one in found:
            self.problems.warn(Problem("W215", place, one.message))
        for turn in [turn.number for turn in talk if turn.role == ASSISTANT and OPEN in turn.text]:
            message = f"turn {turn}: {OPEN} in an answer: neither checked nor scored as a call"
            self.problems.warn(Problem("W216", place, message, "", "give the turn the role function_call"))

    def _each_row(
        self, batch: Batch, rows: Rows, code: str, change: Callable[[dict[str, Any]], dict[str, object]]
    ) -> Batch:
        """Change values of each row by all of them together; a row that this refuses is a bad one."""
        each = zip(*batch.columns.values(), strict=True)
        every = (dict(zip(batch.columns, values, strict=True)) for values in each)
        batch, changed = self._read_each(batch, rows, every, lambda row: row | change(row), code)
        batch.columns |= {name: [row[name] for row in changed] for name in batch.columns}
        return batch

    def _resolve(self, rows: Rows) -> bool:
        """Find the columns that are not found yet by the names they go by; False if one is missing."""
        if self.failed:
            return False
        absent = [column for column in self.spec.columns if column.name not in self.sources]
        names = rows.names() if absent else []
        found = {column.name: self._find(column, names, rows) for column in absent}
        self.sources |= {name: source for name, source in found.items() if source is not None}
        needed = [column for column in absent if column.required and column.kind != "label"]
        if lacking := [column for column in needed if found[column.name] is None]:
            self.failed = True
            self.problems.bad_file(self._lack(lacking, names, rows))
        return not self.failed

    def _lack(self, columns: list[Column], names: list[str], rows: Rows) -> Problem:
        accepted = [column.names for column in columns]
        expected = ", and ".join(" or ".join(map(show_value, names)) for names in accepted)
        found = some_of(tuple(names), tuple(chain.from_iterable(accepted))) or "none at all"
        fixes = [missing_fix(column.name, names, rows.typed, self.spec.name) for column in columns]
        place = f"{rows.prefix}{rows.lines[0] if rows.typed else 1}"
        message = f"no such column{'s' * (len(columns) > 1)}: found {found}, expected {expected}"
        field = ", ".join(column.name for column in columns)
        return Problem("E101", place, message, field, next(filter(None, fixes), ""))

    def _find(self, column: Column, names: list[str], rows: Rows) -> str | None:
        lower = {name.lower(): name for name in reversed(names)}
        for name in column.names:
            if name in names or ("." in name and any(v is not MISSING for v in rows.column(name))):
                return name
        return next((lower[name.lower()] for name in column.names if name.lower() in lower), None)

    def _values(self, column: Column, rows: Rows) -> Values:
        source = self.sources.get(column.name)
        if source is None and column.default == ROW_NUMBER:
            return list(range(self.number, self.number + len(rows.lines)))
        if source is None:
            return ["" if column.default is None else column.default] * len(rows.lines)
        values = self.clean(rows.column(source)) if column.kind in CLEANED else rows.column(source)
        if column.kind in DIALOGUES:
            values = [transcript(value) for value in values]
        if not column.required and column.kind != "id":
            values = [column.default if value is MISSING else value for value in values]
        if column.kind == "id" and not rows.typed:
            return numbers_in(values, self.types.get(column.name))
        return values

    def _wrong(self, name: str, values: Values) -> Sequence[int]:
        """Return the numbers of the values that the schema refuses; one call tells that none is wrong."""
        if name == "label" and self.lookup:
            return self._unknown(values) if name in self.sources else ()
        # of an id, JSON Schema takes 1.0 for a whole number, and orjson reads 10**30 as 1e30
        odd: tuple[type, ...] = (type(MISSING), float) if name in self.ids else (type(MISSING),)
        kinds, (valid, all_valid) = set(map(type, values)), self.valid[name]
        alike = kinds.isdisjoint(odd) and (len(kinds) == 1 or name not in self.kept)
        if alike and _holds(all_valid, values) and not self._changes(name, values[0]):
            return ()
        good = (_holds(valid, v) and not isinstance(v, odd) and not self._changes(name, v) for v in values)
        return [number for number, is_good in enumerate(good) if not is_good]

    def _unknown(self, labels: Values) -> Sequence[int]:
        keys = keys_of(labels)
        unknown = set(keys) - self.lookup.keys()
        return [n for n, key in enumerate(keys) if key in unknown] if unknown else ()

    def _changes(self, name: str, value: object) -> bool:
        """Whether a kept value has another type than those before it: no dataset has a column of two."""
        known = name in self.kept and value is not None and value is not MISSING
        return known and _type(value) != self.types.setdefault(name, _type(value))

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
        kind, field = self.spec.kinds[name], self._field(name)
        if value is MISSING:
            row = rows.row(number)
            keys = some_of(tuple(row), (field.partition(" ")[0],)) if isinstance(row, dict) else ""
            return Problem("E102", place, f"missing; the row has {keys}", field)
        if kind == "label":
            options = tuple(dict.fromkeys(written(raw) for raws in self.spec.labels.values() for raw in raws))
            near = _nearest(value, options) if isinstance(value, str) else ""
            message = f"found {show_value(value)}, expected one of {', '.join(options)}"
            return Problem("E104", place, message, field, near)
        expected = _schema(kind)["description"]
        if value is None:
            return Problem("E103", place, f"found null, expected {expected}", field)
        found = show_value(value)
        if self._changes(name, value):
            message = f"found {found} ({_type(value)}), expected {self.types[name]} as in the rows before"
            in_table = "in a spec, `is: extra` keeps all of them as text"
            fix = "write all of them as text" if rows.typed else in_table
            return Problem("E105", place, message, field, fix)
        if isinstance(value, str) and not value.replace("\ufeff", "").strip():  # what \\S of JSON Schema is
            return Problem("E106", place, f"found {found}, expected text that is not blank", field)
        if isinstance(value, list) and kind in NESTED:
            wrong = next(violations(_schema(kind), value))
            return Problem("E105", place, wrong.message, f"{field} {wrong.place}".rstrip())
        fix = other_kind(value, self.spec.name) if kind in CLEANED else ""
        return Problem("E105", place, f"found {found} ({_type(value)}), expected {expected}", field, fix)

    def _field(self, name: str) -> str:
        source = self.sources.get(name, name)
        return source if source == name else f"{source} ({name})"

    def _label(self, batch: Batch) -> Batch:
        """Map labels to what we write; rows without a gold label are dropped and counted."""
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
    """Ask a compiled validator; what JSON has no word for (`MISSING`, a date, bytes) is not valid."""
    try:
        return valid(value)
    except ValueError:
        return False


def _validators(kind: str) -> tuple[Validator, Validator]:
    """Return the compiled validators of one value of a kind of column, and of a list of them."""
    from jsonschema_rs import validator_for

    if kind == "any":
        return writable, writable
    schema = _schema(kind)
    return validator_for(schema).is_valid, validator_for({"type": "array", "items": schema}).is_valid


def _schema(kind: str) -> dict[str, Any]:
    schemas = cast("dict[str, dict[str, Any]]", read_schema("columns")["$defs"])
    return schemas["media" if kind in PLACEHOLDERS else "reply" if kind in PAIR else kind]


def _type(value: object) -> str:
    return _TYPES.get(type(value), type(value).__name__)
