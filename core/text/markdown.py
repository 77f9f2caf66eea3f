"""Tables in Markdown, whose columns are aligned in a terminal too."""

import unicodedata
from collections.abc import Iterable, Sequence

from tuneyard.core.text.quoting import markdown_text


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, whose columns are aligned in a terminal too.

    The cells are texts: a name is no markup. A cell with markup of ours is `Markdown`.
    """
    cells: list[list[str]] = [[*map(markdown_text, line)] for line in (header, *rows)]
    widths = [max(map(text_width, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(map(padded, line, widths))} |" for line in cells)


def text_width(text: str) -> int:
    """Width of a text in terminal columns. Wide letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def padded(text: str, width: int) -> str:
    """A text with spaces up to a width in terminal columns."""
    return text + " " * (width - text_width(text))
