"""ChatGPT's export: each row of conversations.json is a tree of messages, of which one branch was shown."""

from collections.abc import Iterable, Mapping

from tuneyard.compiler.chat.message_rows import MESSAGES, joined_messages
from tuneyard.compiler.rows import Fields, walker, without
from tuneyard.compiler.spec.export_forms import ExportForm
from tuneyard.core.files import JsonObject

TREE = "mapping"
"""The key of a row's tree."""
NOT_SHOWN = ("user_editable_context", "thoughts", "reasoning_recap")
"""Types of contents that ChatGPT sends along with a conversation and does not show as its text."""
TOOL = "tool"
"""The speaker of messages to and from tools. They go to a column, and are counted as left out."""


def has_form(row: Fields) -> bool:
    """True for a conversation of ChatGPT: a tree of messages, and the node in it that was shown last."""
    nodes, name = row.get(TREE), row.get("current_node")
    return (
        isinstance(nodes, dict)
        and isinstance(name, str)
        and MESSAGES not in row
        and all(isinstance(node, dict) and "message" in node for node in nodes.values())
    )


def with_shown_branch(row: JsonObject) -> Fields:
    """Put `messages`, the branch that was shown, in place of a row's tree. A row without one stays."""
    if not has_form(row):
        return row
    nodes, name = row[TREE], row["current_node"]
    others = without(row, TREE, "current_node")
    branch = _shown_branch(nodes, name)
    to_tools = [message for message in branch if _speaker(message) == TOOL]
    if to_tools:
        others["tool_messages"] = to_tools
    return {MESSAGES: _chat_messages(branch), **others}


def _shown_branch(nodes: Mapping[object, object], name: object) -> list[Fields]:
    """The messages from the first one to that of the node with this name."""
    branch: list[Fields] = []
    nodes = dict(nodes)
    node = nodes.pop(name, None)  # each once: a damaged tree may be a ring
    while isinstance(node, dict):
        message = node.get("message")
        if isinstance(message, dict):
            branch.append(message)
        parent = node.get("parent")
        node = nodes.pop(parent, None) if isinstance(parent, str) else None
    return branch[::-1]


def _chat_messages(messages: Iterable[Fields]) -> list[Fields]:
    """Messages in OpenAI's form. Successive messages of one speaker become one."""
    chat_messages: list[Fields] = []
    for message in messages:
        role, content = _speaker(message), _content(message)
        if content and role in ("system", "user", "assistant"):
            chat_messages.append({"role": role, "content": content})
    return joined_messages(chat_messages)


def _speaker(message: Fields) -> object:
    """The role of a message's author, `TOOL` for a message that goes to a tool, "" for a hidden one."""
    if walker("metadata.is_visually_hidden_from_conversation")(message) is True:
        return ""
    if message.get("recipient") not in (None, "all"):
        return TOOL
    return walker("author.role")(message)


def _content(message: Fields) -> str | list[object]:
    """The text of a message, or its parts if one is a picture or a sound: as messages they are an error."""
    parts = walker("content.parts")(message)
    if not isinstance(parts, list) or walker("content.content_type")(message) in NOT_SHOWN:
        return ""
    if all(isinstance(part, str) for part in parts):
        return "\n".join(parts).strip()
    return [{"type": part.get("content_type") if isinstance(part, dict) else "text"} for part in parts]


CHATGPT = ExportForm("chatgpt", has_form, with_shown_branch)
