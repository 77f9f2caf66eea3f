"""Preference pairs: two answers to a question, or answers with ratings. Two dialogues are conversations."""

from tuneyard.compiler.init.profile import FileProfile
from tuneyard.compiler.init.proposal import (
    Proposal,
    ProposedColumn,
    alpaca_output,
    question_leaf,
    question_proposal,
)
from tuneyard.compiler.rows import are_objects
from tuneyard.compiler.spec.column_meanings import USUAL_NAMES
from tuneyard.core.records import PAIR


def pair_of_answers(profile: FileProfile) -> Proposal | None:
    """A question with two answers."""
    question = question_leaf(profile) or profile.called("context")
    if question is None:
        return None
    columns = {"question": ProposedColumn(question.path)}
    for answer in PAIR:
        leaf = profile.called(answer)
        if leaf is None and answer == "chosen":
            leaf = profile.called("answer")
        if leaf is None:
            return None
        columns[answer] = ProposedColumn(leaf.path, answer)
    return question_proposal(profile, "Preference pairs", columns)


def rated_answers(profile: FileProfile) -> Proposal | None:
    """A question with rated answers in a list: the best and the worst are a pair."""
    question, rows = question_leaf(profile), profile.first
    if question is None:
        return None
    for column, value in rows[0].items():
        best = _rating_keys(value)
        if not best or not all(_rating_keys(row.get(column)) for row in rows):
            continue
        columns = {"question": ProposedColumn(question.path)}
        for answer in PAIR:
            columns[answer] = ProposedColumn(column, answer, {"best": best})
        return Proposal("Preference pairs from ratings", columns, alpaca_output("{question}", columns))
    return None


def _rating_keys(value: object) -> dict[str, str]:
    """The keys of the rating and of the text in a list of rated answers, {} for anything else."""
    if not are_objects(value):
        return {}
    for by in USUAL_NAMES["rating"]:
        if not all(type(item.get(by)) in (int, float) for item in value):
            continue
        for take in (*USUAL_NAMES["answer"], *USUAL_NAMES["text"]):
            if all(isinstance(item.get(take), str) for item in value):
                return {"by": by, "take": take}
    return {}
