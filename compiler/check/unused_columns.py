"""Unused source columns: each is counted, and a value that changes the answer of its row is an error."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuneyard.compiler.read.split_names import splits_named_in
from tuneyard.compiler.rows import MISSING, Cells, Rows, are_objects
from tuneyard.compiler.spec.column_names import key_in_spec
from tuneyard.compiler.spec.file import where_to_write
from tuneyard.compiler.spec.model import Output, Spec
from tuneyard.core.datasets import TRAIN_SPLIT, filled
from tuneyard.core.datasets.answer_flags import LEARNED_AT, changes_answer
from tuneyard.core.datasets.column_meanings import (
    ONLY_BESIDE_AN_ANSWER,
    SYSTEM_TEXT,
    meaning,
    usual_name,
)
from tuneyard.core.errors import Problem, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, joined, marked

UNUSED_COLUMN = ProblemCode(
    "E108",
    _("a column that changes what an answer means, and is not used"),
    _("Map the column in a spec, or leave it out by `ignore: [NAME]`."),
    _("Its value marks the answer (`weight: 0`) or belongs to it (`rejected`, images, tools, reasoning)."),
)


MOST = 2000  # names of columns that change no answer: bounded, whatever keys the rows have
SHOWN = 20
SAYS = "by its column"
"""What notes on columns of splits contain."""
NOT_USED, LEFT_OUT = marked("not used: {columns}"), marked("ignored: {columns}")
SPLIT_COLUMNS = {
    "split",
    "splits",
    "data_split",
    "dataset_split",
    "subset",
    "partition",
    "set",
    "fold",
    "划分",
}


@dataclass
class Unused:
    """The unused source columns, and keys inside messages, of some rows.

    - `rows`: the number of rows that fill a column which the spec does not name.
    - `ignored`: the same for the columns that it lists under `ignore`.
    - `splits`: the number of rows of one file by the split that a column such as `split` names, by the name
      of the column; "" for other values.
    - `changing`: the number of rows whose value changes the answer, of the columns in `findings`, which have
      the error of the first of these rows.

    The parts of a dataset add up: all counts are sums, and the finding of the first part stays.
    """

    rows: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    changing: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Problem] = field(default_factory=dict)
    splits: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, spec: Spec, rows: Rows, used: set[str]) -> None:
        """Count the source columns that are not `used`, also inside columns with a used path."""
        heads = {path.partition(".")[0] for path in used}
        for path in used:  # the name of a list may have dots: `label.responses.0`
            list_name, _unused, position = path.rpartition(".")
            if position.isdecimal():
                heads.add(list_name)
        cells_of_column = {}
        for name, cells in rows.cells(used | heads).items():
            cells_of_column[name] = cells.filled()
        for head in sorted(heads - used):
            cells_of_column |= _filled_inside(rows, head, used)
        for name, cells in cells_of_column.items():
            ignored = not {name.lower(), name.partition(".")[0].lower()}.isdisjoint(spec.ignore)
            changing = Cells([], []) if ignored else _changing(spec, name, cells)
            self.add(name, len(cells.rows), ignored=ignored, changes=bool(changing.rows))
            if not ignored and name.rpartition(".")[2].lower() in SPLIT_COLUMNS:
                self._count_splits(name, cells)
            if changing.rows:
                content = meaning(name)
                if not content:
                    value = show_value(changing.values[0])
                    content = _(
                        "a mark such as {value} (an answer is incorrect, or not to be learned)", value=value
                    )
                message = _("{content}, and the spec uses no such column", content=content)
                self._find(name, rows, changing.rows, message, _fix_of_unused(spec, name))

    def note_lost(
        self, spec: Spec, rows: Rows, sources: Mapping[str, str], lost_in: Mapping[str, Sequence[Output]]
    ) -> None:
        """Count the rows of mapped columns that outputs leave out (`Spec.lost_in`).

        `sources` has the source column of each column of the spec that the rows have.
        """
        for column, outputs in lost_in.items():
            if column not in sources:
                continue
            source = sources[column]
            numbers = _filled(rows, source)
            if not {source.lower(), column}.isdisjoint(spec.ignore):
                self.add(source, len(numbers), ignored=True)
            elif numbers:
                content = SYSTEM_TEXT if column == "system" else column
                files = ", ".join(output.file for output in outputs)
                message = _("{content}, which is not written to {files}", content=content, files=files)
                self._find(source, rows, numbers, message, _fix_of_lost(spec, column, source, outputs))

    def _find(self, name: str, rows: Rows, numbers: Sequence[int], message: str, fix: str) -> None:
        """Count rows with a value that changes the answer. The error of a column names the first one."""
        self.changing[name] += len(numbers)
        problem = Problem(UNUSED_COLUMN, rows.location(numbers[0]), message, key_in_spec(name), fix)
        self.findings.setdefault(name, problem)

    def _count_splits(self, name: str, cells: Cells) -> None:
        counts = self.splits.setdefault(name, Counter())
        for value in cells.values:
            splits = splits_named_in(value) if isinstance(value, str) else ()
            counts[splits[0] if len(splits) == 1 else ""] += 1

    def notes_on_splits(self, display_path: str, split: str) -> list[str]:
        """What to tell the user of a file with held-out rows among those to train on, or the reverse.

        A column counts if each of its values names a split.
        """
        notes: list[str] = []
        for name, counts in self.splits.items():
            others = {
                other: rows
                for other, rows in counts.items()
                if (other == TRAIN_SPLIT) != (split == TRAIN_SPLIT)
            }
            if others and "" not in counts:
                notes.append(
                    _(
                        "{path}: {rows} of {total} rows are of {splits} by its column {column}, and all are "
                        "read as {split}: write the rows of each split into a file that is named like it, or "
                        "list the column under `ignore`",
                        path=display_path,
                        rows=sum(others.values()),
                        total=counts.total(),
                        splits=", ".join(sorted(others)),
                        column=key_in_spec(name),
                        split=split,
                    )
                )
        return notes

    def add_rows(self, other: "Unused") -> None:
        """Add the columns of further rows."""
        self.rows += other.rows
        self.ignored += other.ignored
        self.changing += other.changing
        self.findings = other.findings | self.findings

    def add(self, name: str, rows: int, *, ignored: bool, changes: bool = False) -> None:
        """Count rows with an unused column or key. There are at most `MOST` names that change nothing."""
        counts = self.ignored if ignored else self.rows
        if rows and (changes or name in counts or len(counts) < MOST):
            counts[name] += rows

    def lines(self, read: int) -> list[str]:
        """The lines `not used: url (300 of 300)` and `ignored: …`, with at most 20 columns each."""
        lines: list[str] = []
        for template, counts in ((NOT_USED, self.rows), (LEFT_OUT, self.ignored)):
            columns = [
                _("{column} ({count} of {rows})", column=key_in_spec(name), count=count, rows=read)
                for name, count in counts.items()
            ]
            if len(columns) > SHOWN:
                columns[SHOWN:] = [_("{number} more (--json names them)", number=len(columns) - SHOWN)]
            if columns:
                lines.append(_(template, columns=joined(columns)))
        return lines

    def problems(self, read: int) -> list[Problem]:
        """An error for each column with values that change answers."""
        return [
            replace(
                problem,
                message=_(
                    "{rows} of {total} rows have {content}",
                    rows=self.changing[name],
                    total=read,
                    content=problem.message,
                ),
            )
            for name, problem in self.findings.items()
        ]


def _filled(rows: Rows, name: str) -> list[int]:
    """The numbers of the rows in which a column holds something."""
    return filled([None if value is MISSING else value for value in rows.column(name)])


def _filled_inside(rows: Rows, head: str, used: set[str]) -> dict[str, Cells]:
    """The filled cells of each unused path inside a column, of which other paths are used."""
    within = f"{head}."
    paths = [path.removeprefix(within).split(".") for path in used if path.startswith(within)]
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    values: defaultdict[str, list[object]] = defaultdict(list)
    for number, outer_value in enumerate(rows.column(head)):
        for name, value in _others(outer_value, paths):
            numbers[f"{head}.{name}"].append(number)
            values[f"{head}.{name}"].append(value)
    return {path: Cells(numbers[path], values[path]) for path in numbers}


def _others(value: object, paths: Sequence[Sequence[str]]) -> Iterator[tuple[str, object]]:
    """Yield the filled values that are not on these paths, with their paths. Of a list the first one."""
    if [] in paths or not isinstance(value, dict | list):
        return
    items = value.items() if isinstance(value, dict) else ((str(at), item) for at, item in enumerate(value))
    for key, item in items:
        within = [path[1:] for path in paths if path[0] == key]
        if within:
            for name, inner_item in _others(item, within):
                yield f"{key}.{name}", inner_item
        elif filled([item]):
            yield key, item
            if isinstance(value, list):
                return


def _changing(spec: Spec, name: str, cells: Cells) -> Cells:
    """Which filled cells of a column have a value that changes the answer of their row."""
    usual = usual_name(name)
    nothing = Cells([], [])
    if usual not in LEARNED_AT and not meaning(name):
        return nothing
    has_answer = spec.has_answer_template or any(column.type.has_answer for column in spec.columns)
    says_nothing = usual in ONLY_BESIDE_AN_ANSWER and not has_answer
    # The options of Prodigy, which are objects, are the labels of the spec: its prompt lists them.
    is_label = usual == "label" or (usual == "options" and any(map(are_objects, cells.values)))
    if says_nothing or (is_label and spec.labels):
        return nothing
    changing = [at for at, value in enumerate(cells.values) if changes_answer(name, value)]
    return Cells([cells.rows[at] for at in changing], [cells.values[at] for at in changing])


def _fix_of_unused(spec: Spec, name: str) -> str:
    """How to use a column, or to leave it out."""
    fix = _(
        "{where_to_write} map it to a column, or leave it out by `ignore: [{column}]`",
        where_to_write=where_to_write(spec.name),
        column=key_in_spec(name),
    )
    if meaning(name):
        return fix
    return _(
        "LLaMA-Factory learns every row alike: take out the rows that are not to be learned; or {fix}",
        fix=fix,
    )


def _fix_of_lost(spec: Spec, column: str, source: str, outputs: Sequence[Output]) -> str:
    """How to write a system text or tools that outputs leave out."""
    key = key_in_spec(source)
    if spec.share:
        return _("a mixture holds none: leave it out by `ignore: [{column}]`", column=key)
    if column == "system" and all(output.format == "alpaca" for output in outputs):
        return _(
            'add `system: "{{system}}"` to that output, or leave it out by `ignore: [{column}]`', column=key
        )
    return _("write sharegpt or messages there, or leave it out by `ignore: [{column}]`", column=key)
