"""Tables with one turn of a conversation a row."""

import re

from tuneyard.compiler.init.labels import ABOUT_ROWS
from tuneyard.compiler.init.profile import FileProfile, Leaf
from tuneyard.compiler.init.proposal import Proposal, longest_prose
from tuneyard.compiler.kinds.turn_forms import ASSISTANT, ROLES, USER
from tuneyard.compiler.read.turn_rows import MESSAGES
from tuneyard.compiler.spec.column_meanings import USUAL_NAMES
from tuneyard.core.errors import ContentError

SPEAKERS = {
    **dict.fromkeys(
        ("customer", "client", "caller", "visitor", "patient", "student", "用户", "客户", "顾客", "患者"),
        USER,
    ),
    **dict.fromkeys(
        ("agent", "support", "operator", "advisor", "doctor", "teacher", "客服", "助手", "医生"), ASSISTANT
    ),
}
"""Roles by names of speakers that a dialogue between people has."""
SPEAKER_COLUMNS = ("role", "from", "speaker", "author", "author_role", "sender", "角色", "说话人")
TEXT_COLUMNS = ("text", "content", "message", "value", "utterance", "body", "内容", "文本")
ORDER_COLUMNS = (
    "turn", "turn_id", "turn_index", "turn_number", "turn_no", "index", "position", "order", "seq",
    "sequence", "step", "timestamp", "time", "created_at", "date", "序号", "轮次", "时间",
)  # fmt: skip
_CONVERSATION = re.compile(r"(conv|dialog|thread|session|chat|ticket|call|case|会话|对话)")
_ID = re.compile(r"(^|_)(id|no|number|key|uid)$|编号$")


def turn_rows(profile: FileProfile) -> Proposal | None:
    """Conversations, if a column names the speakers of turns and another one their texts."""
    role = _speaker_leaf(profile)
    if role is None or any(profile.named(USUAL_NAMES["parent message"], kind) for kind in ("text", "number")):
        return None
    text = profile.named(TEXT_COLUMNS) or longest_prose(profile)
    if text is None or text is role:
        return None
    by = _conversation_leaf(profile, role, text)
    if by is None:
        raise ContentError(
            f"{profile.path}: each row is one turn ({role.path}: {', '.join(map(str, role.values))}), and no "
            "column says to which conversation it belongs; add one, the same in all turns of a conversation"
        )
    turns = {"by": by.path, "role": role.path, "text": text.path}
    guesses = [f"the rows with the same {by.path} are the turns of one conversation"]
    order = _order_leaf(profile, (role, text, by))
    if order is not None:
        turns["order"] = order.path
        guesses = [f"{guesses[0]}, in the order of {order.path}"]
    column: dict[str, object] = {"names": [MESSAGES], "is": "turns"}
    roles = {str(name): SPEAKERS[_small(name)] for name in role.values if _small(name) not in ROLES}
    if roles:
        column["roles"] = roles
    return Proposal("Conversations", {"turns": column}, {"format": "sharegpt"}, guesses=guesses, turns=turns)


def _small(name: object) -> str:
    return str(name).strip().lower()


def _speaker_leaf(profile: FileProfile) -> Leaf | None:
    """The column whose values are speakers, a user and an assistant among them."""
    known = {**ROLES, **SPEAKERS}
    for leaf in profile.leaves.values():
        if leaf.kind != "text" or leaf.name not in SPEAKER_COLUMNS or profile.rows < 2:
            continue
        roles = {known.get(_small(value)) for value in leaf.values}
        if {USER, ASSISTANT} <= roles and None not in roles:
            return leaf
    return None


def _conversation_leaf(profile: FileProfile, *others: Leaf) -> Leaf | None:
    """The column that several rows share: one named for conversations, otherwise one named as ids are."""
    shared = []
    for leaf in profile.leaves.values():
        is_other = leaf in others or leaf.name in (*ORDER_COLUMNS, *ABOUT_ROWS)
        if leaf.kind in ("text", "number") and not is_other and 2 * len(leaf.hashes) <= leaf.filled:
            shared.append(leaf)
    for pattern in (_CONVERSATION, _ID):
        for leaf in shared:
            if pattern.search(leaf.name):
                return leaf
    return None


def _order_leaf(profile: FileProfile, others: tuple[Leaf, ...]) -> Leaf | None:
    for name in ORDER_COLUMNS:
        for leaf in profile.leaves.values():
            if leaf.name == name and leaf not in others and leaf.filled == profile.rows:
                return leaf
    return None
