"""Exports of help desks: tickets with comments (Zendesk), conversations with parts (Intercom)."""

from collections.abc import Sequence

from tuneyard.compiler.chat.message_forms import ASSISTANT, USER
from tuneyard.compiler.chat.message_rows import MESSAGES, joined_messages
from tuneyard.compiler.rows import Fields, are_objects, walker, without
from tuneyard.compiler.spec.export_forms import ExportForm
from tuneyard.core.files import JsonObject

_PARTS = walker("conversation_parts.conversation_parts")
_TYPE = walker("author.type")
CUSTOMERS = ("user", "lead", "contact")
"""Types of Intercom's authors who ask."""


def is_of_zendesk(row: Fields) -> bool:
    """True for a ticket of Zendesk: who requested it, and comments with their authors and texts."""
    comments = row.get("comments")
    if row.get("requester_id") in (None, "") or MESSAGES in row or not are_objects(comments):
        return False
    return all({"author_id", "body"} <= comment.keys() for comment in comments)


def with_comments(row: JsonObject) -> Fields:
    """Put `messages` in place of a ticket's comments. `internal` counts notes, which are left out."""
    if not is_of_zendesk(row):
        return row
    thread = row["comments"]
    asks = [message["author_id"] == row["requester_id"] for message in thread]
    is_note = [message.get("public") is False for message in thread]
    return _with_messages(row, without(row, "comments"), thread, asks, is_note)


def is_of_intercom(row: Fields) -> bool:
    """True for a conversation of Intercom: a first message with its author, and parts with theirs."""
    parts = _PARTS(row)
    thread = [row.get("source"), *parts] if isinstance(parts, list) else []
    return (
        MESSAGES not in row and are_objects(thread) and all(isinstance(_TYPE(each), str) for each in thread)
    )


def with_parts(row: JsonObject) -> Fields:
    """Put `messages` in place of a first message and its parts. `internal` counts notes and assignments."""
    if not is_of_intercom(row):
        return row
    thread = [row["source"], *row["conversation_parts"]["conversation_parts"]]
    asks = [_TYPE(message) in CUSTOMERS for message in thread]
    is_note = [message.get("part_type", "comment") != "comment" for message in thread]
    return _with_messages(row, without(row, "source", "conversation_parts"), thread, asks, is_note)


def _with_messages(
    row: Fields, others: Fields, thread: Sequence[Fields], asks: Sequence[bool], is_note: Sequence[bool]
) -> Fields:
    """The row of a thread. One in which no customer asks stays."""
    chat_messages: list[Fields] = []
    for message, is_question, is_internal in zip(thread, asks, is_note, strict=True):
        if message.get("body") and not is_internal:
            chat_messages.append({"role": USER if is_question else ASSISTANT, "content": message["body"]})
    if not any(chat_message["role"] == USER for chat_message in chat_messages):
        return row
    if len(chat_messages) < len(thread):
        others["internal"] = len(thread) - len(chat_messages)
    return {MESSAGES: joined_messages(chat_messages), **others}


INTERCOM = ExportForm("intercom", is_of_intercom, with_parts)
ZENDESK = ExportForm("zendesk", is_of_zendesk, with_comments)
