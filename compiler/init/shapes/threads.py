"""Rows that are no examples by themselves: messages of threads, and trees of them.

Each refusal names the file to write instead.
"""

from collections.abc import Mapping

from tuneyard.compiler.init.column_statistics import FileStatistics, Leaf
from tuneyard.compiler.init.labels import VALUE_TYPES
from tuneyard.core.datasets.column_meanings import USUAL_NAMES
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.language.message import _

MOST_ROLES = 10  # different speakers in a column of roles
MOST_IDS = 0.9
"""The share of different values in a column of ids, at least: a row may be there twice."""
REPLIES = set(USUAL_NAMES["replies"])
WRITE_THREADS = _(
    "Write each path from a first message to a last answer as one line: "
    '{{"messages": [{{"role": "user", "content": "…"}}, {{"role": "assistant", "content": "…"}}]}}. '
    "Spec messages compiles that file."
)


def refuse_trees(statistics: FileStatistics) -> None:
    """Refuse rows that are trees of messages, as OASST's: their first message alone is no example."""
    for leaf in statistics.leaves.values():
        has_replies = leaf.value_type == "several objects" and leaf.is_called("replies")
        is_reply = leaf.is_called("text") and not REPLIES.isdisjoint(leaf.steps[:-1])
        if has_replies or is_reply:
            raise ContentError(
                _(
                    "{path}: each row is a tree of messages (the answers are under {column}), so "
                    "no row is an example; expected one row for each conversation. "
                    "{write_threads} To learn other columns alone, name them with --text and "
                    "--label or --answer.",
                    path=statistics.path,
                    column=leaf.path,
                    write_threads=WRITE_THREADS,
                )
            )


def refuse_loose_messages(statistics: FileStatistics) -> None:
    """Refuse rows that are single messages of threads without speakers: none is an example by itself."""
    parent = parent_leaf(statistics)
    is_message = any(leaf.is_called("message") for leaf in statistics.leaves.values())
    text = statistics.called("text")
    if parent is None or text is None or not (is_message or message_links(statistics)):
        return
    role, message_id = (
        statistics.called("message", value_types=VALUE_TYPES),
        statistics.called("idx", value_types=VALUE_TYPES),
    )
    if role is not None and message_id is not None and len(role.values) <= MOST_ROLES:
        parents = _filled_texts(statistics, parent)
        missing = _without_row(statistics, parent, message_id)
        if missing and len(missing) < len(parents):
            turns = f"id: {message_id.path}, parent: {parent.path}, role: {role.path}, text: {text.path}"
            raise ContentError(
                _(
                    "{path}: {number} of {total} values of {column} name no row, such as "
                    "{value}; add these rows, or begin a conversation after them: a spec that "
                    "has `source: {{turns: {{{turns}}}}}` and `unasked: drop` at its column of "
                    "turns reads the file",
                    path=statistics.path,
                    number=len(missing),
                    total=len(parents),
                    column=parent.path,
                    value=show_value(missing[0]),
                    turns=turns,
                )
            )
    raise ContentError(
        _(
            "{path}: each row is one message of a thread ({parent} names the message "
            "before it), so no row is an example; expected one row for each "
            "conversation. Follow {parent} from each last answer to the first message. "
            "{rest} To pretrain on single messages all the same: --text {text}",
            path=statistics.path,
            parent=parent.path,
            rest=WRITE_THREADS,
            text=text.path,
        )
    )


def parent_leaf(statistics: FileStatistics) -> Leaf | None:
    """The column that names the message before each, None if the file has none."""
    return statistics.called("parent message", value_types=(*VALUE_TYPES, "null"))


def message_links(statistics: FileStatistics) -> dict[str, str]:
    """The columns of a message's id, of the message before it, and of its rank; {} if they name no rows.

    Most parents must name a row. An export may lack some messages. The id of a thread is none of a message.
    """
    parent = parent_leaf(statistics)
    if parent is None:
        return {}
    others = [
        leaf
        for leaf in statistics.leaves.values()
        if leaf is not parent
        and leaf.value_type in VALUE_TYPES
        and len(leaf.hashes) >= MOST_IDS * leaf.filled
    ]
    leaf = min(others, key=lambda leaf: len(_without_row(statistics, parent, leaf)), default=None)
    if leaf is None or 2 * len(_without_row(statistics, parent, leaf)) >= len(
        _filled_texts(statistics, parent)
    ):
        return {}
    links = {"id": leaf.path, "parent": parent.path}
    rank = statistics.named(["rank"], VALUE_TYPES)
    if rank is not None:
        links["rank"] = rank.path
    return links


def lost_parents(statistics: FileStatistics, links: Mapping[str, str]) -> str:
    """What to look at if some parents name no row, "" if all do."""
    parent, message_id = statistics.leaves[links["parent"]], statistics.leaves[links["id"]]
    missing = _without_row(statistics, parent, message_id)
    if not missing:
        return ""
    count = len(_filled_texts(statistics, parent))
    return _(
        "{count} of {total} values of {column} name no row, such as {value}: a "
        "conversation begins after them",
        count=len(missing),
        total=count,
        column=parent.path,
        value=show_value(missing[0]),
    )


def _without_row(statistics: FileStatistics, parent: Leaf, message_id: Leaf) -> list[str]:
    """The values of a column of parents that are no ids of messages."""
    ids = set(_filled_texts(statistics, message_id))
    return [value for value in _filled_texts(statistics, parent) if value not in ids]


def _filled_texts(statistics: FileStatistics, leaf: Leaf) -> list[str]:
    """The values of a column as texts, without those of rows that have none."""
    return [str(value) for value in statistics.each_value(leaf) if value not in (None, "")]
