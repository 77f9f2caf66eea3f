"""Counts over the records of a dataset: labels, sources, duplicates, conflicts, leaks, codes of the lint.

Texts are compared as `compile` and `stats` compare them. Memory holds the keys of the rows.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from tuneyard.compiler.commands.dataset_reader import LONGEST, MOST_LABELS, few
from tuneyard.compiler.draw import ROW_TYPE
from tuneyard.compiler.lint.duplicates import leaks
from tuneyard.compiler.lint.example_keys import add_examples
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.row_checks import text_warnings
from tuneyard.compiler.verify.comparison import Records
from tuneyard.compiler.verify.expect import Expected, NumberedRecord
from tuneyard.core.datasets import Dataset
from tuneyard.core.errors import ProblemsError
from tuneyard.core.records import Example, format_of_entry

MARKS = {True: "good", False: "bad"}
"""Labels of KTO's marks."""
BATCH = 500


class RowKeys:
    """The keys of examples, for finding duplicates and leaks. `keys` has them once all are added."""

    def __init__(self) -> None:
        self.keys = Fingerprints()
        self._examples: list[Example] = []

    def add(self, example: Example | str) -> None:
        """Add an example, or the reason for which it is lost: that equals no other."""
        if isinstance(example, str):
            number = self.keys.rows + len(self._examples)
            example = Example([("lost", f"{number}")], [])
        self._examples.append(example)
        if len(self._examples) == BATCH:
            self.finish()

    def finish(self) -> None:
        """Make the keys of the examples that are left."""
        if self._examples:
            first = self.keys.rows
            add_examples(self.keys, "", range(first, first + len(self._examples)), self._examples)
            self._examples = []


class Scan:
    """Counts over the records of a dataset. Rows are counted from 0, as LLaMA-Factory loads them.

    - `numbers`: the number of each row's record in the file, from 0.
    - `labels`, `sources`: rows by label and by the record's column `source`; empty if there are many.
    - `rows_of_code`: the rows that have a code of the lint, with W202 those that came before.
    - `leaked`: rows by split with the same input.
    """

    def __init__(self) -> None:
        self.numbers = array(ROW_TYPE)
        self.labels: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.rows_of_code: dict[str, array[int]] = {}
        self.leaked: dict[str, frozenset[int]] = {}
        self._keys = RowKeys()

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.numbers)

    def counted(self, records: Iterator[NumberedRecord]) -> Records:
        """Yield records on as `verify` compares them, each counted."""
        for number, place, record, example in records:
            self._count(number, record, example)
            yield place, example

    def _count(self, number: int, record: Mapping[str, object], example: Example | str) -> None:
        """Count a record. `example` is the reason if LLaMA-Factory loses it."""
        row = self.rows
        self.numbers.append(number)
        if len(self.labels) <= MOST_LABELS:
            self.labels[label_of(example)] += 1
        if len(self.sources) <= MOST_LABELS:
            self.sources[source_of(record)] += 1
        if not isinstance(example, str):
            answers = [text for _, text in example.answers]
            texts = [example.system, *(text for _, text in example.turns), *answers]
            for code, _ in text_warnings(texts, answers):
                self._add(code, [row])
        self._keys.add(example)

    def compare(self, splits: Mapping[str, Dataset]) -> None:
        """Find duplicates and conflicts, and the rows that are in other splits too."""
        self._keys.finish()
        repeats, conflicts = self._keys.keys.repeats()
        for split, dataset in splits.items():
            rows = frozenset(row for row, _ in leaks(self._keys.keys, keys_of(dataset)))
            if rows:
                self.leaked[split] = rows
        self._add("W202", (row for row, _ in repeats))
        self._add("W203", (row for row, _ in conflicts))
        self._add("W208", sorted(frozenset().union(*self.leaked.values())))
        self.labels = few(self.labels)
        self.sources = few(self.sources)

    def leaks_of(self, row: int) -> list[str]:
        """The splits that have the same input as a row."""
        return [split for split, rows in self.leaked.items() if row in rows]

    def _add(self, code: str, rows: Iterable[int]) -> None:
        for row in rows:
            self.rows_of_code.setdefault(code, array("I")).append(row)


def keys_of(dataset: Dataset) -> Fingerprints:
    """The keys of all records of a dataset that can be read."""
    row_keys = RowKeys()
    with suppress(ProblemsError):
        for _, example in Expected(dataset.path, format_of_entry(dataset.entry)).records():
            row_keys.add(example)
    row_keys.finish()
    return row_keys.keys


def label_of(example: Example | str) -> str:
    """The label of a row: its mark (KTO), its answer if that is short, "" for other rows."""
    if isinstance(example, str) or len(example.answers) != 1:
        return ""
    if example.mark is not None:
        return MARKS[example.mark]
    answer = example.answers[0][1]
    return answer if len(answer) <= LONGEST else ""


def source_of(record: Mapping[str, object]) -> str:
    """The value of a record's column `source`, "" if it has none or a long one."""
    value = record.get("source")
    if not isinstance(value, str) or len(value) > LONGEST:
        return ""
    return value
