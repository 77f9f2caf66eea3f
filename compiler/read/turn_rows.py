"""Tables with one turn a row: the rows of a conversation become one row (`turns` of a source)."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime

from tuneyard.compiler.check.marks import changes_answer
from tuneyard.compiler.kinds.turn_forms import CALL, OBSERVATION, ROLES
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.rows import Fields, Line, ObjectRows, Prefix, Rows
from tuneyard.core.errors import Problem, show_value

MESSAGES = "messages"
"""The column of the turns in the rows that come out."""
WIDEST = 20  # digits of a number in a text
_GERMAN_DATE = re.compile(r"^(\d\d)\.(\d\d)\.(\d{4})\b")
_VERSION = re.compile(r"\.\d+0$")
_DIGITS = re.compile(r"\d+")
Turn = tuple[object, Line, Fields]  # the value by which the turns are ordered, the row's line, the turn


def conversations_of(batches: Iterable[Rows], turns: Mapping[str, str], problems: Problems) -> Iterator[Rows]:
    """Yield a row for each value of the column `by`: {by: value, messages: [turns]}.

    `turns` names the columns `by`, `role` and `text`, and `order`, without which the turns stay in the order
    of the file. The other columns stay in each turn. Successive messages of a user or an assistant are one
    turn, with the other columns of the first. A file is held in memory as a whole.
    """
    by, order = turns["by"], turns.get("order", "")
    columns = [by, turns["role"], turns["text"]]
    if order:
        columns.append(order)
    conversations: dict[tuple[Prefix, object], list[Turn]] = {}
    count = 0
    for rows in batches:
        for number, line in enumerate(rows.lines):
            row = rows.row(number)
            count += 1
            missing = next((name for name in columns if row.get(name) in (None, "")), "")
            if missing or isinstance(row[by], list | dict):
                message = f"found {show_value(row.get(missing or by))}, expected a value: `turns` names it"
                problems.bad_row([Problem("E005", rows.place(number), message, missing or by)], row)
                continue
            others = {key: value for key, value in row.items() if key not in columns}
            turn = {"role": str(row[turns["role"]]), "content": row[turns["text"]], **others}
            conversations.setdefault((rows.prefix, row[by]), []).append((row.get(order), line, turn))
    if conversations:
        prefix, _ = next(iter(conversations))
        problems.notes.append(
            f"{prefix.file}: {count:,} rows are the turns of {len(conversations):,} conversations"
        )
    joined = 0
    for (prefix, value), items in conversations.items():
        ordered = _ordered(items) if order else items
        messages = joined_turns(turn for _, _, turn in ordered)
        joined += len(items) - len(messages)
        yield ObjectRows(prefix, [items[0][1]], [{by: value, MESSAGES: messages}])
    if joined:
        problems.notes.append(f"{joined:,} rows continue the turn of the same speaker before them")


def joined_turns(turns: Iterable[Fields]) -> list[Fields]:
    """Join successive messages of one speaker. A turn has the other keys of its first message."""
    messages: list[Fields] = []
    for turn in turns:
        if messages and _is_continued(messages[-1], turn):
            content = f"{messages[-1]['content']}\n\n{turn['content']}"
            messages[-1] = {**turn, **messages[-1], "content": content}
        else:
            messages.append(turn)
    return messages


def _is_continued(turn: Fields, following: Fields) -> bool:
    """True if two messages are of one speaker, and texts. Those of tools are results of several calls.

    A message that is marked, or has a part besides its text, stays a turn: the mark is of it alone.
    """
    if turn["role"] != following["role"] or ROLES.get(str(turn["role"]).lower()) in (CALL, OBSERVATION):
        return False
    if not isinstance(turn["content"], str) or not isinstance(following["content"], str):
        return False
    others = {key: value for key, value in following.items() if key not in ("role", "content")}
    return not any(changes_answer(key, value) for key, value in others.items())


def _number(text: str) -> float:
    """A number. `1.10` is none: it comes after `1.9`, or all values have as many digits."""
    if _VERSION.search(text):
        raise ValueError(text)
    return float(text)


def _by_parts(text: str) -> str:
    """A text that sorts by the numbers in it: `1.9` comes before `1.10`, `v2` before `v10`."""
    return _DIGITS.sub(lambda digits: digits[0].zfill(WIDEST), _GERMAN_DATE.sub(r"\3-\2-\1", text))


def _ordered(items: list[Turn]) -> list[Turn]:
    """Turns by their numbers or times if all of them have one, otherwise by the numbers in their values."""
    for key in (_number, datetime.fromisoformat):
        with suppress(ValueError, TypeError):  # a time with an offset has no order with one without
            return sorted(items, key=lambda item: key(str(item[0])))
    return sorted(items, key=lambda item: _by_parts(str(item[0])))
