"""Tables with one turn a row: the rows of a conversation become one row (`turns` of a source)."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from tuneyard.compiler.check.marks import changes_answer
from tuneyard.compiler.kinds.turn_forms import CALL, OBSERVATION, ROLES
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read.stream import UnreadableFileError
from tuneyard.compiler.read.turn_order import orders_of
from tuneyard.compiler.rows import Fields, Line, ObjectRows, Prefix, Rows
from tuneyard.core.errors import Problem, show_value

MESSAGES = "messages"
"""The column of the turns in the rows that come out."""
MOST_SHOWN = 4  # texts of a conversation
Turn = tuple[str, Line, Fields]  # the text by which the turns are ordered, the row's line, the turn


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
            conversations.setdefault((rows.prefix, row[by]), []).append((str(row.get(order)), line, turn))
    if conversations:
        prefix, _ = next(iter(conversations))
        problems.notes.append(
            f"{prefix.file}: {count:,} rows are the turns of {len(conversations):,} conversations"
        )
    if order:
        _sort(conversations.values(), order)
    joined = 0
    for (prefix, value), items in conversations.items():
        messages = joined_turns(turn for _, _, turn in items)
        joined += len(items) - len(messages)
        yield ObjectRows(prefix, [items[0][1]], [{by: value, MESSAGES: messages}])
    if joined:
        problems.notes.append(f"{joined:,} rows continue the turn of the same speaker before them")


def _sort(talks: Collection[list[Turn]], order: str) -> None:
    """Sort the turns of each conversation. `UnreadableFileError` if their order is not certain."""
    texts = [[text for text, _, _ in items] for items in talks]
    orders = orders_of(texts)
    if orders is None:
        open_texts = next((talk for talk in texts if orders_of([talk]) is None), texts[0])
        shown = ", ".join(map(show_value, open_texts[:MOST_SHOWN]))
        fix = (
            "number the turns, or write times as 2024-03-01 09:05:00; without `order` the file's order stays"
        )
        raise UnreadableFileError("E007", f"the order of {shown} is not certain", fix, field=order)
    for items, places in zip(talks, orders, strict=True):
        items[:] = [items[place] for place in places]


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
