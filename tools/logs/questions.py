"""The questions of all logs, and what two models answer: `base` is right in 3 of 6, `tuned` in 5 of 6."""

QUESTIONS = (
    ("Is 2 even?", "yes"),
    ("Is 3 even?", "no"),
    ("Is 4 even?", "yes"),
    ("Is 5 even?", "no"),
    ("Is 8 even?", "yes"),
    ("Is 9 even?", "no"),
)
ANSWERS = {"base": ("yes",) * 6, "tuned": ("yes", "no", "yes", "no", "yes", "yes")}
THOUGHTS = {"base": "", "tuned": "<think>\nOdd numbers end in 1, 3, 5, 7 or 9: no?\n</think>\n\n"}


def outputs(model: str) -> list[str]:
    """The texts that a model generates, thoughts included."""
    return [THOUGHTS[model] + answer for answer in ANSWERS[model]]
