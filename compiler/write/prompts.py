"""The prompts of the examples that a compile writes, for the fingerprints in the row index."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from tuneyard.core.records import PLACEHOLDERS, RecordFormat
from tuneyard.core.records.row_index import SEPARATOR

Columns = Mapping[str, Sequence[Any]]
PARTS = ("prompt", "query", "history", "messages", *PLACEHOLDERS)


def columns_of_prompts(record_format: RecordFormat) -> list[str]:
    """The keys of a record whose values `prompts` needs."""
    return [record_format.columns[part] for part in PARTS if part in record_format.columns]


def prompts(record_format: RecordFormat, columns: Columns) -> list[str]:
    """The prompts of rendered examples: turns before the answer and paths of media, joined by `SEPARATOR`.

    `columns` has the values of the records by key. `read_example` gives the same for each record.
    """
    names = record_format.columns
    if record_format.formatting == "alpaca":
        texts = _of_questions(names, columns)
    else:
        texts = _of_turns(record_format, columns[names["messages"]])
    for media in PLACEHOLDERS:
        if media in names:
            pairs = zip(texts, columns[names[media]], strict=True)
            texts = [SEPARATOR.join([text, *paths]) for text, paths in pairs]
    return texts


def _of_questions(names: Mapping[str, str], columns: Columns) -> list[str]:
    texts = list(columns[names["prompt"]])
    queries = columns[names["query"]] if "query" in names else ()
    if any(queries):
        texts = ["\n".join(filter(None, each)) for each in zip(texts, queries, strict=True)]
    if "history" in names:
        histories = columns[names["history"]]
        pairs = zip(histories, texts, strict=True)
        texts = [SEPARATOR.join([*chain.from_iterable(history), text]) for history, text in pairs]
    return texts


def _of_turns(record_format: RecordFormat, talks: Sequence[Any]) -> list[str]:
    tags = record_format.tags
    role, content, system = tags["role_tag"], tags["content_tag"], tags["system_tag"]
    end = None if record_format.ranking else -1
    texts = []
    for talk in talks:
        asked = [turn[content] for turn in talk[:end] if turn[role] != system]
        texts.append(SEPARATOR.join(asked))
    return texts
