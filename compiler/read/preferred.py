"""Two answers in columns of their own, and a column that names the better one, or a score of each."""

from itertools import chain

from tuneyard.compiler.check.marks import as_number
from tuneyard.compiler.kinds.turn_forms import common_turns
from tuneyard.compiler.rows import Fields, without
from tuneyard.compiler.spec.column_names import snake_case
from tuneyard.core.records.calls import read_strict

FORMS = {
    "response_0": "response_1",  # SafeRLHF
    "response_1": "response_2",
    "response_a": "response_b",
    "answer_a": "answer_b",
    "answer_0": "answer_1",  # WebGPT
    "answer_1": "answer_2",
    "conversation_a": "conversation_b",  # Chatbot Arena
    "output_1": "output_2",  # AlpacaFarm
    "human_ref_A": "human_ref_B",  # SHP
}
"""By the column of one answer: that of the other."""
BETTER = ("better_response_id", "winner", "preference", "preferred")
"""Columns whose value ends as the name of the better answer's column: `A`, `model_a`, `Response A`.

Of columns such as `winner_model_a` and `winner_tie`, the one that is 1 says it.
"""
TIES = ("tie", "winner_tie", "both", "neither", "equal", "draw", "none")
"""How a value begins if neither answer is better."""


def with_chosen(row: Fields) -> Fields:
    """Put `chosen` and `rejected` in place of two answers, or `tie` if neither is better.

    A row with any other verdict stays, and its check refuses it.
    """
    better = [name for name in row if name in BETTER or name.startswith("winner_")]
    for first, second in FORMS.items():
        if not row.keys() >= {first, second}:
            continue
        verdict = _better_by_score(row, first, second)
        for name in better:
            if name in BETTER:
                verdict = str(row[name]).removesuffix(".0")
            elif as_number(row[name]) == 1:
                verdict = name
        verdict = snake_case(verdict)
        row = _with_dialogues(row, first, second)
        others = without(row, first, second, *better)
        for chosen, rejected in ((first, second), (second, first)):
            if chosen.lower().endswith(f"_{verdict.rpartition('_')[2]}"):
                return {"chosen": row[chosen], "rejected": row[rejected], **others}
        if verdict.startswith(TIES) or (better and not verdict):
            return {"tie": verdict, **others}
    return row


def _with_dialogues(row: Fields, *answers: str) -> Fields:
    """Join the questions in `prompt` with each list of their answers, if all are lists in JSON (LMSYS)."""
    try:
        prompt, *replies = [read_strict(str(row.get(name))) for name in ("prompt", *answers)]
        dialogues = [common_turns([*chain(*zip(prompt, texts, strict=True))], {}) for texts in replies]
    except (ValueError, TypeError):
        return row
    return {**without(row, "prompt"), **dict(zip(answers, dialogues, strict=True))}


def _better_by_score(row: Fields, first: str, second: str) -> str:
    """The answer with the higher score, `tie` if they are equal, "" without scores."""
    name_by_score = {as_number(row.get(f"score_{name[-1]}")): name for name in (first, second)}
    if None in name_by_score:
        return ""
    if len(name_by_score) == 1:
        return TIES[0]
    return name_by_score[max(name_by_score)]  # type: ignore[type-var]  # None is none of them
