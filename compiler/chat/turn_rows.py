"""Tables with one turn a row: the rows of a conversation become one row (`turns` of a source)."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from tuneyard.compiler.chat.turn_forms import (
    ASSISTANT,
    CALL,
    OBSERVATION,
    ROLES,
    TURN_KEYS,
    USER,
    marked_thought,
)
from tuneyard.compiler.chat.turn_order import orders_of

from tuneyard.compiler.chat.forms.trees import rank_of
from tuneyard.compiler.rows import MISSING, Fields, Line, ObjectRows, Prefix, Rows, walker, without
from tuneyard.compiler.rows.problem_codes import NO_RECORDS, NOT_AN_OBJECT
from tuneyard.compiler.rows.problems import Problems, UnreadableFileError
from tuneyard.core.datasets.answer_marks import changes_answer
from tuneyard.core.errors import Problem, show_value, show_values
from tuneyard.core.language.message import _

MESSAGES = "messages"
"""The column of the turns in the rows that come out."""
MOST_SHOWN = 4  # texts of a conversation
NEEDED = ("by", "role", "text", "order")
"""The columns without which a row is no turn."""
OF_A_COLUMN = " (column)"
"""Ends the key of a column that is called as the speaker or the text of a turn."""
_NAMES_IN_TURNS = {*chain.from_iterable(TURN_KEYS), "parts"}
JOINED = "rows continue the turn of the same speaker before them"
UNSPOKEN = "rows have no text, speaker or conversation, or are notices, and are left out"
OTHERS = "rows are other answers, or follow one, and are left out"
UNANSWERED = "conversations have no question with its answer, and are left out"
SECONDS_OF_A_DAY = 86_400
UNIX_SECONDS = re.compile(r"(\d{9,10})(\.\d+|\d{3})?")
_END_OF_DATE = re.compile(r"[T ,]")
_NOTICE = re.compile(
    r"(?i)\b((channel|group)_?(join|leave|topic|purpose|name|icon|(un)?archive|pinned|follow)|guildmemberjoin"
    r"|recipient(add|remove)|userpremium|threadcreated|pinned_item|bot_(add|remove)|(service|system)\b)"
)
"""The `type` or `subtype` of what a chat program writes: GuildMemberJoin, channel_topic."""


class TurnRow(NamedTuple):
    """A turn, its line, and the cells of the columns that `turns` names, by its keys."""

    fields: Fields
    line: Line
    cells: Fields


class TalkRows(NamedTuple):
    """The turns of a conversation, its file, and the value that parts it from others."""

    prefix: Prefix
    value: object
    turns: list[TurnRow]


def conversations_of(batches: Iterable[Rows], turns: Mapping[str, str], problems: Problems) -> Iterator[Rows]:
    """Yield a row for each conversation: {by: value, messages: [turns]}.

    `turns` names the columns `role` and `text`, and those that part the conversations:

    - `by`: the turns of a conversation have the same value of it, with `per: day` the same day.
    - `id` and `parent`: a turn answers the one with this id. Of several answers the one with the lowest
      `rank` is taken, otherwise the first.
    - neither: a file is a conversation.

    Without `order` the turns stay in the order of the file. The other columns stay in each turn. Successive
    messages of a user or an assistant are one turn, with the other columns of the first.

    `assistant` is the person to learn in a chat of people, and all others are the user. There messages
    without a text or a conversation, notices of the program, and conversations without an answer, are left
    out and counted.

    A file is held in memory as a whole.
    """
    noted: Counter[str] = Counter()
    turns_by_talk: dict[tuple[Prefix, object], list[TurnRow]] = {}
    for prefix, turn in _turns(batches, turns, problems, noted):
        turns_by_talk.setdefault((prefix, turn.cells.get("by")), []).append(turn)
    if "order" in turns:
        _sort(turns_by_talk.values(), turns["order"])
    talks = [TalkRows(prefix, value, talk) for (prefix, value), talk in turns_by_talk.items()]
    rows_read = sum(len(talk.turns) for talk in talks)
    if "parent" in turns:
        talks = [branch for talk in talks for branch in _branches(talk)]
    count = sum(len(talk.turns) for talk in talks)
    noted[OTHERS] = rows_read - count
    if talks:
        prefix = talks[0].prefix
        problems.notes.append(
            _(
                "{file}: {number:,} rows are the turns of {count:,} conversations",
                file=prefix.file,
                number=count,
                count=len(talks),
            )
        )
    for prefix, value, talk in talks:
        messages = joined_turns(turn.fields for turn in talk)
        noted[JOINED] += len(talk) - len(messages)
        asked = messages[messages[0]["role"] == ASSISTANT :]
        if "assistant" in turns and len(asked) < 2:
            noted[UNANSWERED] += 1
            continue
        row = {turns.get("id") or turns.get("by", ""): value, MESSAGES: messages}
        yield ObjectRows(prefix, [talk[0].line], [without(row, "")])
    problems.notes += [f"{number:,} {what}" for what, number in (+noted).items()]


def _turns(
    batches: Iterable[Rows], turns: Mapping[str, str], problems: Problems, noted: Counter[str]
) -> Iterator[tuple[Prefix, TurnRow]]:
    """Yield the turn of each row with its file. A row that is none is a problem, or counted in a chat."""
    walkers = {key: walker(name) for key, name in turns.items() if key not in ("per", "assistant")}
    names = {turns[key] for key in walkers}
    learned = turns.get("assistant")
    for rows in batches:
        for number, line in enumerate(rows.lines):
            row = rows.row(number)
            cells = {key: walk(row) for key, walk in walkers.items()}
            missing = next((key for key in NEEDED if cells.get(key, 0) in (None, "", MISSING)), "")
            if learned and (missing or _NOTICE.search(f"{row.get('type')} {row.get('subtype')}")):
                noted[UNSPOKEN] += 1
                continue
            if missing or isinstance(cells.get("by"), list | dict):
                name = turns[missing or "by"]
                message = f"found {show_value(row.get(name))}, expected a value: `turns` names it"
                problems.bad_row([Problem(NOT_AN_OBJECT, rows.place(number), message, name)], row)
                continue
            if "per" in turns:
                cells["by"] = _day(str(cells["by"]))
            role = str(cells["role"])
            if learned:
                role = ASSISTANT if role == learned else USER
            turn = {"role": role, "content": cells["text"], **_other_columns(without(row, *names))}
            yield rows.prefix, TurnRow(turn, line, cells)


def _other_columns(fields: Fields) -> Fields:
    """The columns that `turns` does not name, as further keys of a turn.

    A name that a turn may have for its speaker or its text (`content`, `value`) would hide the named column.
    It gets a suffix, so that it is counted as a column that is not used.
    """
    others = {}
    for name, value in fields.items():
        if name in _NAMES_IN_TURNS:
            name = f"{name}{OF_A_COLUMN}"
        others[name] = value
    return others


def _branches(talk: TalkRows) -> list[TalkRows]:
    """The turns from each first message to a last one, by the answers that are ranked first.

    A message without an id has no answers, and one without a parent, or with one that is not there, is a
    first one.
    """
    ids = {_id_in(turn, "id") for turn in talk.turns} - {""}
    answers: dict[str, list[TurnRow]] = {}
    for turn in talk.turns:
        answers.setdefault(_id_in(turn, "parent"), []).append(turn)
    answers.pop("", None)
    branches = []
    for first in talk.turns:
        if _id_in(first, "parent") in ids:
            continue
        branch = [first]
        while following := answers.pop(_id_in(branch[-1], "id"), []):
            branch.append(min(following, key=lambda turn: rank_of(turn.cells)))
        branches.append(TalkRows(talk.prefix, _id_in(first, "id"), branch))
    return branches


def _id_in(turn: TurnRow, key: str) -> str:
    """The id of a message, or of the one before it, as text; "" if it has none."""
    value = turn.cells[key]
    return "" if value in (None, MISSING) else str(value)


def _day(time: str) -> str:
    """The date of a time: `2024-03-01` of `2024-03-01T09:05`, the number of the day of Unix seconds."""
    if seconds := UNIX_SECONDS.fullmatch(time):
        return str(int(seconds[1]) // SECONDS_OF_A_DAY)
    return _END_OF_DATE.split(time, maxsplit=1)[0]


def _sort(talks: Collection[list[TurnRow]], order: str) -> None:
    """Sort the turns of each conversation. `UnreadableFileError` if their order is not certain."""
    texts = [[str(turn.cells["order"]) for turn in talk] for talk in talks]
    orders = orders_of(texts)
    if orders is None:
        open_texts = next((talk for talk in texts if orders_of([talk]) is None), texts[0])
        shown = show_values(open_texts[:MOST_SHOWN])
        fix = (
            "number the turns, or write times as 2024-03-01 09:05:00; without `order` the file's order stays"
        )
        raise UnreadableFileError(
            NO_RECORDS, _("the order of {shown} is not certain", shown=shown), fix, field=order
        )
    for talk, places in zip(talks, orders, strict=True):
        talk[:] = [talk[place] for place in places]


def joined_turns(turns: Iterable[Fields]) -> list[Fields]:
    """Join successive messages of one speaker. A turn has the other keys of its first message."""
    messages: list[Fields] = []
    contents: list[list[object]] = []  # of each message
    first: Fields = {}  # the turn that began the last message
    for turn in turns:
        if messages and _is_continued(first, turn):
            for key, value in turn.items():
                messages[-1].setdefault(key, value)
            contents[-1].append(turn["content"])
        else:
            first = turn
            messages.append(dict(turn))
            contents.append([turn["content"]])
    for message, texts in zip(messages, contents, strict=True):
        if len(texts) > 1:
            message["content"] = "\n\n".join(map(str, texts))
    return messages


def _is_continued(turn: Fields, following: Fields) -> bool:
    """True if two messages are of one speaker, and texts. Those of tools are results of several calls.

    A message that is marked, or has a part besides its text, stays a turn: the mark is of it alone. A thought
    is no part of the answer after it.
    """
    if marked_thought(turn) != marked_thought(following):
        return False
    if turn["role"] != following["role"] or ROLES.get(str(turn["role"]).lower()) in (CALL, OBSERVATION):
        return False
    if not isinstance(turn["content"], str) or not isinstance(following["content"], str):
        return False
    others = without(following, "role", "content")
    return not any(changes_answer(key, value) for key, value in others.items())
