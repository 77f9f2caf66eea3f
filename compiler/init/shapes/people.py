"""Chats of people with names, as Slack, Discord, Telegram and WhatsApp export them."""

from collections import Counter

from tuneyard.compiler.chat.message_order import orders_of
from tuneyard.compiler.init.column_statistics import FileStatistics
from tuneyard.compiler.init.labels import ID, author_leaves, label_leaf
from tuneyard.compiler.init.proposal import Proposal
from tuneyard.compiler.init.shapes.message_rows import (
    DATED,
    conversation_leaf,
    conversation_rows,
    conversations_in,
)
from tuneyard.compiler.init.shapes.threads import parent_leaf
from tuneyard.core.language.message import _

LONGEST_MESSAGE = 400  # characters on average: longer texts are articles


def chats_of_people(statistics: FileStatistics) -> Proposal | None:
    """Conversations of the messages of a thread or of a day. The person who answers most is learned."""
    text = statistics.called("turn text")
    authors = [leaf for leaf in author_leaves(statistics) if 1 < len(leaf.hashes) <= leaf.filled / 2]
    if (
        text is None
        or not authors
        or text.characters > LONGEST_MESSAGE * statistics.rows
        or label_leaf(statistics)
        or parent_leaf(statistics)
        or statistics.named(["title"])
    ):
        return None
    author = min(authors, key=lambda leaf: bool(ID.search(leaf.name)))
    thread = conversation_leaf(statistics, author, text, may_be_id=False)
    times = [
        leaf
        for leaf in statistics.leaves.values()
        if leaf.filled == statistics.rows and all(map(DATED.fullmatch, map(str, leaf.values)))
    ]
    time = max(times, key=lambda leaf: len(leaf.hashes), default=None)
    turns = {"role": author.path, "text": text.path}
    if thread is not None and 2 * thread.filled >= statistics.rows:
        turns["by"] = thread.path
        guess = _("the messages with the same {column} are one conversation", column=thread.path)
    elif time is not None:
        turns |= {"by": time.path, "per": "day"}
        guess = _("the messages of one day ({column}) are one conversation", column=time.path)
    else:
        return None
    if time is not None:
        orders = orders_of([list(map(str, statistics.values(time)))])
        if orders and orders[0][0]:  # the first message is not the oldest one
            turns["order"] = time.path
            guess = _("{guess}, in the order of {column}", guess=guess, column=time.path)
    answers: Counter[object] = Counter()
    conversations = conversations_in(statistics, turns)
    for conversation in conversations:
        answers.update(message["role"] for message in conversation[1:])
    if not answers or answers.total() < len(conversations):
        return None  # remarks about something, of which few are on one day
    (learned, _count), *_others = answers.most_common(1)
    turns["assistant"] = str(learned)
    guesses: list[str] = [
        guess,
        _(
            "{name} ({column}) answers most often and is learned, the others are the "
            "user; `assistant` under `turns` of the spec names another one",
            name=learned,
            column=author.path,
        ),
    ]
    return conversation_rows(statistics, turns, guesses, {})
