"""Text in lines: csv with quoted fields, GLUE's tsv, in which a quote is just a quote, plain text."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import OpenFile, reader, refuse_twice
from tuneyard.compiler.read.stream import (
    RECORD,
    TooLongError,
    blocks,
    cut_off,
    encoding_hint,
    too_long,
    whole_lines,
)
from tuneyard.compiler.rows import ObjectRows, Place, Rows, TableRows
from tuneyard.compiler.spec.file import Source
from tuneyard.core.errors import Problem, show_value

BATCH = 1000
QUESTIONS = ("问", "问题", "提问", "q", "question")
"""Speakers of questions that stand alone, in small letters."""
SPEAKERS = {
    **dict.fromkeys(
        (
            *QUESTIONS, "user", "human", "customer", "client", "caller", "visitor", "patient", "student",
            "用户", "客户", "顾客", "患者", "学生",
        ),
        "user",
    ),
    **dict.fromkeys(
        (
            "答", "回答", "答案", "a", "answer", "assistant", "ai", "bot", "gpt", "agent", "support",
            "operator", "advisor", "doctor", "teacher", "助手", "客服", "坐席", "医生", "老师",
        ),
        "assistant",
    ),
    **dict.fromkeys(("system", "系统"), "system"),
}  # fmt: skip
"""Roles by the names of speakers: turns in a text begin with them, a table has them in a column."""
_LONGEST_FIRST = "|".join(sorted(SPEAKERS, key=len, reverse=True))
SPEAKER = re.compile(rf"[ \t#*]*({_LONGEST_FIRST})[ \t*]*[:：][ \t*]*", re.I)
_SURROGATE = re.compile("[\udc80-\udcff]")
Fields = list[str]
Lines = Iterator[tuple[Sequence[int], list[Fields]]]  # their numbers and fields, some hundreds at a time


def _lines_of(source: Source, kind: str) -> "tuple[Callable[[_Text, str, Problems], Lines], str]":
    """The function that reads the lines of a table, and the delimiter."""
    usual_delimiter = "\t" if kind == ".tsv" else ","
    quoted = source.quoted if source.quoted is not None else kind == ".csv"
    return _quoted if quoted else _unquoted, source.delimiter or usual_delimiter


@reader(".csv", ".tsv")
def read_table(file: OpenFile, problems: Problems) -> Iterator[TableRows]:
    """Yield the rows below a header. Rows with another number of fields are problems."""
    source, display_path = file.source, file.display_path
    text = _Text(file.stream, display_path)
    header: Fields | None = list(source.header) or None
    read_lines, delimiter = _lines_of(source, file.kind)
    for lines, rows in read_lines(text, delimiter, problems):
        while header is None and rows and rows[0] in ([], [""]):
            lines, rows = lines[1:], rows[1:]
        if header is None and rows:
            header, lines, rows = rows[0], lines[1:], rows[1:]
            if _SURROGATE.search("".join(header)):
                problems.bad_file(_undecodable(header, f"{display_path}:1", text.last))
                return
            if refuse_twice(header, f"{display_path}:1", problems):
                return
        if header is None:
            continue
        if set(map(len, rows)) != {len(header)} or text.undecoded or header in rows:
            lines, rows = _good(header, lines, rows, text, problems)
        columns: dict[str, Sequence[object]] = dict.fromkeys(header, ())
        if rows:
            columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        yield TableRows(f"{display_path}:", lines, columns, typed=False)


@reader(".txt", ".md")
def read_text(file: OpenFile, problems: Problems) -> Iterator[Rows]:
    """Yield lines as rows with the field `text`, without blank ones. Broken UTF-8 is a problem.

    A .md is one row; what a .txt is, `rows` of its source says.
    """
    form = file.source.steps(file.split)
    if file.kind == ".md" or form == ("file",):
        yield from _document(file, problems)
    elif form == ("turns",):
        yield from _dialogues(_text_rows(file, problems), f"{file.display_path}:", problems)
    else:
        yield from _text_rows(file, problems)


def _document(file: OpenFile, problems: Problems) -> Iterator[TableRows]:
    """Yield one row for a whole file, none for a blank one."""
    place = f"{file.display_path}:1"
    data = file.stream.read(RECORD + 1)
    if len(data) > RECORD:
        problems.bad_file(too_long(place))
        return
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        message = f"not UTF-8: 0x{data[error.start]:02x} at byte {error.start + 1} of the file"
        problems.bad_row(
            [Problem("E001", Place(f"{file.display_path}:", 1), message, hint=encoding_hint())], ""
        )
        return
    if text.strip():
        text = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
        yield TableRows(f"{file.display_path}:", [1], {"text": [text]}, typed=False)


def _dialogues(batches: Iterator[TableRows], prefix: str, problems: Problems) -> Iterator[ObjectRows]:
    """Yield a row of `messages` for each dialogue; lines without a speaker belong to the turn before them.

    A question begins a dialogue. So does a user's turn after a blank line.
    """
    first = 0
    turns: list[dict[str, object]] = []
    last_line = 0
    for batch in batches:
        for line, text in zip(batch.lines, batch.columns["text"], strict=True):
            number, spoken = int(str(line)), str(text)
            speaker = SPEAKER.match(spoken)
            if speaker is None:
                if turns:
                    between = "\n" * (number - last_line)
                    turns[-1]["content"] = f"{turns[-1]['content']}{between}{spoken.rstrip()}"
                else:
                    message = f"found {show_value(spoken)}, expected a speaker, as User: or 问："
                    problems.bad_row([Problem("E005", Place(prefix, number), message)], {"text": spoken})
                last_line = number
                continue
            name = speaker[1].lower()
            role = SPEAKERS[name]
            if turns and role == "user" and (name in QUESTIONS or number > last_line + 1):
                yield ObjectRows(prefix, [first], [{"messages": turns}])
                turns = []
            if not turns:
                first = number
            turns.append({"role": role, "content": spoken[speaker.end() :].strip()})
            last_line = number
    if turns:
        yield ObjectRows(prefix, [first], [{"messages": turns}])


def _text_rows(file: OpenFile, problems: Problems) -> Iterator[TableRows]:
    text = _Text(file.stream, file.display_path)
    for numbers, rows in _unquoted(text, "\n", problems):
        kept = {}
        for number, (line,) in zip(numbers, rows, strict=True):
            wrong = _SURROGATE.search(line) if text.undecoded else None
            if wrong:
                message = f"not UTF-8: byte {len(line[: wrong.start()].encode()) + 1} of the line"
                problem = Problem(
                    "E001", Place(f"{file.display_path}:", number), message, hint=encoding_hint()
                )
                problems.bad_row([problem], {"text": _escaped([line])[0]})
            elif line.strip():
                kept[number] = line
        if kept:
            yield TableRows(f"{file.display_path}:", list(kept), {"text": list(kept.values())}, typed=False)


def _good(
    header: Fields, lines: Sequence[int], rows: list[Fields], text: "_Text", problems: Problems
) -> tuple[list[int], list[Fields]]:
    kept = []
    for number, row in enumerate(rows):
        if row in ([], [""]):
            if len(header) > 1:
                continue
            rows[number] = row = [""]  # a blank line, or "": of a single column, both are a row
        place = Place(f"{text.display_path}:", lines[number])
        if text.undecoded and _SURROGATE.search("".join(row)):
            problems.bad_row([_undecodable(row, place, text.last)], _escaped(row))
        elif len(row) != len(header):
            message = f"found {len(row)} fields, expected {len(header)} as in the header"
            problems.bad_row([Problem("E008", place, message)], row)
        elif row == header:
            problems.bad_row([Problem("E010", place, "found the header again, expected a row")], row)
        else:
            kept.append(number)
    return [lines[i] for i in kept], [rows[i] for i in kept]


def _undecodable(row: Fields, place: str, last: str) -> Problem:
    try:
        row[-1].encode(errors="surrogateescape").decode()
    except UnicodeDecodeError as error:
        cut = cut_off(error, place)
        if last.endswith(row[-1]) and cut:
            return cut
    text = "\t".join(row)
    start = next(_SURROGATE.finditer(text)).start()
    where = f"0x{ord(text[start]) - 0xDC00:02x} at column {start + 1} of the row"
    return Problem("E001", place, f"not UTF-8: {where}", hint=encoding_hint())


def _escaped(row: Fields) -> Fields:
    return [field.encode(errors="surrogateescape").decode(errors="backslashreplace") for field in row]


def _unquoted(text: "_Text", delimiter: str, problems: Problems) -> Lines:
    start = 1
    try:
        for block in text.blocks():
            if "\r" in block:
                block = block.replace("\r\n", "\n").removesuffix("\r")
                if delimiter == "\n":  # plain text: a carriage return alone ends a line, too
                    block = block.replace("\r", "\n")
            rows = [line.split(delimiter) for line in block.removesuffix("\n").split("\n")]
            yield range(start, start + len(rows)), rows
            start += len(rows)
    except TooLongError:
        problems.bad_file(too_long(f"{text.display_path}:{start}"))


def _quoted(text: "_Text", delimiter: str, problems: Problems) -> Lines:
    csv.field_size_limit(2 * RECORD)  # never reached: the lines of a row are counted
    row_size = 0  # characters
    unread = 0  # lines of the block
    line = 1
    rows: list[Fields] = []
    lines: list[int] = []

    def counted() -> Iterator[str]:
        nonlocal row_size, unread
        for block in text.blocks():
            lines_of_block = io.StringIO(block, newline="\n").readlines()
            unread = len(lines_of_block)
            for ended in lines_of_block:
                unread -= 1
                row_size += len(ended)
                if row_size > RECORD:
                    raise TooLongError
                yield ended

    reader = csv.reader(counted(), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            rows.append(row)
            lines.append(line)
            line = 1 + reader.line_num
            row_size = 0
            if not unread or len(rows) == BATCH:
                yield lines, rows
                rows, lines = [], []
    except csv.Error as error:
        message = f"broken quoting: {error}"
        hint = "a field opened with a quote must be closed; quotes inside are doubled"
        if str(error).startswith("new-line character"):
            message = "a carriage return alone, outside quotes"
            hint = "end lines with a line feed, or quote the field"
        problems.bad_file(Problem("E011", f"{text.display_path}:{line}", message, hint=hint))
    except TooLongError:
        problems.bad_file(
            too_long(f"{text.display_path}:{line}", "a field opened with a quote must be closed")
        )
    if rows:
        yield lines, rows


class _Text:
    """The lines of a stream. Bytes that are not UTF-8 become surrogates."""

    def __init__(self, stream: io.BufferedReader, display_path: str) -> None:
        self.stream, self.display_path, self.undecoded = stream, display_path, False
        self.ends_in_returns = False  # its lines: none ends with a line feed
        self.last = ""  # text after the end of the last line

    def blocks(self) -> Iterator[str]:
        """Yield the text of some hundred whole lines at a time."""
        for data in whole_lines(blocks(self.stream)):
            try:
                text = data.decode()
            except UnicodeDecodeError:
                self.undecoded = True
                text = data.decode(errors="surrogateescape")
            if not self.last:
                self.ends_in_returns = "\n" not in text and "\r" in text.rstrip("\r")
            if self.ends_in_returns:
                text = text.replace("\r", "\n")
            self.last = text[text.rfind("\n") + 1 :]
            yield text
