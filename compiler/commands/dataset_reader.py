"""The examples of a compiled dataset, or of any file of records, some hundreds at a time."""

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, cast

from xxhash import xxh3_64_intdigest

from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.progress import Progress
from tuneyard.compiler.read import read
from tuneyard.compiler.rows import Line, ObjectRows, Rows
from tuneyard.compiler.spec.file import Source
from tuneyard.core.datasets import find_dataset
from tuneyard.core.errors import ContentError, ProblemsError, RequestError
from tuneyard.core.files import files_of
from tuneyard.core.records import (
    BARE_MESSAGES,
    MARK,
    PAIR,
    PLACEHOLDERS,
    RecordFormat,
    RecordReader,
    format_of_entry,
    format_of_record,
    require_prompt,
)

OTHER_PARTS = ("tools", *PLACEHOLDERS, *PAIR, MARK)
"""Parts of a record that the model learns from, besides its turns."""
BY_VALUE = {*BARE_MESSAGES, *PAIR, "conversations"}
"""Columns whose values decide on the format of a record without a registry entry."""
MOST_LABELS = 30
LONGEST = 60  # characters of an answer that may be a label
SEPARATOR = "\x1e"


class StoredExample(NamedTuple):
    """Prompt and answer as text; `details` has the rest that the model learns from, as JSON.

    That is the record's tools, media and the like, and the roles and lengths of its turns.
    """

    prompt: str
    answer: str
    details: str
    idx: object


@dataclass(slots=True)
class StoredExamples:
    """Examples that follow one another, as columns. `prefix` + line is the place of each."""

    prefix: str
    lines: Sequence[Line]
    prompts: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    ids: list[object] = field(default_factory=list)

    def labels(self) -> list[str]:
        """The answers, with "" in place of those that are too long for a label."""
        if max(map(len, self.answers), default=0) <= LONGEST:
            return self.answers
        return [answer if len(answer) <= LONGEST else "" for answer in self.answers]

    def add_to(self, prints: Fingerprints) -> None:
        """Add the places and keys (8 bytes): of the prompts, and as answers of whole examples."""
        prints.begin(self.prefix, self.lines)
        keys = _hashes(self.prompts)
        contents = list(map(SEPARATOR.join, zip(self.answers, self.details, strict=True)))
        prints.prompts.extend(_signed(keys))
        prints.answers.extend(_signed(_hashes(contents, keys)))


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
    paths = [Path(name)]
    entry: dict[str, object] = {}
    if not paths[0].is_file():
        if "/" in name:
            raise RequestError(f"{name}: file not found; expected a dataset's name or a file of records")
        dataset = find_dataset(name, folder)
        paths, entry = files_of(dataset.path), dataset.entry
    problems = Problems()
    with closing(Progress(paths)) as progress:
        for path in paths:
            for rows in read(progress.watch(path), str(path), Source({}, {}, {}), problems):
                if rows.lines:
                    yield _plain_examples(rows, entry) or _any_examples(rows, entry)
    if problems.errors:
        raise ProblemsError(problems.errors, name)


def _plain_examples(rows: Rows, entry: Mapping[str, object]) -> StoredExamples | None:
    """Examples of question, input and answer alone, in columns. None for any others: `_any_examples`."""
    if isinstance(rows, ObjectRows):
        if set(map(type, rows.rows)) != {dict}:
            return None
        names = set().union(*rows.rows)
    else:
        names = set(rows.columns)
    if not entry and names & BY_VALUE:
        return None
    record_format = format_of_entry(entry) if entry else format_of_record(dict.fromkeys(names))
    if record_format.formatting != "alpaca" or record_format.text_only or record_format.ranking:
        return None
    if _has_other_parts(rows, names, record_format):
        return None
    columns = record_format.columns
    prompts = _texts(rows, columns.get("prompt"))
    answers = _texts(rows, columns.get("response"))
    if not prompts or not answers:
        return None
    query = columns.get("query")
    if query in names:
        queries = _texts(rows, query)
        if not queries:
            return None
        if any(queries):
            pairs = zip(prompts, queries, strict=True)
            prompts = [f"{prompt}\n{text}" if prompt and text else prompt or text for prompt, text in pairs]
    ids: list[object] = [None] * len(prompts)
    id_column = "idx" if "idx" in names else "id"
    if id_column in names:
        ids = _values(rows, id_column)
        if None in ids and {"idx", "id"} <= names:
            return None
    # as `_any_examples` writes them, which a test compares
    details = [f'{SEPARATOR}[["user", {len(prompt)}], "assistant"]' for prompt in prompts]
    return StoredExamples(rows.prefix, rows.lines, prompts, answers, details, ids)


def _has_other_parts(rows: Rows, names: set[str], record_format: RecordFormat) -> bool:
    """True if a record has a part besides its prompt, query and answer."""
    for part in ("system", "history", *OTHER_PARTS):
        column = record_format.columns.get(part)
        if column in names and any(value not in (None, "", []) for value in _values(rows, column)):
            return True
    return False


def _values(rows: Rows, column: str) -> list[object]:
    """The values of a column, None for a row without it."""
    if not isinstance(rows, ObjectRows):
        return list(rows.columns[column])
    try:
        return list(map(itemgetter(column), rows.rows))
    except KeyError:
        return [row.get(column) for row in rows.rows]


def _texts(rows: Rows, column: str | None) -> list[str]:
    """The values of a column, [] if one of them is no text."""
    if column is None or not (isinstance(rows, ObjectRows) or column in rows.columns):
        return []
    values = _values(rows, column)
    if set(map(type, values)) != {str}:
        return []
    return cast("list[str]", values)


def _any_examples(rows: Rows, entry: Mapping[str, object]) -> StoredExamples:
    """Examples of any format, record by record."""
    examples = StoredExamples(rows.prefix, rows.lines)
    reader = RecordReader(format_of_entry(entry))
    for number, line in enumerate(rows.lines):
        record, place = rows.row(number), f"{rows.prefix}{line}"
        if not isinstance(record, dict):
            raise ContentError(f"{place}: expected a record, an object")
        if not entry:
            reader = RecordReader(format_of_record(record))
        prompt, answer, details, idx = _example(record, reader, place)
        examples.prompts.append(prompt)
        examples.answers.append(answer)
        examples.details.append(details)
        examples.ids.append(idx)
    return examples


def _example(record: Mapping[str, object], reader: RecordReader, place: str) -> StoredExample:
    require_prompt(record, reader.format, place)
    try:
        example = reader.read(record)
    except ContentError as error:
        raise ContentError(f"{place}: {error}") from error
    turns = example.turns
    if example.system:
        turns = [("system", example.system), *turns]
    prompt = "\n".join(text for _, text in turns)
    role, answer = "", ""
    if example.answers:
        role, answer = example.answers[0]
    layout: list[object] = [(turn_role, len(text)) for turn_role, text in turns]
    other_parts = {}
    for part in OTHER_PARTS:
        column = reader.columns.get(part)
        if column is not None and record.get(column):
            other_parts[column] = record[column]
    other_text = ""
    if other_parts:
        other_text = json.dumps(other_parts, ensure_ascii=False, sort_keys=True)
    details = SEPARATOR.join([other_text, json.dumps([*layout, role])])
    return StoredExample(prompt, answer, details, record.get("idx", record.get("id")))


def _hashes(texts: Sequence[str], *seeds: Sequence[int]) -> list[int]:
    """The hash of each text as UTF-8."""
    try:
        encoded = list(map(str.encode, texts))
    except UnicodeEncodeError:  # half of a character
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return list(map(xxh3_64_intdigest, encoded, *seeds))


def _signed(keys: list[int]) -> "array[int]":
    """The same 64 bits of each key as signed numbers, as `Fingerprints` has them."""
    return array("q", array("Q", keys).tobytes())
