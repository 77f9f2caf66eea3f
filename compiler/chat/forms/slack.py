"""Slack's export: a message's text with links, names and signs as Slack marks them."""

import html
import re

from tuneyard.compiler.rows import Fields
from tuneyard.compiler.spec.export_forms import ExportForm

_TIME = re.compile(r"\d{9,10}\.\d{6}")
_MEMBER = re.compile(r"[UWB][A-Z0-9]+")
_MARKED = re.compile(r"<(?=[@#!]|[a-z][a-z+.-]*:(?!:))(?:[^<>|]*\|)?([^<>|]*)>")
"""Slack's marks: `<https://…|text>`, `<@U024BE7LH>`, `<!here>`. It writes any other `<` as `&lt;`."""
_ADDRESSED = re.compile(r"^(@\w+[ ,:]*)+")


def has_form(row: Fields) -> bool:
    """True for a message of Slack: its type, its time of six decimals and the id of a member or a bot."""
    member = row.get("user") or row.get("bot_id")
    return (
        row.get("type") == "message"
        and isinstance(row.get("text"), str)
        and isinstance(member, str)
        and bool(_MEMBER.fullmatch(member))
        and bool(_TIME.fullmatch(str(row.get("ts"))))
    )


def with_plain_text(row: Fields) -> Fields:
    """Put the text of a link in its place, and leave out whom a message is addressed to at its beginning."""
    text = row.get("text")
    if row.get("type") != "message" or not isinstance(text, str):
        return row
    plain = _ADDRESSED.sub("", _MARKED.sub(r"\1", text))
    return {**row, "text": html.unescape(plain)}


SLACK = ExportForm("slack", has_form, with_plain_text)
