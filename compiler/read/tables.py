"""Delimited text: csv with quoted fields, and GLUE's tsv, in which a quote is a quote and nothing else."""

import csv
import io
import re
from collections.abc import Iterator, Sequence

from compiler.problems import Problems
from compiler.read.stream import BLOCK
from compiler.rows import Table
from compiler.spec import Source
from core.errors import Problem

BATCH = 1000
_SURROGATE = re.compile("[\udc80-\udcff]")
Fields = list[str]


def read_table(
    stream: io.BufferedReader, shown: str, kind: str, source: Source, problems: Problems
) -> Iterator[Table]:
    """Yield the rows below a header; rows with another number of fields are problems."""
    delimiter = source.delimiter or ("\t" if kind == ".tsv" else ",")
    quoted = source.quoted if source.quoted is not None else kind == ".csv"
    text = _Text(stream, shown)
    blocks = _quoted(text, delimiter, problems) if quoted else _unquoted(text, delimiter)
    header: Fields | None = None
    for lines, rows in blocks:
        while header is None and rows and rows[0] in ([], [""]):
            lines, rows = lines[1:], rows[1:]
        if header is None and rows:
            header, lines, rows = rows[0], lines[1:], rows[1:]
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                problems.bad_file(Problem("E009", f"{shown}:1", "the header names it twice", twice or '""'))
                return
        if header is not None:
            yield from _table(header, lines, rows, text, problems)


def _table(
    header: Fields, lines: Sequence[int], rows: list[Fields], text: "_Text", problems: Problems
) -> Iterator[Table]:
    if set(map(len, rows)) != {len(header)} or text.undecoded or header in rows:
        lines, rows = _good(header, lines, rows, text, problems)
    if rows:
        yield Table(
            f"{text.shown}:", lines, dict(zip(header, zip(*rows, strict=True), strict=True)), typed=False
        )


def _good(
    header: Fields, lines: Sequence[int], rows: list[Fields], text: "_Text", problems: Problems
) -> tuple[list[int], list[Fields]]:
    kept = []
    for number, row in enumerate(rows):
        if not row or (row == [""] and len(header) > 1):
            continue
        place = f"{text.shown}:{lines[number]}"
        if text.undecoded and _SURROGATE.search("".join(row)):
            problems.bad_row([_undecodable(row, place)], _escaped(row))
        elif len(row) != len(header):
            message = f"found {len(row)} fields, expected {len(header)} as in the header"
            problems.bad_row([Problem("E008", place, message)], row)
        elif row == header:
            problems.bad_row([Problem("E010", place, "found the header again, expected a row")], row)
        else:
            kept.append(number)
    return [lines[i] for i in kept], [rows[i] for i in kept]


def _undecodable(row: Fields, place: str) -> Problem:
    text = "\t".join(row)
    start = next(_SURROGATE.finditer(text)).start()
    where = f"0x{ord(text[start]) - 0xDC00:02x} at column {start + 1} of the row"
    hint = "name the encoding in a spec under `source:`, such as `encoding: gb18030`"
    return Problem("E001", place, f"not UTF-8: {where}", hint=hint)


def _escaped(row: Fields) -> Fields:
    return [field.encode(errors="surrogateescape").decode(errors="backslashreplace") for field in row]


def _unquoted(text: "_Text", delimiter: str) -> Iterator[tuple[Sequence[int], list[Fields]]]:
    start = 1
    for block in text.blocks():
        rows = [line.split(delimiter) for line in block]
        yield range(start, start + len(rows)), rows
        start += len(rows)


def _quoted(
    text: "_Text", delimiter: str, problems: Problems
) -> Iterator[tuple[Sequence[int], list[Fields]]]:
    csv.field_size_limit(1 << 30)
    reader = csv.reader(
        (line + "\n" for block in text.blocks() for line in block), delimiter=delimiter, strict=True
    )
    rows: list[Fields] = []
    lines: list[int] = []
    line = 1
    try:
        for row in reader:
            rows.append(row)
            lines.append(line)
            line = reader.line_num + 1
            if len(rows) == BATCH:
                yield lines, rows
                rows, lines = [], []
    except csv.Error as error:
        problems.bad_file(_broken(str(error), f"{text.shown}:{line}"))
    if rows:
        yield lines, rows


def _broken(message: str, place: str) -> Problem:
    if message.startswith("new-line character"):
        found = "a carriage return alone, outside quotes"
        return Problem("E011", place, found, hint="end lines with a line feed, or quote the field")
    hint = "a field opened with a quote must be closed; quotes inside are doubled"
    return Problem("E011", place, f"broken quoting: {message}", hint=hint)


class _Text:
    """The lines of a stream, without their ends; bytes that are no UTF-8 stay visible as surrogates."""

    def __init__(self, stream: io.BufferedReader, shown: str) -> None:
        self.stream = stream
        self.shown = shown
        self.undecoded = False

    def blocks(self) -> Iterator[list[str]]:
        """Yield lists of some hundred lines; a carriage return before the line's end is dropped."""
        while data := self.stream.read(BLOCK):
            data += self.stream.readline()
            try:
                text = data.decode()
            except UnicodeDecodeError:
                text = data.decode(errors="surrogateescape")
                self.undecoded = True
            if "\r" in text:
                text = text.replace("\r\n", "\n")
            yield text.removesuffix("\n").split("\n")
