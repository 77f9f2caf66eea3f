"""Values of unused columns and keys that change an answer: `weight: 0`, `is_correct: false`, filled `tools`.

LLaMA-Factory 0.9.5 reads no such column or key, and learns every answer whole. The recipe's
`mask_history: true` leaves out all answers of a conversation but the last (data/processor/supervised.py).
"""

from tuneyard.core.datasets import filled
from tuneyard.core.datasets.column_meanings import meaning, usual_name
from tuneyard.core.records import PAIR

_LEARNED_AT_ONE = (
    "weight weights loss_weight loss_scale loss_mask loss compute_loss calculate_loss has_loss with_loss "
    "train training trained train_on train_on_turn train_weight train_detail to_train do_train is_train "
    "should_train trainable is_trainable learn learned learnable token_weight sample_weight "
    "example_weight row_weight is_correct is_right answer_is_correct is_answer_correct correct "
    "kto_tag desirable is_desirable kto_label is_preferred is_chosen thumbs_up thumbs label status "
    "answer responses"
)
_LEARNED_AT_ZERO = (
    "mask masked is_masked mask_loss masked_loss no_loss no_train not_train untrainable frozen skip "
    "skip_loss skip_train was_cancelled ignore ignored ignore_loss exclude excluded "
    "is_incorrect is_wrong answer_is_wrong incorrect wrong is_rejected"
)
LEARNED_AT = dict.fromkeys(_LEARNED_AT_ONE.split(), 1) | dict.fromkeys(_LEARNED_AT_ZERO.split(), 0)
"""The value with which an answer is correct and learned, by the name of the flag."""
_WITH_OTHER_CONTENTS = frozenset(("loss", "label", "correct", "incorrect", "wrong"))
"""Names of other numbers, too (`loss: 0.342` is measured): as flags they are only 0 or 1."""
_VERDICTS = ("status", "answer", "responses")
"""Flags of Argilla and Prodigy, which a list or objects may have. The status of a ticket says nothing."""
_TRUE = "true t yes y on up thumbs-up 👍 like liked good right correct approved accepted 是 对 正确 赞 通过"
_FALSE = (
    "false f no n off down thumbs-down 👎 dislike disliked bad wrong incorrect rejected "
    "否 错 错误 不正确 踩 不通过"
)
_WORDS = dict.fromkeys(_TRUE.split(), 1) | dict.fromkeys(_FALSE.split(), 0)


def is_measure(name: str, value: object) -> bool:
    """True if a value shows that a column is no flag: `correct: 3` is a position, `loss: 0.342` a number."""
    number = as_number(value)
    return usual_name(name) in _WITH_OTHER_CONTENTS and number is not None and number not in (0, 1)


def changes_answer(name: str, value: object) -> bool:
    """True if a value of an unused column, under this name, changes the answer of its row."""
    if usual_name(name) not in LEARNED_AT and not isinstance(value, bool):
        return adds_content(name, value)
    number = as_number(value)  # above 1 it may be a measure: `weight: 70`
    return masks(name, value) and (number is None or number <= 1)


def adds_content(name: str, value: object) -> bool:
    """True if a value belongs to the answer by its name: tools, a system text, a rejected answer."""
    if usual_name(name) in LEARNED_AT or not meaning(name):
        return False
    return bool(filled([value])) and value not in (0, 1)


def masks(name: str, value: object) -> bool:
    """True if a flag says that its answer is incorrect, or that the answer or a part is not to be learned."""
    flag = usual_name(name)
    if flag in PAIR and isinstance(value, bool):
        return value == (flag == "rejected")
    learned_at = LEARNED_AT.get(flag)
    if learned_at is None:
        return False
    if flag in _VERDICTS:
        return _is_discarded(value)
    if isinstance(value, list):  # of single tokens or parts of the text
        numbers = {as_number(part) for part in value if part is not None}
        return flag not in _WITH_OTHER_CONTENTS and not numbers <= {learned_at}
    number = as_number(value)
    if number is None or (flag in _WITH_OTHER_CONTENTS and number not in (0, 1)):
        return False
    return number != learned_at


def _is_discarded(value: object) -> bool:
    """True for a status that takes a row out. Of several people's responses the first one is learned."""
    if isinstance(value, list):
        return bool(value) and _is_discarded(value[0])
    if isinstance(value, dict):
        return _is_discarded(value.get("status"))
    return str(value).lower() in ("discarded", "reject", "ignore")


def as_number(value: object) -> float | None:
    """The number of a flag: 0.5, false, "0", "no", "Thumbs down". None for anything else.

    A class such as "negative" is none: a conversation may have it as its `label`.
    """
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        return None
    text = "-".join(value.lower().replace("_", " ").split())
    if text in _WORDS:
        return _WORDS[text]
    try:
        return float(text)
    except ValueError:
        return None
