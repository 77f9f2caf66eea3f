"""Find columns of JSON Lines that LLaMA-Factory would read as timestamps instead of texts.

Its loader gives files of lines to pyarrow. pyarrow reads a column as timestamps if every text of it is one:
`2023-05-02`, also with a time and a zone. Then the answer is not a text, and the row is dropped. The
`datasets` library (4.0.0, packaged_modules/json) reads `BATCH` bytes and the rest of the line at a time. Each
of these batches gets its types separately. A JSON array goes through pandas, which keeps texts.
"""

import io
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import pyarrow

BATCH = 10 << 20
_HEAD = 1 << 16
_LIKE_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d[\d:]*(?:Z|[+-]\d\d[\d:]*)?)?")
_QUOTED_TIMESTAMP = re.compile(rb'"\d{4}-\d\d-\d\d')


def looks_like_timestamp(value: object) -> bool:
    """True if pyarrow may read a value as a timestamp. It refuses some more, such as the 30th of February."""
    return isinstance(value, str) and _LIKE_TIMESTAMP.fullmatch(value) is not None


def timestamps_in_file(path: Path, columns: Collection[str]) -> dict[str, int]:
    """Columns that LLaMA-Factory reads as timestamps, with the first line (from 1) for which it does.

    Of most batches only the first line is read. Holds one batch in memory.
    """
    first_lines: dict[str, int] = {}
    for start, end, first_line in _batches(path):
        suspects = [column for column in columns if column not in first_lines]
        suspects = _suspects(first_line, suspects)
        if suspects:
            timestamps = _read_as_timestamps(_bytes_of(path, start, end), suspects)
            if timestamps:
                line = _lines_before(path, start) + 1
                first_lines |= dict.fromkeys(timestamps, line)
    return first_lines


def texts_after_timestamps(path: Path, columns: Collection[str]) -> dict[str, int]:
    """Columns that are timestamps in the loader's first batch and texts in a later batch.

    The value is the first line (from 1) of the later batch. The loader gives every batch the types of the
    first, and stops at a text.
    """
    timestamps: set[str] = set()
    first_lines: dict[str, int] = {}
    for start, end, first_line in _batches(path):
        if start == 0:
            suspects = _suspects(first_line, columns)
            if suspects:
                timestamps = _read_as_timestamps(_bytes_of(path, start, end), suspects)
        else:
            from pyarrow.types import is_string

            types = _types(_bytes_of(path, start, end))
            texts = {
                column for column in timestamps if column in types and _is_or_has(types[column], is_string)
            }
            if texts:
                first_lines |= dict.fromkeys(texts, _lines_before(path, start) + 1)
            timestamps -= texts
        if not timestamps:
            break
    return first_lines


def is_date_by_name(column: str) -> bool:
    """True if pandas reads a column of a JSON array as dates by its name (`convert_dates` of `read_json`)."""
    name = column.lower()
    return name.endswith(("_at", "_time")) or name.startswith("timestamp") or name in ("modified", "date")


def timestamps_in_records(records: list[bytes], columns: Collection[str]) -> set[str]:
    """Columns of records (JSON texts) that LLaMA-Factory reads as timestamps if it reads no others."""
    suspects = _suspects(records[0], columns) if records else []
    return _read_as_timestamps(b"\n".join(records), suspects) if suspects else set()


def _suspects(line: bytes, columns: Collection[str]) -> list[str]:
    """Columns that a first record does not clear: it holds something like a timestamp, or nothing."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return list(columns)
    if not isinstance(record, dict):
        return []
    suspects = []
    for column in columns:
        texts = list(_texts(record.get(column)))
        if not texts or any(looks_like_timestamp(text) for text in texts):
            suspects.append(column)
    return suspects


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts inside a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        items = value.values() if isinstance(value, dict) else value
        for item in items:
            yield from _texts(item)


def _batches(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Start, end and first line of each part that the loader reads in one piece; nothing of an array."""
    with path.open("rb") as file:
        if file.read(_HEAD).lstrip().startswith(b"["):
            return
        start = 0
        while True:
            file.seek(start)
            first_line = file.readline()
            if not first_line:
                return
            file.seek(start + BATCH)
            file.readline()
            end = file.tell()
            yield start, end, first_line
            start = end


def _bytes_of(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)


def _read_as_timestamps(lines: bytes, columns: Collection[str]) -> set[str]:
    """Columns that the loader reads as timestamps."""
    if not _QUOTED_TIMESTAMP.search(lines):
        return set()
    from pyarrow.types import is_timestamp

    types = _types(lines)
    return {column for column in columns if column in types and _is_or_has(types[column], is_timestamp)}


def _types(lines: bytes) -> "dict[str, pyarrow.DataType]":
    """Ask pyarrow, as the loader does; {} if it cannot read the lines, which pandas then reads."""
    import pyarrow
    from pyarrow.json import ReadOptions, read_json

    try:
        table = read_json(io.BytesIO(lines), read_options=ReadOptions(block_size=len(lines) + 1))
    except pyarrow.ArrowException:
        return {}
    return {field.name: field.type for field in table.schema}


def _is_or_has(type_: "pyarrow.DataType", is_of_kind: Callable[[Any], bool]) -> bool:
    """True if a type, or a type inside it at any depth, is of a kind."""
    if is_of_kind(type_):
        return True
    children = [type_.field(number).type for number in range(type_.num_fields)]
    return any(_is_or_has(child, is_of_kind) for child in children)


def _lines_before(path: Path, offset: int) -> int:
    count = 0
    with path.open("rb") as file:
        while offset > 0:
            piece = file.read(min(offset, 1 << 20))
            if not piece:
                break
            count += piece.count(b"\n")
            offset -= len(piece)
    return count
