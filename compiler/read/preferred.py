"""Two answers in columns of their own, and a column that names the better one."""

from tuneyard.compiler.rows import Fields, without

FORMS = {
    "response_0": ("response_1", "better_response_id", "0", "1"),  # SafeRLHF
    "human_ref_A": ("human_ref_B", "labels", "1", "0"),  # SHP
    "conversation_a": ("conversation_b", "winner", "model_a", "model_b"),  # Chatbot Arena
    "output_1": ("output_2", "preference", "1", "2"),  # AlpacaFarm
}
"""By the column of one answer: that of the other, that of the better one, and its values for either."""


def with_chosen(row: Fields) -> Fields:
    """Put `chosen` and `rejected` in place of two answers, or `tie` if neither is better."""
    for chosen, (rejected, better, *values) in FORMS.items():
        if row.keys() >= {chosen, rejected, better}:
            others = without(row, chosen, rejected, better)
            value = str(row[better])
            if value not in values:
                return {"tie": value, **others}
            if value == values[1]:
                chosen, rejected = rejected, chosen
            return {"chosen": row[chosen], "rejected": row[rejected], **others}
    return row
