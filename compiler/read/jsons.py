"""JSON in its layouts: one object a line, or one document that holds all rows."""

import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, compress, repeat
from operator import ne

import orjson

from compiler.problems import Problems
from compiler.read import OpenFile, reader
from compiler.read.array import ambiguous, read_array
from compiler.read.layout import LINES, LOOKED_AT, ROW, layout_of
from compiler.read.scan import Scanner
from compiler.read.stream import TooLongError, blocks, cut_off, too_long, whole_lines
from compiler.rows import ObjectRows
from core.errors import Problem, show_value

DEEPEST = 1024  # lists and objects in one another that orjson reads
CONSTANTS = (b"NaN", b"Infinity", b"-Infinity")
OVER_LINES = (
    "an object over several lines, where each line is a row: name the file .json if that is all of it, "
    "else write each object on one line, as `jq -c .` does"
)
_OPEN = re.compile(rb"\s*\{[ \t]*\r?\n")  # an object that is indented
_SPACED = re.compile(rb'"[ \t\r]+:')


@reader(".json", ".jsonl", ".ndjson")
def read_json(file: OpenFile, problems: Problems) -> Iterator[ObjectRows]:
    """Yield the rows of a JSON file: in .jsonl and .ndjson a line is a row, else the content decides.

    Where the source names no keys that lead to a document's rows, what it was taken for is noted.
    """
    stream, shown, kind, source = file.stream, file.shown, file.kind, file.source
    steps = source.steps(file.split)
    start, head = 1, b""
    while not head.strip():
        start += head.count(b"\n")
        head = stream.read(LOOKED_AT)
        if not head:
            return
    chunks = chain([head], blocks(stream))
    in_lines = kind != ".json" and head.lstrip()[:1] != b"["
    layout = LINES if in_lines else layout_of(head, len(head) < LOOKED_AT, source.is_row)
    if layout.said and not (steps or in_lines or len(layout.lists) > 1):
        problems.notes.append(f"{shown}: read as {layout.said}")
    if steps and in_lines:
        message = f"`rows: {'.'.join(steps)}` leads into one document, and in {kind} each line is a row"
        problems.bad_file(Problem("E007", f"{shown}:{start}", message))
    elif not steps and len(layout.lists) > 1:
        problems.bad_file(Problem("E007", f"{shown}:{start}", ambiguous(list(layout.lists))))
    elif not steps and layout is LINES and _OPEN.match(head):
        problems.bad_file(Problem("E007", f"{shown}:{start}", OVER_LINES))
    elif not steps and layout.steps is None:
        yield from _read_lines(chunks, shown, start, problems)
    else:
        scanner = Scanner(chunks, start)
        way = steps or (None if layout is ROW else layout.steps or ())
        known = {path[0] for path in source.rows.values()}
        yield from read_array(scanner, shown, way, not steps, problems, known)


def _read_lines(chunks: Iterable[bytes], shown: str, start: int, problems: Problems) -> Iterator[ObjectRows]:
    prefix, offset = f"{shown}:", 0
    try:
        for data in whole_lines(chunks):
            block = io.BytesIO(data).readlines()
            lines: Sequence[int] = range(start, start + len(block))
            try:
                rows = list(map(orjson.loads, block))
                good = set(map(type, rows)) == {dict} and not _some_repeat(block, rows)
            except orjson.JSONDecodeError:
                good = False
            if not good:
                lines, rows = _parse_each(block, start, prefix, offset, problems)
            if rows:
                yield ObjectRows(prefix, lines, rows)
            start, offset = start + len(block), offset + len(data)
    except TooLongError:
        problems.bad_file(too_long(f"{shown}:{start}"))


def _parse_each(
    block: list[bytes], start: int, prefix: str, offset: int, problems: Problems
) -> tuple[list[int], list[dict[str, object]]]:
    """Return the good ones of lines, with their numbers; what is wrong with the others is a problem."""
    lines, rows = [], []
    for number, text in enumerate(block, start):
        place, shown = f"{prefix}{number}", text.decode(errors="backslashreplace").rstrip("\r\n")
        try:
            row = orjson.loads(text)
            if not isinstance(row, dict):
                message = f"found {show_value(row)}, expected an object"
                problems.bad_row([Problem("E005", place, message)], row)
            elif (key := _repeated(text, row)) is not None:
                problem = Problem("E006", place, "the key stands twice in one object", key)
                problems.bad_row([problem], shown)
            else:
                lines.append(number)
                rows.append(row)
        except orjson.JSONDecodeError as error:
            if text.strip():
                problems.bad_row([_broken(text, place, offset, error)], shown)
        offset += len(text)
    return lines, rows


def _broken(text: bytes, place: str, offset: int, error: orjson.JSONDecodeError) -> Problem:
    try:
        text.decode()
    except UnicodeDecodeError as wrong:
        if cut := cut_off(wrong, place):
            return cut
        where = f"byte {offset + wrong.start} of the file, column {len(text[: wrong.start].decode()) + 1}"
        hint = "name the file's encoding in a spec under `source:`, or mend the line"
        return Problem("E001", place, f"not UTF-8: 0x{text[wrong.start]:02x} at {where}", hint=hint)
    rest = text.decode()[error.pos :].encode()
    constant = next((name.decode() for name in CONSTANTS if rest.startswith(name)), None)
    if constant:
        message = f"found {constant} at column {error.colno}: not JSON"
        return Problem("E002", place, message, hint="write null or a number")
    return Problem("E002", place, f"broken JSON at column {error.colno}: {error.msg.split(': line')[0]}")


def _some_repeat(block: list[bytes], rows: list[dict[str, object]]) -> bool:
    """Whether a row names a key twice (orjson keeps the last): more colons than keys show where to look."""
    colons = map(bytes.count, block, repeat(b":"))
    odd = compress(range(len(rows)), map(ne, colons, map(len, rows)))
    return any(_repeated(block[number], rows[number]) is not None for number in odd)


def _repeated(text: bytes, row: dict[str, object]) -> str | None:
    """Return the first key that stands twice in one object of a row: `":` ends one.

    Values that hold `":` or objects make a closer look due; only blanks before a colon could hide a key.
    """
    if text.count(b'":') == len(row) and not _SPACED.search(text):
        return None
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + DEEPEST)
    try:
        _DECODER.decode(text.decode())
    except RepeatedError as error:
        return str(error)
    finally:
        sys.setrecursionlimit(limit)
    return None


class RepeatedError(Exception):
    """A key stands twice in one object."""


def _once(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RepeatedError(next(key for key in keys if keys.count(key) > 1))


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_int=str, parse_float=str)
