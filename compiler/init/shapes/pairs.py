"""Preference pairs: two answers to a question, or answers with ratings. Two dialogues are conversations."""

from tuneyard.compiler.init.column_statistics import FileStatistics
from tuneyard.compiler.init.proposal import (
    NEARLY_ALL,
    Proposal,
    ProposedColumn,
    question_leaf,
    question_proposal,
)
from tuneyard.compiler.rows import Fields, are_objects
from tuneyard.core.datasets.column_meanings import USUAL_NAMES
from tuneyard.core.language.message import _
from tuneyard.core.records import PAIR


def pair_of_answers(statistics: FileStatistics) -> Proposal | None:
    """A question with two answers, or with rated ones: the best and the worst are a pair."""
    question = question_leaf(statistics) or statistics.called("context", "history")
    chosen, rejected = statistics.called("chosen", "answer"), statistics.called("rejected")
    pair = rated_pair(statistics)
    if chosen is not None and rejected is not None:
        pair = {
            "chosen": ProposedColumn(chosen.path, "chosen"),
            "rejected": ProposedColumn(rejected.path, "rejected"),
        }
    if question is None or not pair:
        return None
    columns = {"question": ProposedColumn(question.path), **pair}
    return question_proposal(statistics, _("Preference pairs"), columns)


def rated_pair(statistics: FileStatistics) -> dict[str, ProposedColumn]:
    """The best and the worst of the rated answers in a list, {} if no column has such lists."""
    lists_by_column: dict[str, list[list[Fields]]] = {}
    for row in statistics.first:
        for column, value in row.items():
            if are_objects(value):
                lists_by_column.setdefault(column, []).append(value)
    for column, lists in lists_by_column.items():
        rated = list(filter(None, map(_rating_keys, lists)))
        if rated and len(rated) >= NEARLY_ALL * len(statistics.first):
            return {answer: ProposedColumn(column, answer, {"best": rated[0]}) for answer in PAIR}
    return {}


def _rating_keys(value: list[Fields]) -> dict[str, str]:
    """The keys of the rating and of the text in a list of rated answers, {} for other objects."""
    for by in (*USUAL_NAMES["rating"], "rank"):
        if not all(type(item.get(by)) in (int, float) for item in value):
            continue
        for take in (*USUAL_NAMES["answer"], *USUAL_NAMES["text"]):
            if all(isinstance(item.get(take), str) for item in value):
                return {"by": by, "take": take}
    return {}
