"""Unused source columns: each is counted, and one that changes the meaning of an answer is an error."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tuneyard.compiler.check.marks import ROW_WEIGHTS, CorrectnessMarks, RowWeights
from tuneyard.compiler.kinds import kind_of
from tuneyard.compiler.rows import MISSING, Rows
from tuneyard.compiler.spec.column_meanings import (
    CORRECTNESS,
    EARLIER_TURNS,
    INCORRECTNESS,
    NAMES_WITH_OTHER_CONTENTS,
    SYSTEM_TEXT,
    meaning,
    says_nothing_without_answer,
    usual_name,
)
from tuneyard.compiler.spec.column_names import key_in_spec, snake_case
from tuneyard.compiler.spec.file import where_to_write
from tuneyard.compiler.spec.model import Output, Spec
from tuneyard.core.datasets import filled
from tuneyard.core.errors import Problem

MOST = 200  # of the columns without a meaning below: bounded, whatever keys the rows have
SHOWN = 20


@dataclass(frozen=True, slots=True)
class ColumnFinding:
    """Why an unused column is an error: its meaning, the first place, and the number of rows.

    `rows` is None if it is true of all rows that fill the column.
    """

    meaning: str
    place: str
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class LostColumn:
    """A mapped source column that some outputs leave out (`files`): its first place, the rows it fills."""

    column: str
    files: tuple[str, ...]
    place: str
    rows: int = 0


class Unused:
    """Counts, over all files of a compile, the rows that fill each unused source column.

    `rows` has the columns (and keys inside turns) that the spec does not name, `ignored` the columns that it
    lists under `ignore`.
    """

    def __init__(self, rows: dict[str, int] | None = None, ignored: dict[str, int] | None = None) -> None:
        self.rows = rows or {}
        self.ignored = ignored or {}
        self._first: dict[str, ColumnFinding] = {}
        self._lost: dict[str, LostColumn] = {}
        self._weights: dict[str, RowWeights] = {}
        self._correctness: dict[str, CorrectnessMarks] = {}

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The columns that are counted so far, unused and ignored ones."""
        return tuple(self.rows), tuple(self.ignored)

    def can_join(self, other: "Unused", began_with: tuple[tuple[str, ...], tuple[str, ...]]) -> bool:
        """True if `other` counts what this one would have counted, had it seen the rows.

        It began with other names than these. That changes nothing while there is room for all of them.
        """
        if began_with == self.names():
            return True
        return len({*self.rows, *other.rows}) <= MOST and len({*self.ignored, *other.ignored}) <= MOST

    def join(self, other: "Unused") -> None:
        """Add what was seen in further rows."""
        for name, rows in other.rows.items():
            self._count(name, rows, ignored=False)
        for name, rows in other.ignored.items():
            self._count(name, rows, ignored=True)
        for name, finding in other._first.items():
            self._first.setdefault(name, finding)
        for name, lost in other._lost.items():
            before = self._lost.get(name)
            self._lost[name] = replace(before, rows=before.rows + lost.rows) if before else lost
        for name, weights in other._weights.items():
            self._weights.setdefault(name, RowWeights()).join(weights)
        for name, marks in other._correctness.items():
            new_marks = CorrectnessMarks(marks.by_name, marks.has_answers, marks.incorrect_at)
            self._correctness.setdefault(name, new_marks).join(marks)

    def look(self, spec: Spec, rows: Rows, used: set[str]) -> None:
        """Count the source columns that are not `used`, also inside columns with a used path."""
        heads = {path.partition(".")[0] for path in used}
        whole = [name for name in rows.names() if name not in used and name not in heads]
        rows_of_path: defaultdict[str, list[int]] = defaultdict(list)
        for head in sorted(heads - used):
            paths = [path.split(".")[1:] for path in used if path.startswith(f"{head}.")]
            for number, value in enumerate(rows.column(head)):
                for name in _others(value, paths):
                    rows_of_path[f"{head}.{name}"].append(number)
        for name in dict.fromkeys([*whole, *rows_of_path]):
            ignored = not {name.lower(), name.partition(".")[0].lower()}.isdisjoint(spec.ignore)
            text = "" if ignored or _harmless(spec, name) else meaning(name)
            may_be_error = text or snake_case(name) in ROW_WEIGHTS | CORRECTNESS | INCORRECTNESS
            if not may_be_error and not self._has_room(name, ignored=ignored):
                continue
            numbers = rows_of_path[name] if name in rows_of_path else rows.filled(name)
            self._count(name, len(numbers), ignored=ignored)
            if numbers and not ignored:
                self._find(spec, rows, name, numbers, text, used)

    def add(self, name: str, rows: int, *, ignored: bool) -> None:
        """Count rows with an unused key inside turns."""
        if self._has_room(name, ignored=ignored):
            self._count(name, rows, ignored=ignored)

    def _has_room(self, name: str, *, ignored: bool) -> bool:
        """True if a name is counted already, or one more is not too many."""
        counts = self.ignored if ignored else self.rows
        return name in counts or len(counts) < MOST

    def _count(self, name: str, rows: int, *, ignored: bool) -> None:
        counts = self.ignored if ignored else self.rows
        counts[name] = counts.get(name, 0) + rows

    def _find(
        self, spec: Spec, rows: Rows, name: str, numbers: Sequence[int], text: str, used: set[str]
    ) -> None:
        """Note an unused column that changes the meaning of answers. It fills the rows `numbers`.

        `text` is its meaning by its name, "" if the values or another column decide.
        """
        if text:
            self._first.setdefault(name, ColumnFinding(text, rows.place(numbers[0])))
            return
        role = snake_case(name)
        if role in ROW_WEIGHTS:
            weights = self._weights.setdefault(name, RowWeights())
            values = rows.column(name)
            for number in numbers:
                weights.note(values[number], rows.place(number))
        elif role in CORRECTNESS | INCORRECTNESS:
            by_name = role not in NAMES_WITH_OTHER_CONTENTS
            incorrect_at = int(role in INCORRECTNESS)
            new_marks = CorrectnessMarks(by_name, _has_answers(spec), incorrect_at)
            marks = self._correctness.setdefault(name, new_marks)
            values = rows.column(name)
            for number in numbers:
                marks.note(values[number], rows.place(number), typed=rows.typed)
        else:
            alias = _alias(spec, name, used)
            if alias is None:
                return
            column, taken = alias
            filled_there = set(rows.filled(taken)) if taken in rows.names() else ()
            alone = [number for number in numbers if number not in filled_there]
            if alone:
                message = f"another name of {column}, where {key_in_spec(taken)} is empty here; filled"
                self._first.setdefault(name, ColumnFinding(message, rows.place(alone[0])))

    def look_for_lost(
        self, spec: Spec, rows: Rows, sources: Mapping[str, str], lost_in: Mapping[str, Sequence[Output]]
    ) -> None:
        """Count the rows of mapped columns that outputs leave out (`Spec.lost_in`).

        `sources` has the source column of each column of the spec that the rows have.
        """
        column_of_source = {source: column for column, source in sources.items() if column in lost_in}
        names = rows.names() if column_of_source else []
        in_order = [source for source in names if source in column_of_source]
        in_order += [source for source in column_of_source if source not in names]
        for source in in_order:
            column = column_of_source[source]
            outputs = lost_in[column]
            values = rows.column(source)
            numbers = filled([None if value is MISSING else value for value in values])
            if not numbers:
                continue
            if {source.lower(), column}.isdisjoint(spec.ignore):
                files = tuple(output.file for output in outputs)
                before = self._lost.get(source, LostColumn(column, files, rows.place(numbers[0])))
                self._lost[source] = replace(before, rows=before.rows + len(numbers))
            else:
                self._count(source, len(numbers), ignored=True)

    def counts(self) -> dict[str, int]:
        """The number of filled rows by column, without columns that are empty in every row."""
        return {name: count for name, count in self.rows.items() if count}

    def ignored_counts(self) -> dict[str, int]:
        """The number of filled rows of the columns that the spec lists under `ignore`."""
        return {name: count for name, count in self.ignored.items() if count}

    def lines(self, read: int) -> list[str]:
        """The lines `not used: url (300 of 300)` and `ignored: …`, with at most 20 columns each."""
        lines = []
        for title, counts in (("not used", self.counts()), ("ignored", self.ignored_counts())):
            columns = [f"{key_in_spec(name)} ({count} of {read})" for name, count in counts.items()]
            if len(columns) > SHOWN:
                columns[SHOWN:] = [f"{len(columns) - SHOWN} more (--json names them)"]
            if columns:
                lines.append(f"{title}: {', '.join(columns)}")
        return lines

    def problems(self, spec: Spec, read: int) -> list[Problem]:
        """An error for each column that changes the meaning of an answer."""
        findings = dict(self._first)
        marks_of_columns: dict[str, RowWeights | CorrectnessMarks] = {**self._weights, **self._correctness}
        for name, marks in marks_of_columns.items():
            text, place, count = marks.finding()
            if text:
                findings[name] = ColumnFinding(text, place, count)
        unused = [self._problem(spec, read, name, finding) for name, finding in findings.items()]
        return [*unused, *(_lost_problem(spec, read, source, lost) for source, lost in self._lost.items())]

    def _problem(self, spec: Spec, read: int, name: str, finding: ColumnFinding) -> Problem:
        rows = self.rows[name] if finding.rows is None else finding.rows
        message = f"{finding.meaning} in {rows} of {read} rows, and the spec uses no such column"
        reader = ""
        if spec.name == "io" and finding.meaning in (EARLIER_TURNS, SYSTEM_TEXT):
            reader = "spec alpaca reads it; or "
        if name in self._weights or snake_case(name) in CORRECTNESS | INCORRECTNESS:
            reader = "LLaMA-Factory learns every row alike: take out the rows that are not to be learned; or "
        ignore = f"`ignore: [{key_in_spec(name)}]`"
        fix = f"{reader}{where_to_write(spec.name)} map it to a column, or leave it out by {ignore}"
        return Problem("E108", finding.place, message, key_in_spec(name), fix)


def _lost_problem(spec: Spec, read: int, source: str, lost: LostColumn) -> Problem:
    """E108 for a column that some outputs leave out."""
    content = "a system text" if lost.column == "system" else "tools"
    outputs = f"the outputs {', '.join(lost.files)} leave"
    if len(lost.files) == 1:
        outputs = f"the output {lost.files[0]} leaves"
    message = f"{content} in {lost.rows} of {read} rows, and {outputs} it out"
    formats = {output.file: output.format for output in spec.outputs}
    fix = "write sharegpt or messages there, or "
    if spec.mix:
        fix = "a mixture holds none: "
    elif lost.column == "system" and all(formats.get(file) == "alpaca" for file in lost.files):
        fix = 'add `system: "{system}"` to that output, or '
    ignore = f"`ignore: [{key_in_spec(source)}]`"
    return Problem("E108", lost.place, message, key_in_spec(source), f"{fix}leave it out by {ignore}")


def _alias(spec: Spec, name: str, used: set[str]) -> tuple[str, str] | None:
    """The target column that also accepts this source name, and the source that it uses instead, or None."""
    for column in spec.columns:
        kind = kind_of(column.kind)
        if name not in column.names or kind.is_id or kind.is_label:
            continue
        for source in column.names:
            if source in used:
                return column.name, source
    return None


def _has_answers(spec: Spec) -> bool:
    """True if the outputs of a spec have answers."""
    return spec.answered or any(kind_of(column.kind).has_answer for column in spec.columns)


def _harmless(spec: Spec, name: str) -> bool:
    """True if dropping this column cannot change an answer: a label or choices without an answer."""
    if not says_nothing_without_answer(name):
        return False
    if not _has_answers(spec):
        return True
    return usual_name(name) == "label" and bool(spec.labels)


def _others(value: object, paths: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the paths of filled values that are not on these paths. Of a list it yields the first one."""
    if [] in paths or not isinstance(value, dict | list):
        return
    items = value.items() if isinstance(value, dict) else ((str(at), item) for at, item in enumerate(value))
    for key, item in items:
        within = [path[1:] for path in paths if path[0] == key]
        if within:
            yield from (f"{key}.{name}" for name in _others(item, within))
        elif filled([item]):
            yield key
            if isinstance(value, list):
                return
