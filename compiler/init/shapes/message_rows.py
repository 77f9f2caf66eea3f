"""Tables with one message of a conversation a row."""

import re
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import cast

from tuneyard.compiler.chat.message_forms import ASSISTANT, ROLES, SPEAKERS, SYSTEM, USER
from tuneyard.compiler.chat.message_order import orders_of
from tuneyard.compiler.chat.message_rows import MESSAGES, UNIX_SECONDS, conversations_of
from tuneyard.compiler.init.column_statistics import CHINESE, FileStatistics, Leaf
from tuneyard.compiler.init.labels import ABOUT_ROW, ID
from tuneyard.compiler.init.proposal import ENDS, Proposal, conversation_proposal, longest_prose
from tuneyard.compiler.init.shapes.threads import lost_parents, message_links, parent_leaf
from tuneyard.compiler.rows import Fields
from tuneyard.compiler.rows.problems import Problems
from tuneyard.core.datasets.column_meanings import USUAL_NAMES
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.language.message import _

_SPEAKER_COLUMN = re.compile(
    "role|from|speaker|is_(user|sender|from_me)|(author|sender)(_role|_type)?|participant|who|direction|absender|sprecher|autor|auteur|verfasser"
    "|角色|说话人|发言人"
)
_EXPORTER_MARKS = ("is_sender", "is_from_me")
_KNOWN_ROLES = {**ROLES, **SPEAKERS, **dict.fromkeys(_EXPORTER_MARKS, ASSISTANT)}
"""Who exports a chat answers in it: `IsSender`."""
_CONVERSATION = re.compile(
    r"(^|_)(conv|dialog|thread|session|chat|ticket|call|vorgang|gespr|hilo|fil(_|$))|会话|对话|工单"
)
_PARTNER_COLUMNS = (
    "room_name",
    "str_talker",
    "talker_id",
    "talker",
    "wxid",
    "remark",
    "nick_name",
    "nickname",
)
"""With whom the exporter of a chat speaks, by preference: `StrTalker` next to `IsSender` (WeChat)."""
_CASE = re.compile(rf"(^|_)(case|fall)|{ID.pattern}")
_TIME = re.compile(r"(^|_)(time|timestamp|ts|date|datetime|when|sent|start|datum)$|_at$|zeit|时间|日期")
DATED = re.compile(rf"\d{{1,4}}[./-]\d{{1,2}}[./-]\d{{1,4}}[T ,].*|{UNIX_SECONDS.pattern}")
"""A date with a time, or Unix seconds."""
_SECONDS = re.compile(r"\d{1,8}(\.\d+)?")
MOST = 0.9
"""The least share of conversations that a column orders: an export may repeat or lose a value."""


def turn_rows(statistics: FileStatistics) -> Proposal | None:
    """Conversations, if a column names the speakers of messages and another one their texts."""
    role, roles = _speaker_leaf(statistics)
    if role is None:
        return None
    text = statistics.called("turn text") or longest_prose(statistics)
    if text is None or text is role:
        return None
    parting, guesses = _parting_columns(statistics, role, text, roles)
    if not guesses:
        return None
    unknown = ", ".join(show_value(name) for name, to in roles.items() if not to)
    if unknown:
        guesses.append(
            _(
                "{column} has values that name no known speaker: {values}; add them under "
                "`roles:` of the column in the spec, or delete their rows",
                column=role.path,
                values=unknown,
            )
        )
    renamed = {name: to for name, to in roles.items() if to and ROLES.get(name.strip().lower()) != to}
    return conversation_rows(statistics, {**parting, "role": role.path, "text": text.path}, guesses, renamed)


def conversation_rows(
    statistics: FileStatistics, turns: dict[str, str], guesses: list[str], roles: Mapping[str, str]
) -> Proposal | None:
    """The proposal for the columns in `turns`, None if nobody answers. `roles` maps further speakers."""
    conversations = conversations_in(statistics, turns)
    if all(len({message["role"] for message in conversation}) == 1 for conversation in conversations):
        return None
    always = {} if turns.keys() & {"by", "id"} else dict.fromkeys(ENDS, "drop")
    proposal = conversation_proposal(MESSAGES, conversations, roles, settings=always)
    proposal.guesses = [*guesses, *proposal.guesses]
    proposal.turns = turns
    return proposal


def conversations_in(statistics: FileStatistics, turns: Mapping[str, str]) -> list[list[Fields]]:
    """The conversations in the first rows."""
    keys = conversations_of([statistics.first_rows], turns, Problems())
    conversations = [key.row(0)[MESSAGES] for key in keys]
    return cast("list[list[Fields]]", conversations)


def _parting_columns(
    statistics: FileStatistics, role: Leaf, text: Leaf, roles: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """The columns that say which messages are a conversation, and in which order; {} if none says so.

    Next to them what to look at. `ContentError` if the messages surely need such a column.
    """
    links = message_links(statistics)
    if links:
        first = _("of the lowest {rank}", rank=links["rank"]) if "rank" in links else _("that comes first")
        order_of_answers = _(
            "{parent} names the message that a row answers; of several answers the one {first} is learned",
            parent=links["parent"],
            first=first,
        )
        return links, list(filter(None, [order_of_answers, lost_parents(statistics, links)]))
    if parent_leaf(statistics):
        return {}, []
    is_usual = bool(_SPEAKER_COLUMN.fullmatch(role.name))
    # A customer and an agent speak with each other. Human and gpt may both have written about one prompt.
    may_be_id = is_usual or ROLES.keys().isdisjoint(name.strip().lower() for name in roles)
    by = conversation_leaf(statistics, role, text, may_be_id=may_be_id)
    if role.name in _EXPORTER_MARKS:
        by = by or _partner_leaf(statistics, role)
        day = _day_leaf(statistics)
        if day is not None and (by is None or len(by.values) == 1):
            guess = _(
                "the messages of one day ({column}) are one conversation, in the order of {column}",
                column=day.path,
            )
            return {"by": day.path, "per": "day", "order": day.path}, [guess]
    if by is None:
        if (
            is_usual
            and isinstance(statistics.path, Path)
            and statistics.path.is_dir()
            and not statistics.source.splits
        ):
            return {}, [_("each file is one conversation")]
        if not is_usual or ("chat",) in statistics.source.rows.values():
            return {}, []
        raise ContentError(
            _(
                "{path}: each row is one turn ({column}: {names}), and no column says to "
                "which conversation it belongs; add one, the same in all turns of a "
                "conversation",
                path=statistics.path,
                column=role.path,
                names=", ".join(map(str, role.values)),
            )
        )
    guess = _("the rows with the same {column} are the turns of one conversation", column=by.path)
    order, guesses = _order_leaf(statistics, by, role, text)
    columns = {"by": by.path}
    if order is not None:
        columns["order"] = order.path
        guess = _("{guess}, in the order of {column}", guess=guess, column=order.path)
    return columns, [guess, *guesses]


def _partner_leaf(statistics: FileStatistics, role: Leaf) -> Leaf | None:
    """The column of the people with whom the exporter speaks, of which most speak, too.

    `talker` names the one or the other where `room_name` names the conversation.
    """
    for name in _PARTNER_COLUMNS:
        for leaf in statistics.leaves.values():
            if leaf.name != name or leaf.filled < MOST * statistics.rows:
                continue
            speakers_of_partner: dict[object, set[object]] = {}
            for partner, speaker in zip(statistics.values(leaf), statistics.values(role), strict=True):
                speakers_of_partner.setdefault(partner, set()).add(speaker)
            if 2 * sum(len(each) > 1 for each in speakers_of_partner.values()) > len(speakers_of_partner):
                return leaf
    return None


def _day_leaf(statistics: FileStatistics) -> Leaf | None:
    """The column of the times of all messages, by which those of a day are one conversation."""
    for leaf in statistics.leaves.values():
        is_time = bool(_TIME.search(leaf.name)) and leaf.filled == statistics.rows
        if is_time and all(map(DATED.fullmatch, map(str, leaf.values))):
            values = list(map(str, statistics.values(leaf)))
            if orders_of([values]) is not None:
                return leaf
    return None


def _speaker_leaf(statistics: FileStatistics) -> tuple[Leaf | None, dict[str, str]]:
    """The column whose values are speakers, a user and an assistant among them, and their roles.

    If it is named for speakers, half of its rows are enough. Next to a user alone, SYSTEM is a dialogue
    system, and an unknown speaker the assistant. A label says who wrote a text (human, gpt).
    """
    for leaf in statistics.leaves.values():
        if leaf.name in USUAL_NAMES["label"] or statistics.rows < 2:
            continue
        roles = {str(value): _role_of(str(value)) for value in leaf.values}
        speaker = _role_of(leaf.name)  # is_user
        if {name.lower() for name in roles} in ({"true", "false"}, {"1", "0"}):
            other = ASSISTANT if speaker == USER else USER
            roles = {name: speaker if name.lower() in ("true", "1") else other for name in roles}
        is_usual = bool(_SPEAKER_COLUMN.fullmatch(leaf.name))
        others = set(roles.values()) - {USER}
        if len(roles) == 2 and (others == {SYSTEM} or (is_usual and others == {""})):
            roles = {name: USER if role == USER else ASSISTANT for name, role in roles.items()}
        if not {USER, ASSISTANT} <= set(roles.values()):
            continue
        unknown = [value for value in statistics.values(leaf) if not roles.get(str(value))]
        is_named = is_usual and 2 * len(unknown) <= len(statistics.first)
        if is_named or "" not in roles.values():
            return leaf, roles
    return None, {}


def _role_of(speaker: str) -> str:
    """The role of a speaker by name, by its last word (end_user, support agent) or its first two Chinese
    characters (客服小李); "" if unknown.
    """
    name = speaker.strip().lower()
    last_word, chinese = re.split(r"[\s_-]", name)[-1], "".join(CHINESE.findall(name)[:2])
    return _KNOWN_ROLES.get(name) or _KNOWN_ROLES.get(last_word) or _KNOWN_ROLES.get(chinese, "")


def conversation_leaf(statistics: FileStatistics, *others: Leaf, may_be_id: bool) -> Leaf | None:
    """The column that several rows share: one named for conversations, otherwise one named as ids are.

    An id does not prove that human and gpt speak with each other: both may have written about one prompt.
    """
    shared = []
    for leaf in statistics.leaves.values():
        is_other = leaf in others or leaf.name in USUAL_NAMES["turn order"] or ABOUT_ROW.fullmatch(leaf.name)
        repeats = leaf.filled >= max(2 * len(leaf.hashes), statistics.rows / 2)
        if leaf.value_type in ("text", "number") and not is_other and repeats:
            shared.append(leaf)
    for pattern in (_CONVERSATION, _CASE) if may_be_id else (_CONVERSATION,):
        for leaf in shared:
            if pattern.search(leaf.name):
                return leaf
    return None


def _order_leaf(
    statistics: FileStatistics, by: Leaf, role: Leaf, text: Leaf
) -> tuple[Leaf | None, list[str]]:
    """A column whose values differ within most conversations, and are named or numbered as messages are.

    Next to it what to look at: conversations that it does not order, or times by which no messages are
    sorted.
    """
    guesses: list[str] = []
    leaves = {leaf.name: leaf for leaf in statistics.leaves.values() if leaf.filled >= MOST * statistics.rows}
    names = [name for name in USUAL_NAMES["turn order"] if name in leaves]
    names += sorted(leaves, key=lambda name: bool(ID.search(name)))  # ids come last
    keys = statistics.values(by)
    sizes = Counter(map(str, keys))
    conversations = [name for name, size in sizes.items() if size > 1]
    for name in names:
        leaf = leaves[name]
        if leaf in (by, role, text):
            continue
        values: dict[str, list[str]] = {conversation: [] for conversation in sizes}
        for key, value in zip(keys, statistics.values(leaf), strict=True):
            if value not in (None, ""):
                values[str(key)].append(str(value))
        unordered = sum(
            len(set(values[conversation])) < sizes[conversation] for conversation in conversations
        )
        gaps = _(
            "{column} is empty or repeated in {number} of {total} conversations",
            column=leaf.path,
            number=unordered,
            total=len(conversations),
        )
        is_named = _is_named_for_order(leaf)
        order = orders_of(list(values.values())) if is_named else None
        if len(conversations) - unordered >= MOST * len(conversations) and (order or _is_count(leaf, values)):
            if not unordered:
                return leaf, []
            return leaf, [
                _(
                    "{gaps}: rows without it are refused, rows with the same one stay in the "
                    "order of the file",
                    gaps=gaps,
                )
            ]
        if is_named and any(len(set(each)) > 1 for each in values.values()):
            reason = gaps
            if order is None:
                reason = _(
                    "{column} cannot order them ({value}); if that is wrong, write times as "
                    "2024-03-01 09:05:00",
                    column=leaf.path,
                    value=next(iter(leaf.values)),
                )
            guesses.append(_("the turns stay in the order of the file, because {reason}", reason=reason))
    return None, guesses


def _is_named_for_order(leaf: Leaf) -> bool:
    """True if a column is named as messages or times are. A `response_time` of 5 seconds is no such time."""
    if leaf.name in USUAL_NAMES["turn order"]:
        return True
    return bool(_TIME.search(leaf.name)) and not all(map(_SECONDS.fullmatch, map(str, leaf.values)))


def _is_count(leaf: Leaf, values: Mapping[str, list[str]]) -> bool:
    """True if a column numbers the messages of each conversation (`values`), or all rows in their order."""
    longest, count = max(map(len, values.values())), len(leaf.hashes)
    is_id = ID.search(leaf.name) and count == leaf.filled
    return bool(count <= longest + 1 or is_id) and all(map(str.isdecimal, chain(*values.values())))
