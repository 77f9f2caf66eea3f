"""Names of users and files inside commands, Python and Markdown: they stay texts and become no code."""

import json
import re
import shlex

from tuneyard.core.text.terminal import UNSEEN

_MARKUP = re.compile(r"[\\`*|]|<(?=[A-Za-z/!?])|\](?=[(\[])|(?<![^\W_])_|_(?![^\W_])|~(?=~)|&(?=#?\w+;)")
"""What has a meaning inside a line of Markdown. `< 0.001`, `[0, 1]` and an underscore in a word have none."""
_BLOCK = re.compile(r"\s*(?=(?:#{1,6}|[+-])(?:\s|\Z)|-[\s-]*\Z|=+\s*\Z|>|\[[^\]]*\]:)")
"""What begins a heading, a list, a rule, a quotation or a definition at the beginning of a paragraph."""
_NUMBERED = re.compile(r"\s*\d{1,9}(?=[.)](?:\s|\Z))")
"""The number of a numbered list at the beginning of a paragraph."""
_BACKTICKS = re.compile("`+")
_UNSEEN = re.compile(f"[\x01-\x1f\u2028\u2029{UNSEEN}]")
"""Characters that a terminal or an editor does not show, or shows elsewhere."""


def shell(value: object) -> str:
    r"""A path or a name as one word of a shell command. What nobody sees is written out: `$'a\u202e'`."""
    text = str(value)
    if not _UNSEEN.search(text):
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _UNSEEN.sub(_written_out, escaped) + "'"


def _written_out(character: re.Match[str]) -> str:
    return f"\\u{ord(character[0]):04x}"


def python_text(text: str) -> str:
    """A text as a literal of Python: JSON's strings in ASCII are that."""
    return json.dumps(text)


class Markdown(str):
    """A text that is Markdown already: `markdown_text` and the cells of a table take it as it is."""

    __slots__ = ()


def markdown_text(text: str) -> Markdown:
    """A text as it is, in one line of Markdown: a sentence, a heading, a cell."""
    if isinstance(text, Markdown):
        return text
    escaped = _MARKUP.sub(lambda mark: f"\\{mark[0]}", one_line(text).strip())
    for sign in (_BLOCK, _NUMBERED):
        begin = sign.match(escaped)
        if begin is not None:
            escaped = f"{escaped[: begin.end()]}\\{escaped[begin.end() :]}"
    return Markdown(escaped)


def markdown_code(text: str) -> Markdown:
    """A text as code within a line of Markdown, as hashes and names of methods are written."""
    line = one_line(text)
    ticks = "`" * (longest_backticks(line) + 1)
    blank = " " if "`" in line else ""
    return Markdown(f"{ticks}{blank}{line}{blank}{ticks}")


def markdown_block(text: str, language: str) -> Markdown:
    """Lines in a fence that is longer than each row of backticks in them."""
    fence = "`" * max(3, longest_backticks(text) + 1)
    return Markdown(f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}")


def longest_backticks(text: str) -> int:
    """Length of the longest row of backticks."""
    return max(map(len, _BACKTICKS.findall(text)), default=0)


_LINE_ENDS = re.compile(f"[\x00-\x08\x0a-\x1f\u2028\u2029{UNSEEN}]")


def one_line(text: str) -> str:
    """Escape line breaks and control characters, which a file name may contain."""
    return _LINE_ENDS.sub(_escaped, text)


def _escaped(character: re.Match[str]) -> str:
    return character[0].encode("unicode_escape").decode()
