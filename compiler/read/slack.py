"""Slack's export: a message's text with links, names and signs as Slack marks them."""

import html
import re

from tuneyard.compiler.rows import Fields

TIME = "ts"
"""The key of a message's time."""
_MARKED = re.compile(r"<(?:[^<>|]*\|)?([^<>|]*)>")  # <address|text>, <@U024BE7LH>, <!here>
_ADDRESSED = re.compile(r"^(@\w+[ ,:]*)+")


def with_plain_text(row: Fields) -> Fields:
    """Put the text of a link in its place, and leave out whom a message is addressed to at its beginning."""
    text = row.get("text")
    if row.get("type") != "message" or not isinstance(text, str):
        return row
    plain = _ADDRESSED.sub("", _MARKED.sub(r"\1", text))
    return {**row, "text": html.unescape(plain)}
