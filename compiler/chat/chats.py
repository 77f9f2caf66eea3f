"""Chats as WhatsApp exports them: `12/03/2024, 21:15 - Anna: text`, `[12.03.24, 21:15:09] Anna: text`."""

import re
from collections.abc import Iterable, Iterator

from tuneyard.compiler.rows import Fields, Line, ObjectRows, Prefix

_TIME = r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4},? \d{1,2}[:.]\d\d(?:[:.]\d\d)?(?:[ \u202f][ap]\.?m\.?)?"
MESSAGE = re.compile(
    rf"\u200e?(?=\[{_TIME}\]|{_TIME} -)\[?({_TIME})(?:\]| -) (?:([^:]{{1,40}}): ?(.*))?", re.IGNORECASE
)
"""The first line of a message: its time, who sent it, its text. A note of the program has only a time."""
_ATTACHMENT = re.compile(r"<[^>]*>$|\u200e")
"""The beginning of a text in the place of a picture: `<Media omitted>`."""
_EDITED = re.compile(r"(?:(?<!\s)\s+)?(?:\u200e<[^<>]+>|<(?=[^<>]*(?:edited|bearbeitet|已编辑))[^<>]*>)$")
"""What the program adds to a message that was changed: `<This message was edited>`.

The lookbehind reads long white space once.
"""
NumberedLines = dict[int, str]
"""Lines of a text that are not blank, by their numbers."""


def chat_messages(blocks_of_lines: Iterable[NumberedLines], prefix: Prefix) -> Iterator[ObjectRows]:
    """Yield a row for each message: time, sender, text. Further lines belong to the message before them."""
    lines: list[Line] = []
    rows: list[Fields] = []
    further: list[str] = []  # lines of the last message below its first one
    last_line = 0
    for texts in blocks_of_lines:
        for number, text in texts.items():
            text = _EDITED.sub("", text)
            message = MESSAGE.match(text)
            between = "\n" * (number - last_line)
            last_line = number
            if message is None and rows:
                further += [between, text]
                continue
            _append_lines(rows, further)
            time, sender, words = message.groups() if message else (None, None, text)
            if words and _ATTACHMENT.match(words):
                words = ""
            lines.append(number)
            rows.append({"time": time, "sender": sender, "text": words})
    if rows:
        _append_lines(rows, further)
        yield ObjectRows(prefix, lines, rows)


def _append_lines(rows: list[Fields], further: list[str]) -> None:
    """Move further lines to the end of the last message. Below a note of the program, they are its text."""
    if further:
        rows[-1]["text"] = "".join([str(rows[-1]["text"] or ""), *further])
        further.clear()
