"""Names of users and files inside commands, Python and Markdown: they stay texts and become no code."""

import json
import re
import shlex

from tuneyard.core.errors import one_line

_MARKUP = re.compile(r"[\\`*|]|<(?=[A-Za-z/!?])|\](?=[(\[])|(?<!\w)_|_(?!\w)|~(?=~)|&(?=#?\w+;)")
"""What has a meaning inside a line of Markdown. `< 0.001`, `[0, 1]` and an underscore in a word have none."""
_BLOCK = re.compile(r"(?=[#+-](?: |\Z)|>|\[[^\]]*\]:)")
"""What begins a heading, a list, a quotation or a definition at the beginning of a paragraph."""


def shell(value: object) -> str:
    """A path or a name as one word of a shell command."""
    return shlex.quote(str(value))


def python_text(text: str) -> str:
    """A text as a literal of Python: JSON's strings in ASCII are that."""
    return json.dumps(text)


def markdown_text(text: str) -> str:
    """A text as it is, in one line of Markdown: a sentence, a heading, a cell."""
    escaped = _MARKUP.sub(lambda mark: f"\\{mark[0]}", one_line(text))
    if _BLOCK.match(escaped):
        escaped = f"\\{escaped}"
    return escaped
