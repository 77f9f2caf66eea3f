"""Names of users and files inside commands, Python and Markdown: they stay texts and become no code."""

import json
import re
import shlex

from tuneyard.core.errors import one_line
from tuneyard.core.terminal import UNSEEN

_MARKUP = re.compile(r"[\\`*|]|<(?=[A-Za-z/!?])|\](?=[(\[])|(?<!\w)_|_(?!\w)|~(?=~)|&(?=#?\w+;)")
"""What has a meaning inside a line of Markdown. `< 0.001`, `[0, 1]` and an underscore in a word have none."""
_BLOCK = re.compile(r"(?=[#+-](?: |\Z)|>|\[[^\]]*\]:)")
"""What begins a heading, a list, a quotation or a definition at the beginning of a paragraph."""
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


def markdown_text(text: str) -> str:
    """A text as it is, in one line of Markdown: a sentence, a heading, a cell."""
    escaped = _MARKUP.sub(lambda mark: f"\\{mark[0]}", one_line(text))
    if _BLOCK.match(escaped):
        escaped = f"\\{escaped}"
    return escaped
