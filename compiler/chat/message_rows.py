"""Tables with one message a row: the rows of a conversation become one row (`settings` of a source)."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from tuneyard.compiler.chat.forms.trees import rank_of
from tuneyard.compiler.chat.message_forms import (
    ASSISTANT,
    CALL,
    MESSAGE_KEYS,
    OBSERVATION,
    ROLES,
    USER,
    is_flagged_thought,
)
from tuneyard.compiler.chat.message_order import orders_of
from tuneyard.compiler.rows import MISSING, Fields, Line, ObjectRows, Prefix, Rows, walker, without
from tuneyard.compiler.rows.problem_codes import NO_RECORDS, NOT_AN_OBJECT
from tuneyard.compiler.rows.problems import Problems, UnreadableFileError
from tuneyard.core.datasets.answer_flags import changes_answer
from tuneyard.core.errors import Problem, show_value, show_values
from tuneyard.core.language.message import _, marked

MESSAGES = "messages"
"""The column of the messages in the rows that come out."""
MOST_SHOWN = 4  # texts of a conversation
NEEDED = ("by", "role", "text", "order")
"""The columns without which a row is no message."""
OF_A_COLUMN = " (column)"
"""Ends the key of a column that is called as the speaker or the text of a message."""
_NAMES_IN_MESSAGES = {*chain.from_iterable(MESSAGE_KEYS), "parts"}
JOINED = marked("{number:,} rows continue the turn of the same speaker before them")
UNSPOKEN = marked("{number:,} rows have no text, speaker or conversation, or are notices, and are left out")
OTHERS = marked("{number:,} rows are other answers, or follow one, and are left out")
UNANSWERED = marked("{number:,} conversations have no question with its answer, and are left out")
SECONDS_OF_A_DAY = 86_400
UNIX_SECONDS = re.compile(r"(\d{9,10})(\.\d+|\d{3})?")
_END_OF_DATE = re.compile(r"[T ,]")
_NOTICE = re.compile(
    r"(?i)\b((channel|group)_?(join|leave|topic|purpose|name|icon|(un)?archive|pinned|follow)|guildmemberjoin"
    r"|recipient(add|remove)|userpremium|threadcreated|pinned_item|bot_(add|remove)|(service|system)\b)"
)
"""The `type` or `subtype` of what a chat program writes: GuildMemberJoin, channel_topic."""


class MessageRow(NamedTuple):
    """A message, its line, and the cells of the columns that `settings` names, by its keys."""

    fields: Fields
    line: Line
    cells: Fields


class ConversationRows(NamedTuple):
    """The messages of a conversation, its file, and the value that parts it from others."""

    prefix: Prefix
    value: object
    messages: list[MessageRow]


def conversations_of(
    batches: Iterable[Rows], settings: Mapping[str, str], problems: Problems
) -> Iterator[Rows]:
    """Yield a row for each conversation: {by: value, messages: [messages]}.

    `settings` names the columns `role` and `text`, and those that part the conversations:

    - `by`: the messages of a conversation have the same value of it, with `per: day` the same day.
    - `id` and `parent`: a message answers the one with this id. Of several answers the one with the lowest
      `rank` is taken, otherwise the first.
    - neither: a file is a conversation.

    Without `order` the messages stay in the order of the file. The other columns stay in each message.
    Successive messages of a user or an assistant are one message, with the other columns of the first.

    `assistant` is the person to learn in a chat of people, and all others are the user. There messages
    without a text or a conversation, notices of the program, and conversations without an answer, are left
    out and counted.

    A file is held in memory as a whole.
    """
    noted: Counter[str] = Counter()
    messages_by_conversation: dict[tuple[Prefix, object], list[MessageRow]] = {}
    for prefix, message in _messages(batches, settings, problems, noted):
        messages_by_conversation.setdefault((prefix, message.cells.get("by")), []).append(message)
    if "order" in settings:
        _sort(messages_by_conversation.values(), settings["order"])
    conversations = [
        ConversationRows(prefix, value, conversation)
        for (prefix, value), conversation in messages_by_conversation.items()
    ]
    rows_read = sum(len(conversation.messages) for conversation in conversations)
    if "parent" in settings:
        conversations = [branch for conversation in conversations for branch in _branches(conversation)]
    count = sum(len(conversation.messages) for conversation in conversations)
    noted[OTHERS] = rows_read - count
    if conversations:
        prefix = conversations[0].prefix
        problems.notes.append(
            _(
                "{file}: {rows:,} rows are the turns of {conversations:,} conversations",
                file=prefix.file,
                rows=count,
                conversations=len(conversations),
            )
        )
    for prefix, value, conversation in conversations:
        joined = joined_messages(message.fields for message in conversation)
        noted[JOINED] += len(conversation) - len(joined)
        from_first_user = joined[joined[0]["role"] == ASSISTANT :]
        if "assistant" in settings and len(from_first_user) < 2:
            noted[UNANSWERED] += 1
            continue
        row = {settings.get("id") or settings.get("by", ""): value, MESSAGES: joined}
        yield ObjectRows(prefix, [conversation[0].line], [without(row, "")])
    problems.notes += [_(template, number=number) for template, number in (+noted).items()]


def _messages(
    batches: Iterable[Rows], settings: Mapping[str, str], problems: Problems, noted: Counter[str]
) -> Iterator[tuple[Prefix, MessageRow]]:
    """Yield the message of each row with its file. A row that is none is a problem, or counted in a chat."""
    walkers = {key: walker(name) for key, name in settings.items() if key not in ("per", "assistant")}
    names = {settings[key] for key in walkers}
    learned = settings.get("assistant")
    for rows in batches:
        for number, line in enumerate(rows.lines):
            row = rows.row(number)
            cells = {key: walk(row) for key, walk in walkers.items()}
            missing = next((key for key in NEEDED if cells.get(key, 0) in (None, "", MISSING)), "")
            if learned and (missing or _NOTICE.search(f"{row.get('type')} {row.get('subtype')}")):
                noted[UNSPOKEN] += 1
                continue
            if missing or isinstance(cells.get("by"), list | dict):
                name = settings[missing or "by"]
                fault = _(
                    "found {value}, expected a value: `turns` names it", value=show_value(row.get(name))
                )
                problems.bad_row([Problem(NOT_AN_OBJECT, rows.location(number), fault, name)], row)
                continue
            if "per" in settings:
                cells["by"] = _day(str(cells["by"]))
            role = str(cells["role"])
            if learned:
                role = ASSISTANT if role == learned else USER
            message = {"role": role, "content": cells["text"], **_other_columns(without(row, *names))}
            yield rows.prefix, MessageRow(message, line, cells)


def _other_columns(fields: Fields) -> Fields:
    """The columns that `settings` does not name, as further keys of a message.

    A name that a message may have for its speaker or its text (`content`, `value`) would hide the named
    column. It gets a suffix, so that it is counted as a column that is not used.
    """
    others = {}
    for name, value in fields.items():
        if name in _NAMES_IN_MESSAGES:
            name = f"{name}{OF_A_COLUMN}"
        others[name] = value
    return others


def _branches(conversation: ConversationRows) -> list[ConversationRows]:
    """The messages from each first message to a last one, by the answers that are ranked first.

    A message without an id has no answers, and one without a parent, or with one that is not there, is a
    first one.
    """
    ids = {_id_in(message, "id") for message in conversation.messages} - {""}
    answers: dict[str, list[MessageRow]] = {}
    for message in conversation.messages:
        answers.setdefault(_id_in(message, "parent"), []).append(message)
    answers.pop("", None)
    branches = []
    for first in conversation.messages:
        if _id_in(first, "parent") in ids:
            continue
        branch = [first]
        while following := answers.pop(_id_in(branch[-1], "id"), []):
            branch.append(min(following, key=lambda message: rank_of(message.cells)))
        branches.append(ConversationRows(conversation.prefix, _id_in(first, "id"), branch))
    return branches


def _id_in(message: MessageRow, key: str) -> str:
    """The id of a message, or of the one before it, as text; "" if it has none."""
    value = message.cells[key]
    return "" if value in (None, MISSING) else str(value)


def _day(time: str) -> str:
    """The date of a time: `2024-03-01` of `2024-03-01T09:05`, the number of the day of Unix seconds."""
    if seconds := UNIX_SECONDS.fullmatch(time):
        return str(int(seconds[1]) // SECONDS_OF_A_DAY)
    return _END_OF_DATE.split(time, maxsplit=1)[0]


def _sort(conversations: Collection[list[MessageRow]], order: str) -> None:
    """Sort the messages of each conversation. `UnreadableFileError` if their order is not certain."""
    texts = [[str(message.cells["order"]) for message in conversation] for conversation in conversations]
    orders = orders_of(texts)
    if orders is None:
        open_texts = next(
            (conversation for conversation in texts if orders_of([conversation]) is None), texts[0]
        )
        examples = show_values(open_texts[:MOST_SHOWN])
        fix = _(
            "number the turns, or write times as 2024-03-01 09:05:00; without `order` the file's order stays"
        )
        raise UnreadableFileError(
            NO_RECORDS, _("the order of {values} is not certain", values=examples), fix, field=order
        )
    for conversation, positions in zip(conversations, orders, strict=True):
        conversation[:] = [conversation[position] for position in positions]


def joined_messages(settings: Iterable[Fields]) -> list[Fields]:
    """Join successive messages of one speaker. A message has the other keys of its first message."""
    joined: list[Fields] = []
    contents: list[list[object]] = []  # of each message
    first: Fields = {}  # the message that began the last message
    for message in settings:
        if joined and _is_continued(first, message):
            for key, value in message.items():
                joined[-1].setdefault(key, value)
            contents[-1].append(message["content"])
        else:
            first = message
            joined.append(dict(message))
            contents.append([message["content"]])
    for message, texts in zip(joined, contents, strict=True):
        if len(texts) > 1:
            message["content"] = "\n\n".join(map(str, texts))
    return joined


def _is_continued(message: Fields, following: Fields) -> bool:
    """True if two messages are of one speaker, and texts. Those of tools are results of several calls.

    A message that is marked, or has a part besides its text, is not joined: the mark is of it alone. A
    thought is no part of the answer after it.
    """
    if is_flagged_thought(message) != is_flagged_thought(following):
        return False
    if message["role"] != following["role"] or ROLES.get(str(message["role"]).lower()) in (CALL, OBSERVATION):
        return False
    if not isinstance(message["content"], str) or not isinstance(following["content"], str):
        return False
    others = without(following, "role", "content")
    return not any(changes_answer(key, value) for key, value in others.items())
