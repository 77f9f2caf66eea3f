"""The examples of a compiled dataset, or of any file of records, one after another."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.progress import Progress
from tuneyard.compiler.read import read
from tuneyard.compiler.spec.file import Source
from tuneyard.core.datasets import find_dataset
from tuneyard.core.errors import ContentError, ProblemsError, RequestError
from tuneyard.core.records import (
    MARK,
    PAIR,
    PLACEHOLDERS,
    RecordReader,
    format_of_entry,
    format_of_record,
    require_prompt,
)

OTHER_PARTS = ("tools", *PLACEHOLDERS, *PAIR, MARK)
"""Parts of a record that the model learns from, besides its turns."""
MOST_LABELS = 30
LONGEST = 60  # characters of an answer that may be a label


class StoredExample(NamedTuple):
    """Prompt and answer as text; `other_parts` has the record's tools, media and the like as JSON.

    `key` is a hash (8 bytes) of the prompt's text. `content` is a hash of the answer, of `other_parts`, and
    of the roles and lengths of the turns. `label` is the answer, "" if it is too long for a label.
    """

    place: str
    prompt: str
    answer: str
    other_parts: str
    idx: object
    key: int
    content: int
    label: str


def few(labels: Counter[str]) -> Counter[str]:
    """The count of each label, empty if the answers are not few short texts."""
    if "" in labels or len(labels) > MOST_LABELS:
        return Counter()
    return labels


def stored_examples(name: str, folder: Path) -> Iterator[StoredExample]:
    """Yield the examples of a registered dataset, or of a file of records (`….json`, `….jsonl`, …).

    After two seconds a bar appears on stderr. Memory holds some hundred records. `RequestError` if there is
    no such dataset, `ContentError` for a record that does not fit its entry.
    """
    path = Path(name)
    entry: dict[str, object] = {}
    if not path.is_file():
        if "/" in name:
            raise RequestError(f"{name}: file not found; expected a dataset's name or a file of records")
        dataset = find_dataset(name, folder)
        path, entry = dataset.path, dataset.entry
    reader = RecordReader(format_of_entry(entry))
    problems = Problems()
    with closing(Progress([path])) as progress:
        for rows in read(progress.watch(path), str(path), Source({}, {}, {}), problems):
            for number, line in enumerate(rows.lines):
                record, place = rows.row(number), f"{rows.prefix}{line}"
                if not isinstance(record, dict):
                    raise ContentError(f"{place}: expected a record, an object")
                if not entry:
                    reader = RecordReader(format_of_record(record))
                yield _stored_example(record, reader, place)
    if problems.errors:
        raise ProblemsError(problems.errors, name)


def _stored_example(record: Mapping[str, object], reader: RecordReader, place: str) -> StoredExample:
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
    content = "\x1e".join([answer, other_text, json.dumps([*layout, role])])
    idx = record.get("idx", record.get("id"))
    return StoredExample(
        place=place,
        prompt=prompt,
        answer=answer,
        other_parts=other_text,
        idx=idx if isinstance(idx, str | int) else None,
        key=_hash(prompt),
        content=_hash(content),
        label=answer if len(answer) <= LONGEST else "",
    )


def _hash(text: str) -> int:
    data = text.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
