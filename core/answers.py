"""Checks of a row's answers, shared by `recipe check` and `data verify`.

A finding is a warning (W417, W422) with a count. If it is true of every row, it is the error of the same
number (E417, E422).
"""

from collections.abc import Mapping, Sequence

EMPTY, SAME = "W417", "W422"
MESSAGES = {
    EMPTY: "an answer is empty: only the end of its turn is learned",
    SAME: "chosen and rejected are the same within cutoff_len: nothing tells them apart",
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
    codes = set()
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
    """Turn a warning into the error of the same number if all `rows` rows are affected."""
    if count >= rows > 0:
        return f"E{warning[1:]}"
    return warning
