"""OASST's trees: each row is a first message, with the answers to it and what follows them inside it."""

from math import inf

from tuneyard.compiler.rows import Fields, are_objects, without
from tuneyard.compiler.spec.export_forms import ExportForm
from tuneyard.core.datasets.answer_flags import as_number

OTHER_ANSWERS = "other_answers"
"""The column with the answers that are left out, so that they are counted."""


def has_form(row: Fields) -> bool:
    """True for a tree of OASST: its id, and a first message with its role, its text and its replies."""
    first = row.get("prompt")
    return (
        "message_tree_id" in row
        and isinstance(first, dict)
        and {"role", "text", "replies"} <= first.keys()
        and "messages" not in row
    )


def with_best_branch(row: Fields) -> Fields:
    """Put `messages`, the branch of the answers that are ranked first, in place of a row's tree."""
    if not has_form(row):
        return row
    node = row["prompt"]
    messages = []
    left_out = 0
    while isinstance(node, dict):
        messages.append({"role": node.get("role"), "content": node.get("text")})
        answers = node["replies"] if are_objects(node.get("replies")) else []
        left_out += len(answers[1:])
        node = min(answers, key=rank_of, default=None)
    return {"messages": messages, OTHER_ANSWERS: left_out, **without(row, "prompt")}


def rank_of(fields: Fields) -> float:
    """The rank among the answers to one message, 0 for the best one. Those without a rank come last."""
    rank = as_number(fields.get("rank"))
    return inf if rank is None else rank


OASST = ExportForm("oasst", has_form, with_best_branch)
