"""Text in lines: csv with quoted fields, GLUE's tsv, in which a quote is just a quote, plain text."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tuneyard.compiler.chat.chats import NumberedLines, chat_messages
from tuneyard.compiler.chat.message_forms import QUESTIONS, SPEAKER, SPEAKERS
from tuneyard.compiler.read import TEXTS, OpenFile, reader, refuse_twice
from tuneyard.compiler.read.stream import TooLongError, blocks, too_long, undecodable, whole_lines
from tuneyard.compiler.rows import Fields, Location, ObjectRows, Prefix, Rows, TableRows
from tuneyard.compiler.rows.problem_codes import NOT_AN_OBJECT
from tuneyard.compiler.rows.problems import Problems, UnreadableFileError
from tuneyard.core.errors import Problem, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files.bounded_reading import FREE_EXPANSION, LARGEST_RECORD, ROW_COST, LargeDataError
from tuneyard.core.language.message import _

FIELD_COUNT = ProblemCode(
    "E008",
    _("more or fewer fields than the header"),
    _("Correct the row; write `quoted: true` under `source:` for a tsv with quoted fields."),
)
REPEATED_HEADER = ProblemCode(
    "E010",
    _("a header among the rows"),
    _("Delete this line."),
    _("Two files were joined."),
)
BROKEN_QUOTING = ProblemCode(
    "E011",
    _("broken quoting"),
    _("Close the quote; double quotes inside a field."),
)
MAY_CONTINUE = ProblemCode(
    "W225",
    _("a conversation that may go on after a blank line"),
    _("Leave no blank lines inside a conversation."),
)


BATCH = 1000
EXCEL = "sep="
"""The beginning of a line above the header that names the delimiter for Excel."""
BYTE_ORDER_MARK = "\ufeff"
"""The byte-order mark, which is inside a file that was joined from several."""
MOST_AROUND = 8
"""Blanks, quotes and a mark around the name of a column, which a row that is the header again may have."""
HEADER_AGAIN = _("found the header again, expected a row")
JOINED = _("delete this line: it is the first one of a file that was joined to others")
Cells = list[str]
Lines = Iterator[tuple[Sequence[int], list[Cells]]]  # their numbers and fields, some hundreds at a time


@reader(".csv", ".tsv")
def read_table(file: OpenFile, problems: Problems) -> Iterator[TableRows]:
    """Yield the rows below a header. Rows with another number of fields are problems."""
    source, display_path = file.source, file.display_path
    text = _Text(file.stream, display_path)
    header: Cells | None = list(source.header) or None
    usual_delimiter = "\t" if file.suffix == ".tsv" else ","
    quoted = source.quoted if source.quoted is not None else file.suffix == ".csv"
    read_lines = _quoted if quoted else _unquoted
    for lines, rows in read_lines(text, source.delimiter or usual_delimiter):
        if header is None:
            above = 0
            while above < len(rows) and (rows[above] in ([], [""]) or rows[above][0].startswith(EXCEL)):
                above += 1
            lines, rows = lines[above:], rows[above:]
            if above:
                yield _lines_without_rows(display_path, above)
            if not rows:
                continue
            header, lines, rows = rows[0], lines[1:], rows[1:]
            filled = [number for number, name in enumerate(header, 1) if name]
            # A spreadsheet writes its empty columns, too.
            if len(filled) > 1 and len(header) > filled[-1] + 1:
                del header[filled[-1] :]
            problem = text.undecodable(header, f"{display_path}:1")
            if problem:
                problems.bad_file(problem)
                return
            refuse_twice(header, f"{display_path}:1")
        first_cell = header[0] if header else ""
        first_name = _plain_name(first_cell)
        longest = len(first_cell) + MOST_AROUND
        has_header = any(len(row[0]) <= longest and _plain_name(row[0]) == first_name for row in rows if row)
        if set(map(len, rows)) != {len(header)} or text.undecoded or has_header:
            line_count = len(lines)
            lines, rows = _good(header, lines, rows, text, problems)
            yield _lines_without_rows(display_path, line_count - len(lines))
        columns: dict[str, Sequence[object]] = dict.fromkeys(header, ())
        if rows:
            columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        yield TableRows(Prefix(display_path), lines, columns, typed=False)


def _lines_without_rows(display_path: str, count: int) -> TableRows:
    """No rows, of the cost of `count` lines: a small compressed file may have billions of blank ones."""
    return TableRows(Prefix(display_path), [], {}, typed=False, text_size=ROW_COST * count)


MAY_GO_ON = _("the user's turn after a blank line begins a conversation, and may belong to the one before")
NO_BLANK_LINES = _("leave blank lines inside a conversation out")


@reader(*TEXTS)
def read_text(file: OpenFile, problems: Problems) -> Iterator[Rows]:
    """Yield lines as rows with the field `text`, without blank ones. Broken UTF-8 is a problem.

    A .txt is one row a line, any other file one row, unless `rows` of its source says otherwise.
    """
    form = file.source.steps(file.split)
    prefix = Prefix(file.display_path)
    blocks_of_lines = _numbered_lines(file, prefix, problems)
    if form == ("turns",):
        yield from _dialogues(blocks_of_lines, prefix, problems)
    elif form == ("chat",):
        yield from chat_messages(blocks_of_lines, prefix)
    elif file.suffix != ".txt" or form == ("file",):
        yield from _document(file, prefix, problems)
    else:
        for lines in blocks_of_lines:
            yield TableRows(prefix, list(lines), {"text": list(lines.values())}, typed=False)


def _document(file: OpenFile, prefix: Prefix, problems: Problems) -> Iterator[TableRows]:
    """Yield one row for a whole file, none for a blank one."""
    location = Location(prefix, 1)
    data = file.stream.read(LARGEST_RECORD + 1)
    if len(data) > LARGEST_RECORD:
        raise too_long(location)
    problem = undecodable(data, location)
    if problem:
        problems.bad_row([problem], "")
        return
    text = data.decode()
    if text.strip():
        text = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
        yield TableRows(prefix, [1], {"text": [text]}, typed=False)


def _dialogues(
    blocks_of_lines: Iterable[NumberedLines], prefix: Prefix, problems: Problems
) -> Iterator[ObjectRows]:
    """Yield a row of `messages` for each dialogue; lines without a speaker belong to the message before them.

    A question begins a dialogue. So does a user's message after a blank line, and any message after a blank
    line if the message before it followed without one. If blank lines part all messages, a dialogue may go on
    there, and W225 says so.
    """
    first = 0
    is_close = False
    turns: list[Fields] = []
    further: list[str] = []  # lines of the last message below its first one
    last_line = 0
    for lines in blocks_of_lines:
        for number, spoken in lines.items():
            moved, last_line = number - last_line, number
            speaker = SPEAKER.match(spoken)
            if speaker is None:
                if turns:
                    between = "\n" * moved
                    further.append(f"{between}{spoken.rstrip()}")
                else:
                    message = _("found {text}, expected a speaker, as User: or 问：", text=show_value(spoken))
                    problems.bad_row(
                        [Problem(NOT_AN_OBJECT, Location(prefix, number), message)], {"text": spoken}
                    )
                continue
            name = speaker[1].lower()
            role = SPEAKERS[name]
            has_gap = moved > 1
            if turns:
                _append_lines(turns, further)
                is_question = name in QUESTIONS
                if is_question or (has_gap and (role == "user" or is_close)):
                    if not (is_question or is_close):
                        problems.warn(
                            Problem(MAY_CONTINUE, Location(prefix, number), MAY_GO_ON, hint=NO_BLANK_LINES)
                        )
                    yield ObjectRows(prefix, [first], [{"messages": turns}])
                    turns = []
            is_close = bool(turns) and not has_gap
            if not turns:
                first = number
            text = spoken[speaker.end() :].strip()
            if text.count("**") == 1:  # `**Q: how?**`
                text = text.removesuffix("**")
            turns.append({"role": role, "content": text})
    if turns:
        _append_lines(turns, further)
        yield ObjectRows(prefix, [first], [{"messages": turns}])


def _append_lines(turns: Sequence[Fields], further: list[str]) -> None:
    """Move further lines to the end of the last message."""
    turns[-1]["content"] = "".join([str(turns[-1]["content"]), *further]).lstrip("\n")
    further.clear()


def _numbered_lines(file: OpenFile, prefix: Prefix, problems: Problems) -> Iterator[NumberedLines]:
    """Yield the lines that are not blank, some hundreds at a time."""
    text = _Text(file.stream, file.display_path)
    gap = 0  # blank lines
    for numbers, rows in _unquoted(text, "\n"):
        kept = {}
        for number, (line,) in zip(numbers, rows, strict=True):
            problem = text.undecodable([line], Location(prefix, number))
            if problem:
                problems.bad_row([problem], {"text": _escaped([line])[0]})
            elif line.strip():
                kept[number] = line
        gap = 0 if kept else gap + len(rows)
        if ROW_COST * gap > FREE_EXPANSION:
            most = FREE_EXPANSION // ROW_COST
            message = _(
                "found a gap of {lines:,} blank lines, expected {most:,} at most", lines=gap, most=most
            )
            raise LargeDataError(message, str(Location(prefix, numbers[0])))
        yield kept


def _good(
    header: Cells, lines: Sequence[int], rows: list[Cells], text: "_Text", problems: Problems
) -> tuple[list[int], list[Cells]]:
    kept_lines, kept_rows = [], []
    for line, row in zip(lines, rows, strict=True):
        while len(row) > len(header) and not row[-1]:
            row.pop()
        if row in ([], [""]):
            if len(header) > 1:
                continue
            row = [""]  # a blank line, or "": of a single column, both are a row
        location = Location(Prefix(text.display_path), line)
        problem = text.undecodable(row, location)
        if problem:
            problems.bad_row([problem], _escaped(row))
        elif len(row) != len(header):
            message = _(
                "found {number} fields, expected {expected} as in the header",
                number=len(row),
                expected=len(header),
            )
            fix = ""
            if len(row) > len(header):
                fix = _("put a field with the delimiter inside into quotes; a tsv needs `quoted: true`, too")
            problems.bad_row([Problem(FIELD_COUNT, location, message, hint=fix)], row)
        elif is_header_again(row, header):
            problems.bad_row([Problem(REPEATED_HEADER, location, HEADER_AGAIN, hint=JOINED)], row)
        else:
            kept_lines.append(line)
            kept_rows.append(row)
    return kept_lines, kept_rows


def is_header_again(row: Sequence[str], header: Sequence[str]) -> bool:
    """True if a row is the header, also after the byte-order mark of a file that was joined.

    Files that were joined may write the same names with other capitals, blanks or quotes. In a table of one
    column such a row may be a text.
    """
    if len(row) != len(header) or not row:
        return False
    if len(row) == 1:
        return row[0].removeprefix(BYTE_ORDER_MARK) == header[0]
    if _plain_name(row[0]) != _plain_name(header[0]):  # as of nearly all rows
        return False
    return list(map(_plain_name, row)) == list(map(_plain_name, header))


def _plain_name(name: str) -> str:
    """The name of a column without its mark, quotes, blanks around it and capitals."""
    return name.removeprefix(BYTE_ORDER_MARK).strip().strip('"').strip().casefold()


def _escaped(row: Cells) -> Cells:
    return [field.encode(errors="surrogateescape").decode(errors="backslashreplace") for field in row]


def _unquoted(text: "_Text", delimiter: str) -> Lines:
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
    except TooLongError as error:
        raise too_long(f"{text.display_path}:{start}") from error


def _quoted(text: "_Text", delimiter: str) -> Lines:
    csv.field_size_limit(2 * LARGEST_RECORD)  # never reached: the lines of a row are counted
    size = 0  # characters of the row that is read

    def counted() -> Iterator[str]:
        nonlocal size
        for block in text.blocks():
            for ended in io.StringIO(block, newline="\n"):
                size += len(ended)
                if size > LARGEST_RECORD:
                    raise TooLongError
                yield ended

    reader = csv.reader(counted(), delimiter=delimiter, strict=True)
    block_of_rows, line = text.block, 1
    rows = []
    lines = []
    unclosed = _("a field opened with a quote must be closed")
    failure = None
    try:
        for row in reader:
            rows.append(row)
            lines.append(line)
            line = 1 + reader.line_num
            size = 0
            if len(rows) == BATCH or block_of_rows < text.block:
                yield lines, rows
                rows, lines, block_of_rows = [], [], text.block
    except TooLongError:
        failure = too_long(f"{text.display_path}:{line}", unclosed)
    except csv.Error as error:
        message = _("broken quoting: {error}", error=error)
        fix = _("{unclosed}; quotes inside are doubled", unclosed=unclosed)
        if str(error).startswith("new-line character"):
            message = _("a carriage return alone, outside quotes")
            fix = _("end lines with a line feed, or quote the field")
        failure = UnreadableFileError(BROKEN_QUOTING, message, fix, f"{text.display_path}:{line}")
    if rows:
        yield lines, rows
    if failure:
        raise failure


@dataclass
class _Text:
    """The lines of a stream. Bytes that are not UTF-8 become surrogates.

    - `block`: blocks that were read. `last`: the text after the end of the last line.
    - `ends_in_returns`: its lines do, none ends with a line feed.
    """

    stream: io.BufferedReader
    display_path: str
    undecoded: bool = False
    block: int = 0
    ends_in_returns: bool = False
    last: str = ""

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
            self.block += 1
            self.last = text[text.rfind("\n") + 1 :]
            yield text

    def undecodable(self, row: Cells, location: str) -> Problem | None:
        """The problem of a row that is not UTF-8, None for any other row."""
        if not self.undecoded:
            return None
        data = "\t".join(row).encode(errors="surrogateescape")
        is_last = bool(row and self.last) and self.last.endswith(row[-1])
        return undecodable(data if is_last else data + b"\n", location)
