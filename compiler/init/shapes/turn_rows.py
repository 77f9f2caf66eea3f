"""Tables with one turn of a conversation a row."""

import re

from tuneyard.compiler.init.labels import ABOUT_ROWS, ID
from tuneyard.compiler.init.profile import FileProfile, Leaf
from tuneyard.compiler.init.proposal import Proposal, ProposedColumn, longest_prose
from tuneyard.compiler.kinds.turn_forms import ASSISTANT, ROLES, SYSTEM, USER
from tuneyard.compiler.read.tables import SPEAKERS
from tuneyard.compiler.read.turn_rows import MESSAGES
from tuneyard.compiler.spec.column_meanings import USUAL_NAMES
from tuneyard.core.errors import ContentError

SPEAKER_COLUMNS = (
    "role", "from", "speaker", "author", "author_role", "sender", "participant", "角色", "说话人", "发言人",
)  # fmt: skip
TEXT_COLUMNS = ("text", "content", "message", "value", "utterance", "body", "内容", "文本")
ORDER_COLUMNS = (
    "turn", "turn_id", "turn_index", "turn_number", "turn_no", "index", "position", "order", "seq",
    "sequence", "step", "timestamp", "time", "created_at", "date", "序号", "轮次", "时间",
)  # fmt: skip
_CONVERSATION = re.compile(r"(conv|dialog|thread|session|chat|ticket|call|case|vorgang|会话|对话|工单)")
_TIME = re.compile(r"time|date|zeit|_at$|^ts$|时间|日期|序号")


def turn_rows(profile: FileProfile) -> Proposal | None:
    """Conversations, if a column names the speakers of turns and another one their texts."""
    role, roles = _speaker_leaf(profile)
    if role is None or profile.named(USUAL_NAMES["parent message"], ("text", "number")):
        return None
    text = profile.named(TEXT_COLUMNS) or longest_prose(profile)
    if text is None or text is role:
        return None
    by = _conversation_leaf(profile, role, text)
    if by is None and role.name not in SPEAKER_COLUMNS:
        return None
    if by is None:
        raise ContentError(
            f"{profile.path}: each row is one turn ({role.path}: {', '.join(map(str, role.values))}), and no "
            "column says to which conversation it belongs; add one, the same in all turns of a conversation"
        )
    turns = {"by": by.path, "role": role.path, "text": text.path}
    guesses = [f"the rows with the same {by.path} are the turns of one conversation"]
    order = _order_leaf(profile, by, (role, text))
    if order is not None:
        turns["order"] = order.path
        guesses = [f"{guesses[0]}, in the order of {order.path}"]
    renamed = {name: to for name, to in roles.items() if ROLES.get(name.strip().lower()) != to}
    columns = {"turns": ProposedColumn(MESSAGES, "turns", {"roles": renamed} if renamed else {})}
    return Proposal("Conversations", columns, {"format": "sharegpt"}, guesses=guesses, turns=turns)


def _speaker_leaf(profile: FileProfile) -> tuple[Leaf | None, dict[str, str]]:
    """The column whose values are speakers, a user and an assistant among them, and their roles.

    USER and SYSTEM alone are the speakers of a dialogue system. A label says who wrote a text (human, gpt).
    """
    known = {**ROLES, **SPEAKERS}
    for leaf in profile.leaves.values():
        if leaf.kind != "text" or leaf.name in USUAL_NAMES["label"] or profile.rows < 2:
            continue
        roles = {str(value): known.get(str(value).strip().lower(), "") for value in leaf.values}
        if set(roles.values()) == {USER, SYSTEM}:
            roles = {name: USER if role == USER else ASSISTANT for name, role in roles.items()}
        if {USER, ASSISTANT} <= set(roles.values()) and "" not in roles.values():
            return leaf, roles
    return None, {}


def _conversation_leaf(profile: FileProfile, *others: Leaf) -> Leaf | None:
    """The column that several rows share: one named for conversations, otherwise one named as ids are."""
    shared = []
    for leaf in profile.leaves.values():
        is_other = leaf in others or leaf.name in (*ORDER_COLUMNS, *ABOUT_ROWS)
        if leaf.kind in ("text", "number") and not is_other and 2 * len(leaf.hashes) <= leaf.filled:
            shared.append(leaf)
    for pattern in (_CONVERSATION, ID):
        for leaf in shared:
            if pattern.search(leaf.name):
                return leaf
    return None


def _order_leaf(profile: FileProfile, by: Leaf, others: tuple[Leaf, ...]) -> Leaf | None:
    """A column whose values differ within each conversation, and are named or numbered as turns are."""
    leaves = {leaf.name: leaf for leaf in profile.leaves.values() if leaf.filled == profile.rows}
    names = [name for name in ORDER_COLUMNS if name in leaves] + [*leaves]
    conversations = profile.values(by)
    for name in names:
        leaf = leaves[name]
        if leaf is by or leaf in others:
            continue
        values: dict[str, list[str]] = {}
        for conversation, value in zip(conversations, profile.values(leaf), strict=True):
            values.setdefault(str(conversation), []).append(str(value))
        longest = max(map(len, values.values()))
        numbered = len(leaf.hashes) <= longest + 1 and all(map(str.isdecimal, map(str, leaf.values)))
        if (name in ORDER_COLUMNS or _TIME.search(name) or numbered) and all(
            len(set(each)) == len(each) for each in values.values()
        ):
            return leaf
    return None
