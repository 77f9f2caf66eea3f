"""Counts over the records of a dataset: labels, sources, duplicates, conflicts, leaks, codes of the lint.

Texts are compared as `compile` and `stats` compare them. Memory holds the keys of the rows.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from tuneyard.compiler.commands.dataset_reader import LONGEST, MOST_LABELS, few
from tuneyard.compiler.lint.duplicates import leaks
from tuneyard.compiler.lint.example_keys import add_examples
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.row_checks import text_warnings
from tuneyard.compiler.verify.comparison import Records
from tuneyard.compiler.verify.expect import Expected, NumberedRecord
from tuneyard.core.datasets import Dataset
from tuneyard.core.datasets.splits import ROW_TYPE
from tuneyard.core.errors import ProblemsError
from tuneyard.core.records import Example, format_of_entry

Record = Mapping[str, object]
FIRST_ROWS = 50
"""So many rows of each code are kept for the page."""
MARKS = {True: "good", False: "bad"}
"""Labels of KTO's marks."""
BATCH = 500


class Scan:
    """Counts over the records of a dataset. Rows are counted from 0, as LLaMA-Factory loads them.

    - `numbers`: the number of each row's record in the file, from 0.
    - `labels`, `sources`: rows by label and by the record's column `source`; empty if there are many.
    - `counts`: rows by code. `first_rows`: the first rows of each code.
    - `duplicates`: rows that came before. `leaked`: rows by split with the same input.
    """

    def __init__(self) -> None:
        self.numbers = array(ROW_TYPE)
        self.labels: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.first_rows: dict[str, list[int]] = {}
        self.duplicates: frozenset[int] = frozenset()
        self.conflicts: frozenset[int] = frozenset()
        self.leaked: dict[str, frozenset[int]] = {}
        self._fingerprints = Fingerprints()
        self._examples: list[Example] = []

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.numbers)

    def counted(self, records: Iterator[NumberedRecord]) -> Records:
        """Yield records on as `verify` compares them, each counted."""
        for number, place, record, example in records:
            self._count(number, record, example)
            yield place, example

    def count_rest(self, records: Records) -> None:
        """Count the records that can be read and were not compared; `verify` reports the others."""
        with suppress(ProblemsError):
            for _ in records:
                pass

    def _count(self, number: int, record: Record, example: Example | str) -> None:
        """Count a record. `example` is the reason if LLaMA-Factory loses it."""
        row = self.rows
        self.numbers.append(number)
        if len(self.labels) <= MOST_LABELS:
            self.labels[label_of(example)] += 1
        if len(self.sources) <= MOST_LABELS:
            self.sources[source_of(record)] += 1
        for code in text_codes(example):
            self._note(code, row)
        if isinstance(example, str):
            example = Example([("lost", f"{row}")], [])  # equals no other
        self._examples.append(example)
        if len(self._examples) == BATCH:
            self._add_keys()

    def read(self, dataset: Dataset) -> None:
        """Count all records of a dataset that can be read."""
        expected = Expected(dataset.path, format_of_entry(dataset.entry))
        self.count_rest(self.counted(expected.numbered()))

    def compare(self, splits: Mapping[str, Dataset]) -> None:
        """Find duplicates and conflicts, and the rows that are in other splits too."""
        repeats, conflicts = self.fingerprints().repeats()
        self.duplicates = frozenset(row for row, _ in repeats)
        self.conflicts = frozenset(row for row, _ in conflicts)
        for split, dataset in splits.items():
            other = Scan()
            other.read(dataset)
            rows = frozenset(row for row, _ in leaks(self.fingerprints(), other.fingerprints()))
            if rows:
                self.leaked[split] = rows
        leaked = frozenset().union(*self.leaked.values())
        for code, rows in (("W202", self.duplicates), ("W203", self.conflicts), ("W208", leaked)):
            for row in sorted(rows):
                self._note(code, row)
        self.labels = few(self.labels)
        self.sources = few(self.sources)

    def fingerprints(self) -> Fingerprints:
        """The keys of the rows so far."""
        self._add_keys()
        return self._fingerprints

    def codes(self, row: int, example: Example | str) -> Iterable[str]:
        """The codes of the lint for one row."""
        yield from text_codes(example)
        if row in self.duplicates:
            yield "W202"
        if row in self.conflicts:
            yield "W203"
        if self.leaks_of(row):
            yield "W208"

    def leaks_of(self, row: int) -> list[str]:
        """The splits that have the same input as a row."""
        return [split for split, rows in self.leaked.items() if row in rows]

    def _add_keys(self) -> None:
        if self._examples:
            first = self._fingerprints.rows
            rows = range(first, first + len(self._examples))
            add_examples(self._fingerprints, "", rows, self._examples)
            self._examples = []

    def _note(self, code: str, row: int) -> None:
        self.counts[code] += 1
        first_rows = self.first_rows.setdefault(code, [])
        if len(first_rows) < FIRST_ROWS:
            first_rows.append(row)


def label_of(example: Example | str) -> str:
    """The label of a row: its mark (KTO), its answer if that is short, "" for other rows."""
    if isinstance(example, str) or len(example.answers) != 1:
        return ""
    if example.mark is not None:
        return MARKS[example.mark]
    answer = example.answers[0][1]
    return answer if len(answer) <= LONGEST else ""


def source_of(record: Record) -> str:
    """The value of a record's column `source`, "" if it has none or a long one."""
    value = record.get("source")
    if not isinstance(value, str) or len(value) > LONGEST:
        return ""
    return value


def text_codes(example: Example | str) -> list[str]:
    """The codes of the lint for the texts of a row."""
    if isinstance(example, str):
        return []
    answers = [text for _, text in example.answers]
    texts = [example.system, *(text for _, text in example.turns), *answers]
    return [code for code, _ in text_warnings(texts, answers)]
