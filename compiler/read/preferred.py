"""Two answers in columns of their own, and a column that names the better one."""

from tuneyard.compiler.rows import Fields, without

FORMS = {
    "response_0": "response_1",  # SafeRLHF
    "response_1": "response_2",
    "response_a": "response_b",
    "answer_a": "answer_b",
    "conversation_a": "conversation_b",  # Chatbot Arena
    "output_1": "output_2",  # AlpacaFarm
    "human_ref_A": "human_ref_B",  # SHP
}
"""By the column of one answer: that of the other."""
BETTER = ("better_response_id", "winner", "preference", "preferred", "labels")
"""Columns whose value ends as the name of the better answer's column: `a`, `model_a`, `response_a`."""
SHP = {"1": "A", "0": "B"}
"""The ends by SHP's `labels`."""


def with_chosen(row: Fields) -> Fields:
    """Put `chosen` and `rejected` in place of two answers, or `tie` if neither is better."""
    better = next((name for name in BETTER if name in row), "")
    for first, second in FORMS.items():
        if row.keys() >= {first, second, better}:
            others = without(row, first, second, better)
            end = str(row[better]).rpartition("_")[2]
            if better == "labels":
                end = SHP.get(end, end)
            for chosen, rejected in ((first, second), (second, first)):
                if chosen.endswith(f"_{end}"):
                    return {"chosen": row[chosen], "rejected": row[rejected], **others}
            return {"tie": row[better], **others}
    return row
