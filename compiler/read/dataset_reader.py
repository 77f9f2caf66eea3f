"""The examples of a compiled dataset, or of any file of records, some hundreds at a time."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tuneyard.compiler.read import read
from tuneyard.compiler.read.stream import Readable, progress_bar
from tuneyard.compiler.rows import Fields, Line, Location, Prefix, Rows
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.file import Source
from tuneyard.core.datasets import find_dataset
from tuneyard.core.errors import ProblemsError, RequestError, show_value
from tuneyard.core.files import Moved, near_name
from tuneyard.core.language.message import _
from tuneyard.core.records import Entry, Example, RecordReader, format_of, format_of_entry

MOST_LABELS = 30
LONGEST = 60  # characters of an answer that may be a label
KTO_LABELS = {True: "good", False: "bad"}
"""Labels of KTO tags."""


@dataclass
class StoredExamples:
    """Examples that follow one another in a file."""

    prefix: Prefix
    lines: Sequence[Line]
    examples: list[Example] = field(default_factory=list)

    def prompts(self) -> list[str]:
        """The system text and the texts of the messages before the answer, a line each."""
        prompts = []
        for example in self.examples:
            texts = [message.text for message in example.messages]
            if example.system:
                texts.insert(0, example.system)
            prompts.append("\n".join(texts))
        return prompts

    def answers(self) -> list[str]:
        """The first answer of each example, "" without one."""
        return [example.answers[0].text if example.answers else "" for example in self.examples]


def label_of(example: Example | str) -> str:
    """The label of a row: its KTO tag, its answer if that is short, "" for other rows."""
    if isinstance(example, str) or len(example.answers) != 1:
        return ""
    if example.desirable is not None:
        return KTO_LABELS[example.desirable]
    answer = example.answers[0].text
    return answer if len(answer) <= LONGEST else ""


def few(labels: Counter[str]) -> Counter[str]:
    """The count of each label, empty if the answers are not few short texts."""
    if "" in labels or len(labels) > MOST_LABELS:
        return Counter()
    return labels


def stored_examples(name: str, folder: Path) -> Iterator[StoredExamples]:
    """Yield the examples of a registered dataset, or of a file of records (`….json`, `….jsonl`, …).

    After two seconds a bar appears on stderr. Memory holds some hundred records. `RequestError` if there is
    no such dataset, `ContentError` for a record that does not fit its entry.
    """
    path = Path(name)
    entry: Fields = {}
    if not path.is_file():
        if "/" in name:
            raise RequestError(
                _(
                    "{path}: expected the name of a dataset or a file of records; {hint}",
                    path=name,
                    hint=near_name(path),
                )
            )
        dataset = find_dataset(name, folder)
        path, entry = dataset.path, dataset.entry
    with progress_bar([path]) as moved:
        for rows in stored_records(path, name, moved):
            yield _examples(rows, entry)


def stored_records(path: Readable, name: str, moved: Moved | None = None) -> Iterator[Rows]:
    """Yield the records of a dataset's file, some hundreds at a time.

    `ProblemsError` after the last one if the file of the dataset `name` cannot be read to its end.
    `moved` gets the numbers of bytes read.
    """
    problems = Problems()
    yield from read(path, str(path), Source(), problems, moved=moved)
    if problems.errors:
        raise ProblemsError(problems.errors, name)


def single_records(path: Readable, name: str) -> Iterator[tuple[Location, Fields]]:
    """Yield each record in a dataset's file, with its location. Errors as for `stored_records`."""
    for rows in stored_records(path, name):
        for number in range(len(rows.lines)):
            yield rows.location(number), rows.row(number)


def _examples(rows: Rows, entry: Entry) -> StoredExamples:
    stored = StoredExamples(rows.prefix, rows.lines)
    reader = RecordReader(format_of_entry(entry))
    for number in range(len(rows.lines)):
        record, location = rows.row(number), rows.location(number)
        if not entry:
            reader = RecordReader(format_of(record, entry))
        stored.examples.append(reader.read_at(record, location))
    return stored


def raw_text(record: object, indent: int | None = None) -> str:
    """A record as JSON, on one line without `indent`. Halves of characters stay escaped."""
    try:
        text = json.dumps(record, ensure_ascii=False, indent=indent, default=str)
    except (RecursionError, ValueError):
        text = show_value(record)
    return text.encode(errors="backslashreplace").decode()
