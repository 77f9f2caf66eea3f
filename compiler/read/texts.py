"""Plain text: each line that is not blank is a row with the one field `text`."""

from collections.abc import Iterator

from compiler.problems import Problems
from compiler.read import OpenFile, reader
from compiler.read.stream import TOO_LONG, TooLongError, blocks, encoding_hint, whole_lines
from compiler.rows import TableRows
from core.errors import Problem


@reader(".txt")
def read_text(file: OpenFile, problems: Problems) -> Iterator[TableRows]:
    """Yield the lines of a text file as rows; blank ones are none. A line that is no UTF-8 is a problem."""
    start = 1
    try:
        for block in whole_lines(blocks(file.stream)):
            numbers, texts = [], []
            for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), start):
                try:
                    text = line.removesuffix(b"\r").decode()
                except UnicodeDecodeError as error:
                    place, message = (
                        f"{file.shown}:{number}",
                        f"not UTF-8: byte {error.start + 1} of the line",
                    )
                    found = line.decode(errors="backslashreplace")
                    problems.bad_row([Problem("E001", place, message, hint=encoding_hint())], {"text": found})
                    continue
                if text.strip():
                    numbers.append(number)
                    texts.append(text)
            start += block.count(b"\n")
            if texts:
                yield TableRows(f"{file.shown}:", numbers, {"text": texts}, typed=False)
    except TooLongError:
        problems.bad_file(Problem("E014", f"{file.shown}:{start}", TOO_LONG))
