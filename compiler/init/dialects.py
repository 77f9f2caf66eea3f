"""How a text file may be written: its encoding, and the delimiter, quotes and header of a table."""

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from tuneyard.compiler.init.column_statistics import MOST_VALUES, PROSE
from tuneyard.compiler.read.scan import LOOKED_AT
from tuneyard.compiler.read.stream import Readable, encoding_hint, opened, suffix
from tuneyard.compiler.read.tables import is_header_again
from tuneyard.compiler.rows.problems import UnreadableFileError
from tuneyard.compiler.spec.file import Source
from tuneyard.core.errors import ContentError
from tuneyard.core.files.bounded_reading import LARGEST_RECORD
from tuneyard.core.language.message import _

UTF_8 = "utf-8"
ENCODINGS = (UTF_8, "gb18030", "cp1252", "cp949", "cp932", "big5", "cp1251")
"""Next to UTF-8 those of Windows: Chinese, Western, Korean, Japanese, Chinese of Taiwan, Cyrillic.

Few Western words would also be words in cp1250 or in mac-roman, so that these are not tried.
"""
PAIRED = 0.9
LONGEST_NAME = 40  # characters of a column's name that ends as a sentence does
_LONG_ASCII = re.compile(
    rb"(?<![\x00-\x7f])[\x00-\x7f]{201,}"
)  # begins where a run of ASCII does: linear time
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_SENTENCE = re.compile(r"[.?!。？！]$")


def head_of(path: Readable, encoding: str) -> bytes:
    """The beginning of a file as UTF-8."""
    with opened(path, encoding) as stream:
        return stream.read(LOOKED_AT)


def encoding_of(path: Readable) -> str:
    """The encoding by the byte-order mark, otherwise utf-8, or another one by the first 16 MiB."""
    try:
        with opened(path, "utf-8") as stream:
            data = stream.read(LARGEST_RECORD)
    except UnreadableFileError as error:
        if error.hint != encoding_hint("utf-16"):
            raise
        return "utf-16"  # by its byte-order mark
    if b"\0" in data:
        raise ContentError(_("{path}: not a text file: it contains NUL bytes; is its name right?", path=path))
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data)
    foreign = len(text) - len(text.encode("ascii", "ignore"))
    if 2 * text.count("\ufffd") <= foreign:  # UTF-8, at most with broken locations that compile names
        return UTF_8
    from chardet import detect

    whole_lines = data[: data.rfind(b"\n")].splitlines()  # the last one may be cut inside a character
    foreign_lines = b"\n".join(line for line in whole_lines if not line.isascii())
    foreign_lines = _LONG_ASCII.sub(_ends, foreign_lines)  # one long row would outweigh all foreign words
    match = detect(
        foreign_lines or data, include_encodings=ENCODINGS, no_match_encoding=UTF_8, compat_names=False
    )
    encoding = str(match["encoding"])
    if encoding == UTF_8:
        raise ContentError(
            _("{path}: not UTF-8, and no other encoding can be told: save it as UTF-8", path=path)
        )
    return encoding


def _ends(text: re.Match[bytes]) -> bytes:
    """The begin and the end of a long run of ASCII."""
    return text[0][:100] + b" " + text[0][-100:]


def dialects(path: Readable, encoding: str) -> Iterator[Source]:
    """Yield the ways in which a table may be written, the usual one first."""
    is_csv = suffix(path) == ".csv"
    usual = "," if is_csv else "\t"
    text = head_of(path, encoding).decode(errors="replace")
    first_line = next(iter(text.splitlines()), "")
    delimiter = usual
    if usual not in first_line:
        delimiter = max((usual, ";", "\t", "|", ","), key=first_line.count)
    named_delimiter = None if delimiter == usual else delimiter
    readings = [is_csv, not is_csv]
    if _has_doubled_quotes(text, delimiter):
        readings = [True]
    for is_quoted in readings:
        quoted = None if is_quoted == is_csv else is_quoted
        header = _guessed_header(text, delimiter, is_quoted)
        yield Source(encoding=encoding, delimiter=named_delimiter, header=header, quoted=quoted)


def _has_doubled_quotes(text: str, delimiter: str) -> bool:
    """True if a field is in quotes and has doubled quotes inside, and nearly all quotes are in pairs.

    One that is not closed is an error of its line, and no sign that the quotes belong to the text.
    """
    fields = [field for line in text.splitlines()[:-1] for field in line.split(delimiter)]
    in_quotes = [field for field in fields if field.startswith('"')]
    paired = [field for field in in_quotes if field.endswith('"') and field.count('"') % 2 == 0]
    return len(paired) > PAIRED * len(in_quotes) and any('""' in field[1:-1] for field in paired)


def _guessed_header(text: str, delimiter: str, quoted: bool) -> tuple[str, ...]:
    """Names for the columns of a table that begins with a row, () if it begins with a header."""
    lines = text.splitlines()[:200]
    rows = [line.split(delimiter) for line in lines]
    if quoted:
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            return ()
    width = len(rows[0]) if rows else 0
    rows = [row for row in rows if len(row) == width]
    if width < 2 or len(rows) < 2 or rows[0] == list(map(str, range(width))):
        return ()
    columns = list(zip(*rows, strict=True))
    if _is_joined(rows) or not any(map(_begins_with_a_value, columns)):
        return ()
    return _names_by_content(columns)


def _is_joined(rows: Sequence[Sequence[str]]) -> bool:
    """True if the first row is a header that comes again, as in tables that were joined.

    Its cells come again only with it. A row that is there twice has cells that other rows have, a number, or
    a sentence.
    """
    header, *others = rows
    repeats = sum(is_header_again(row, header) for row in others)
    if not repeats:
        return False
    for number, name in enumerate(header):
        is_sentence = len(name) > LONGEST_NAME and _SENTENCE.search(name)
        if is_sentence or _NUMBER.fullmatch(name) or sum(row[number] == name for row in others) > repeats:
            return False
    return True


def _begins_with_a_value(cells: Sequence[str]) -> bool:
    """True if the first cell is a number among numbers, a label that comes again, or a sentence."""
    first, others = cells[0], cells[1:]
    if _NUMBER.fullmatch(first):
        return all(map(_NUMBER.fullmatch, others))
    if not first:
        return False
    is_label = first in others and len(set(others)) <= MOST_VALUES
    is_sentence = len(first) > LONGEST_NAME and bool(_SENTENCE.search(first))
    return is_label or is_sentence


def _names_by_content(columns: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Names of columns by their roles: label, and the texts by their number."""
    letters = ascii_uppercase[: len(columns) - 2]
    has_letters = 1 < len(letters) == len(columns) - 2
    if has_letters and set(columns[-1]) <= set(letters):  # a question, its choices and the right one
        return ("question", *letters, "answer")
    names = [f"column_{number}" for number in range(1, len(columns) + 1)]
    texts: list[int] = []
    label = None
    for number, cells in enumerate(columns):
        if sum(map(len, cells)) >= PROSE * len(cells):
            texts.append(number)
        elif "" not in cells and 2 <= len(set(cells)) <= min(MOST_VALUES, len(cells) // 2):
            label = number
    roles: tuple[str, ...] = ("question", "answer")
    if len(texts) == 1:
        roles = ("text",)
    elif label is not None:
        roles = ("premise", "hypothesis")
    if label is not None:
        names[label] = "label"
    for number, role in zip(texts, roles, strict=False):
        names[number] = role
    return tuple(names)
