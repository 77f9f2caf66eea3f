"""Counts over all records of a dataset's file: labels, duplicates, conflicts, leaks, codes of the lint.

Texts are compared as the lint of `compile` compares them, and by its rules. Memory holds two hashes a record.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import cast

from tuneyard.compiler.commands.dataset_reader import LONGEST, MOST_LABELS, few
from tuneyard.compiler.lint.duplicates import leaks
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.row_checks import codes_of_texts, plain_text
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.progress import Progress
from tuneyard.compiler.read import read
from tuneyard.compiler.spec.file import Source
from tuneyard.compiler.verify.expect import example_or_loss
from tuneyard.core.datasets import Dataset, loaded_files
from tuneyard.core.records import Example, RecordReader, format_of_entry

Record = Mapping[str, object]
FIRST_ROWS = 50
"""So many rows of each code are kept for the page."""
MARKS = {True: "good", False: "bad"}
"""Labels of KTO's marks."""


@dataclass(slots=True)
class Scan:
    """Counts over the records of a dataset; rows are numbered from 0 in the order of the file.

    - `rows`: records that LLaMA-Factory loads. `row_of_place`: number of the record at a place (file:line).
    - `labels`, `sources`: rows by label and by the record's column `source`; empty if there are many.
    - `counts`: rows by code. `first_rows`: the first rows of each code.
    - `duplicates`: rows that came before. `leaked`: rows by split with the same input.
    """

    rows: int = 0
    row_of_place: dict[str, int] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    first_rows: dict[str, list[int]] = field(default_factory=dict)
    duplicates: frozenset[int] = frozenset()
    conflicts: frozenset[int] = frozenset()
    leaked: dict[str, frozenset[int]] = field(default_factory=dict)

    def codes(self, row: int, example: Example | str) -> list[str]:
        """The codes of the lint for one row."""
        codes = _text_codes(example)
        if row in self.duplicates:
            codes.append("W202")
        if row in self.conflicts:
            codes.append("W203")
        if any(row in rows for rows in self.leaked.values()):
            codes.append("W208")
        return codes

    def note(self, code: str, row: int) -> None:
        """Count a row's code, and keep the row if it is one of the first."""
        self.counts[code] += 1
        first_rows = self.first_rows.setdefault(code, [])
        if len(first_rows) < FIRST_ROWS:
            first_rows.append(row)


def scan(
    dataset: Dataset,
    numbers: Collection[int] | None,
    places: Collection[str],
    splits: Mapping[str, Dataset],
) -> Scan:
    """Read a dataset once, and the other `splits` of its compile for leaks.

    `numbers` are the records that LLaMA-Factory loads, None for all. `places` are looked up for their rows.
    """
    result = Scan()
    prints = Fingerprints()
    row_of_print: list[int] = []
    for row, place, record, example in numbered_records(dataset, numbers):
        result.rows += 1
        if place in places:
            result.row_of_place[place] = row
        if numbers is not None:
            row_of_print.append(row)
        _add_print(prints, example, row)
        if len(result.labels) <= MOST_LABELS:
            result.labels[label_of(example)] += 1
        if len(result.sources) <= MOST_LABELS:
            result.sources[source_of(record)] += 1
        for code in _text_codes(example):
            result.note(code, row)

    def rows_of(pairs: Sequence[tuple[int, int]]) -> frozenset[int]:
        if numbers is None:
            return frozenset(first for first, _ in pairs)
        return frozenset(row_of_print[first] for first, _ in pairs)

    repeats, conflicts = prints.repeats()
    result.duplicates = rows_of(repeats)
    result.conflicts = rows_of(conflicts)
    for split, other in splits.items():
        rows = rows_of(leaks(prints, _prints_of(other)))
        if rows:
            result.leaked[split] = rows
    leaked = frozenset().union(*result.leaked.values())
    for code, rows in (("W202", result.duplicates), ("W203", result.conflicts), ("W208", leaked)):
        for row in sorted(rows):
            result.note(code, row)
    result.labels = few(result.labels)
    result.sources = few(result.sources)
    return result


def numbered_records(
    dataset: Dataset, numbers: Collection[int] | None = None
) -> Iterator[tuple[int, str, Record, Example | str]]:
    """Yield number (from 0), place, record, and the example or the reason for which the record is lost.

    `numbers` are those to yield, None for all. Records that cannot be parsed are left out: `verify` reports
    them.
    """
    record_format = format_of_entry(dataset.entry)
    reader = RecordReader(record_format)
    paths = loaded_files(dataset.path)
    count = 0
    with closing(Progress(paths)) as progress:
        for path in paths:
            for rows in read(progress.watch(path), str(path), Source({}, {}, {}), Problems()):
                for number, line in enumerate(rows.lines):
                    if numbers is None or count in numbers:
                        record = cast("Record", rows.row(number))
                        yield count, f"{rows.prefix}{line}", record, example_or_loss(reader, record)
                    count += 1


def label_of(example: Example | str) -> str:
    """The label of a row: its mark (KTO), its answer if that is short, "" for other rows."""
    if isinstance(example, str) or not example.answers:
        return ""
    if example.mark is not None:
        return MARKS[example.mark]
    answer = example.answers[0][1]
    if len(example.answers) > 1 or len(answer) > LONGEST:
        return ""
    return answer


def source_of(record: Record) -> str:
    """The value of a record's column `source`, "" if it has none or a long one."""
    value = record.get("source")
    if not isinstance(value, str) or len(value) > LONGEST:
        return ""
    return value


def _text_codes(example: Example | str) -> list[str]:
    if isinstance(example, str):
        return []
    answers = [text for _, text in example.answers]
    texts = [example.system, *(text for _, text in example.turns), *answers]
    return codes_of_texts(texts, answers)


def _add_print(prints: Fingerprints, example: Example | str, row: int) -> None:
    """Note the hashes of input and answer. A lost record equals no other."""
    if isinstance(example, str):
        prints.prompts.fromlist([hash(("lost", row))])
        prints.answers.fromlist([0])
        return
    turns = tuple((role, plain_text(text)) for role, text in example.turns)
    prompt = (turns, plain_text(example.system), example.tools, tuple(example.paths))
    answers = tuple((role, plain_text(text)) for role, text in example.answers)
    prints.prompts.fromlist([hash(prompt)])
    prints.answers.fromlist([hash((answers, example.mark))])


def _prints_of(dataset: Dataset) -> Fingerprints:
    prints = Fingerprints()
    for row, _, _, example in numbered_records(dataset):
        _add_print(prints, example, row)
    return prints
