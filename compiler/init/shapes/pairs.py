"""Preference pairs: two answers to a question, or answers with ratings. Two dialogues are conversations."""

from tuneyard.compiler.init.profile import FileProfile
from tuneyard.compiler.init.proposal import (
    NEARLY_ALL,
    Proposal,
    ProposedColumn,
    question_leaf,
    question_proposal,
)
from tuneyard.compiler.rows import are_objects
from tuneyard.compiler.spec.column_meanings import USUAL_NAMES
from tuneyard.core.records import PAIR


def pair_of_answers(profile: FileProfile) -> Proposal | None:
    """A question with two answers, or with rated ones: the best and the worst are a pair."""
    question = question_leaf(profile) or profile.called("context", "history")
    chosen, rejected = profile.called("chosen", "answer"), profile.called("rejected")
    pair = rated_pair(profile)
    if chosen is not None and rejected is not None:
        pair = {
            "chosen": ProposedColumn(chosen.path, "chosen"),
            "rejected": ProposedColumn(rejected.path, "rejected"),
        }
    if question is None or not pair:
        return None
    columns = {"question": ProposedColumn(question.path), **pair}
    return question_proposal(profile, "Preference pairs", columns)


def rated_pair(profile: FileProfile) -> dict[str, ProposedColumn]:
    """The best and the worst of the rated answers in a list, {} if no column has such lists."""
    for column in profile.first_rows.names():
        keys_of_rows = [_rating_keys(row.get(column)) for row in profile.first]
        rated = [keys for keys in keys_of_rows if keys]
        if rated and len(rated) >= NEARLY_ALL * len(keys_of_rows):
            return {answer: ProposedColumn(column, answer, {"best": rated[0]}) for answer in PAIR}
    return {}


def _rating_keys(value: object) -> dict[str, str]:
    """The keys of the rating and of the text in a list of rated answers, {} for anything else."""
    if not are_objects(value):
        return {}
    for by in (*USUAL_NAMES["rating"], "rank"):
        if not all(type(item.get(by)) in (int, float) for item in value):
            continue
        for take in (*USUAL_NAMES["answer"], *USUAL_NAMES["text"]):
            if all(isinstance(item.get(take), str) for item in value):
                return {"by": by, "take": take}
    return {}
