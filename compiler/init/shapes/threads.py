"""Rows that are no examples by themselves: messages of threads, and trees of them.

Each refusal names the file to write instead.
"""

from tuneyard.compiler.init.profile import FileProfile
from tuneyard.compiler.rows import walker
from tuneyard.compiler.spec.column_meanings import USUAL_NAMES
from tuneyard.core.errors import ContentError

WRITE_THREADS = (
    "Write each path from a first message to a last answer as one line: "
    '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}. '
    "Spec messages compiles that file."
)


def refuse_trees(profile: FileProfile) -> None:
    """Refuse rows that are trees of messages, as OASST's: their first message alone is no example."""
    path = next(filter(None, map(_path_to_replies, profile.first)), "")
    if not path:
        return
    raise ContentError(
        f"{profile.path}: each row is a tree of messages (the answers are under {path}), so no row is an "
        f"example; expected one row for each conversation. {WRITE_THREADS} To learn other columns alone, "
        "name them with --text and --label or --answer."
    )


def _path_to_replies(value: object, path: str = "") -> str:
    """The path to the first list of messages that answer the object they are in, "" if there is none."""
    if not isinstance(value, dict):
        return ""
    for key, inner in value.items():
        inner_path = f"{path}.{key}" if path else str(key)
        if key in USUAL_NAMES["replies"] and isinstance(inner, list):
            for reply in inner:
                if isinstance(reply, dict) and not set(USUAL_NAMES["text"]).isdisjoint(reply):
                    return inner_path
            continue
        deeper_path = _path_to_replies(inner, inner_path)
        if deeper_path:
            return deeper_path
    return ""


def refuse_loose_messages(profile: FileProfile) -> None:
    """Refuse rows that are single messages of threads, as OASST's: none of them is an example by itself."""
    leaves = profile.leaves.values()
    parents = [leaf.path for name in USUAL_NAMES["parent message"] for leaf in leaves if leaf.goes_by(name)]
    is_message = any(leaf.is_called("message") for leaf in leaves)
    text = profile.called("text")
    if not parents or text is None or not (is_message or _name_rows(profile, parents[0])):
        return
    parent = parents[0]
    raise ContentError(
        f"{profile.path}: each row is one message of a thread ({parent} names the message before it), so no "
        "row is an example; expected one row for each conversation. "
        f"Follow {parent} from each last answer to the first message. {WRITE_THREADS} "
        f"To pretrain on single messages all the same: --text {text.path}"
    )


def _name_rows(profile: FileProfile, parent: str) -> bool:
    """True if a column holds ids of other rows, or nothing for the first message of a thread."""
    ids = profile.called("idx", kinds=("text", "number"))
    if ids is None:
        return False
    named = {str(value) for value in map(walker(parent), profile.first) if value not in (None, "")}
    return named <= set(map(str, profile.values(ids)))
