"""Exports of help desks: tickets with comments (Zendesk), conversations with parts (Intercom)."""

from tuneyard.compiler.kinds.turn_forms import ASSISTANT, USER
from tuneyard.compiler.read.turn_rows import MESSAGES, joined_turns
from tuneyard.compiler.rows import Fields, are_objects, walker, without

THREADS = ("comments", "conversation_parts")
"""The keys of a row's messages."""
CUSTOMERS = ("user", "lead", "contact")
"""Types of Intercom's authors who ask."""


def with_messages(row: Fields) -> Fields:
    """Put `messages` in place of the texts of a customer and of the staff.

    The first message of Intercom is its `source`. `internal` counts notes and the like, which are left out.
    """
    parts = walker("conversation_parts.conversation_parts")(row)
    thread = [row.get("source"), *parts] if isinstance(parts, list) else row.get("comments")
    if not are_objects(thread):
        return row
    askers = (row.get("requester_id"), *CUSTOMERS)
    turns: list[Fields] = []
    for message in thread:
        is_note = message.get("public") is False or message.get("part_type", "comment") != "comment"
        if message.get("body") and not is_note:
            asks = message.get("author_id", walker("author.type")(message)) in askers
            turns.append({"role": USER if asks else ASSISTANT, "content": message["body"]})
    if not any(turn["role"] == USER for turn in turns):
        return row
    others = without(row, "source", *THREADS)
    if len(turns) < len(thread):
        others["internal"] = len(thread) - len(turns)
    return {MESSAGES: joined_turns(turns), **others}
