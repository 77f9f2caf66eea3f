"""Checks of a row's answers, shared by `recipe check` and `data verify`.

A finding is a warning (W417, W418, W422) with a count. An empty answer or equal pair in every row is the
error of the same number (E417, E422).
"""

import re
from collections.abc import Mapping, Sequence

from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _

EMPTY = ProblemCode("W417", _("an empty answer that is learned"), _("Fill in the answer, or delete the row."))
ALL_EMPTY = ProblemCode(
    "E417", _("an empty answer in every row"), _("Check which column the answer is mapped to.")
)
UNFILLED = ProblemCode(
    "W418", _("{{{{name}}}} or {{{{author}}}} is not filled in"), _("Write the name into the data.")
)
SAME = ProblemCode(
    "W422",
    _("chosen and rejected are equal within `cutoff_len`"),
    _("Raise `cutoff_len`, or delete the pair."),
)
ALL_SAME = ProblemCode(
    "E422", _("chosen and rejected are equal in every pair"), _("Check both columns, or raise `cutoff_len`.")
)


FORM_FIELD = re.compile(r"\{\{ ?(?:name|author) ?\}\}")
"""Fields of LLaMA-Factory's identity data, which is a form."""
ERRORS: Mapping[str, str] = {EMPTY: ALL_EMPTY, SAME: ALL_SAME}
"""The errors of warnings that all rows have."""
MESSAGES: Mapping[str, str] = {
    EMPTY: _("an answer is empty: only the end of its turn is learned"),
    UNFILLED: _("{{{{name}}}} or {{{{author}}}} is not filled in: the model learns to write the field"),
    SAME: _("chosen and rejected are the same within cutoff_len: the pair teaches no preference"),
}
PAIRED = ("rm", "dpo")  # stages whose rows have a chosen and a rejected answer


def answer_codes(
    stage: str,
    prompt: Sequence[Mapping[str, object]],
    answers: Sequence[Mapping[str, str]],
    *,
    mask_history: bool,
) -> set[str]:
    """Codes of the findings on the answers of one row, as LLaMA-Factory's converter makes them.

    Pairs need both answers. Of a KTO row one answer is empty, and of other rows there is one answer. Stage
    sft also learns the earlier answers in the prompt, unless the recipe sets mask_history.
    """
    texts = [answer["content"].strip() for answer in answers]
    codes: set[str] = set()
    if any(map(FORM_FIELD.search, texts)):
        codes.add(UNFILLED)
    if stage in PAIRED:
        if not all(texts):
            codes.add(EMPTY)
        if len(texts) == 2 and texts[0] == texts[1]:
            codes.add(SAME)
        return codes
    if not any(texts):
        codes.add(EMPTY)
    if stage == "sft" and not mask_history:
        for turn in prompt:
            content = turn["content"]
            if turn["role"] == "assistant" and isinstance(content, str) and not content.strip():
                codes.add(EMPTY)
    return codes


def code_for(warning: str, count: int, rows: int) -> str:
    """Turn a warning into the error of the same number if all `rows` rows are affected.

    A form field stays a warning: the row can be trained.
    """
    if count >= rows > 0:
        return ERRORS.get(warning, warning)
    return warning
