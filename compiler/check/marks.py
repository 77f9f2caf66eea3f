"""Marks that keep answers out of the loss: `weight: 0`, `loss: false`, `mask: 1`, in a turn or for a row.

LLaMA-Factory 0.9.5 reads no such key and learns every answer whole. The recipe's `mask_history: true` leaves
out all answers of a conversation but the last (data/processor/supervised.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneyard.compiler.spec.column_names import snake_case
from tuneyard.compiler.spec.file import where_to_write
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.calls import WrongValueError
from tuneyard.core.datasets import filled
from tuneyard.core.errors import show_value

_LEARNED_AT_ONE = (
    "weight weights loss_weight loss_scale loss_mask loss compute_loss calculate_loss has_loss with_loss "
    "train training trained train_on train_on_turn train_weight train_detail to_train do_train is_train "
    "should_train trainable is_trainable learn learned learnable token_weight sample_weight"
)
_LEARNED_AT_ZERO = (
    "mask masked is_masked mask_loss masked_loss no_loss no_train not_train untrainable frozen skip "
    "skip_loss skip_train ignore ignored ignore_loss exclude excluded"
)
LEARNED_AT = dict.fromkeys(_LEARNED_AT_ONE.split(), 1) | dict.fromkeys(_LEARNED_AT_ZERO.split(), 0)
"""The value with which a turn is learned, by the name of the mark; any other value masks it or a part."""
_MEASURED = frozenset(("loss",))
"""Names that a measured value goes by, too: `loss: 0.342` says how well a model knew the turn."""
ROW_WEIGHTS = frozenset(("weight", "loss_weight", "sample_weight", "example_weight", "row_weight"))
_TRUE = "true t yes y on 是 对 正确"
_FALSE = "false f no n off 否 错 错误 不正确"
_TRUTH = ("true", "false", "0", "1", "0.0", "1.0")  # of the cells of a table
_WORDS = dict.fromkeys(_TRUE.split(), 1) | dict.fromkeys(_FALSE.split(), 0)


class MaskedAnswerError(WrongValueError):
    """An answer that would be learned although its turn is masked. `fix` is the edit that helps."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


class TurnKeys:
    """How a spec treats the keys of the turns in one source column."""

    def __init__(self, spec: Spec, source: str) -> None:
        self.where_to_ignore = where_to_write(spec.name)
        self._source = source
        self._ignored = frozenset(spec.ignore)
        inside = [name for column in spec.columns if column.name in spec.used for name in column.names]
        paths = [name for name in inside if name.startswith(f"{source}.")]
        self._mapped = {path.rpartition(".")[2] for path in paths}

    def is_ignored(self, key: str) -> bool:
        """True if `ignore` names a key: as `weight`, `messages.weight` or `messages`."""
        head = self._source.partition(".")[0]
        names = (key, self._source, f"{self._source}.{key}", head)
        return any(name.lower() in self._ignored for name in names)

    def is_mapped(self, key: str) -> bool:
        """True if a column of the spec reads a key, as `messages.1.weight`."""
        return key in self._mapped

    def is_left_out(self, key: str) -> bool:
        """True if a key changes nothing: the spec ignores it, or maps it to a column."""
        return self.is_mapped(key) or self.is_ignored(key)

    def masking(self, turn: Mapping[str, object]) -> dict[str, object]:
        """The marks that keep a turn, or a part of it, out of the loss."""
        marks = {key: value for key, value in turn.items() if masks(key, value)}
        return {key: value for key, value in marks.items() if not self.is_left_out(key)}


def masks(key: str, value: object) -> bool:
    """True if a key of a turn, by its name and value, keeps the turn or a part of it out of the loss."""
    learned_at = LEARNED_AT.get(snake_case(key))
    if learned_at is None or not filled([value]):
        return False
    if isinstance(value, str) and not value.strip():
        return False
    number = as_number(value)
    if snake_case(key) in _MEASURED and isinstance(number, float) and number not in (0, 1):
        return False
    return number != learned_at


def as_number(value: object) -> object:
    """The number that a text such as "0", "1.0" or "false" means. Other values stay."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if text in _WORDS:
        return _WORDS[text]
    try:
        return float(text)
    except ValueError:
        return value


def refuse_masked(
    marked: Mapping[int, Mapping[str, object]],
    answers: Sequence[int],
    keys: TurnKeys,
    noun: str = "turn",
    *,
    history_can_be_masked: bool,
) -> None:
    """Raise `MaskedAnswerError` if an answer that would be learned carries a mark.

    - `marked`: the masking marks by the number of their turn.
    - `answers`: the numbers of the turns that would be learned.
    - `history_can_be_masked`: the recipe's `mask_history` applies to the output.
    """
    masked = [number for number in answers if number in marked]
    if not masked:
        return
    first = masked[0]
    listed = ", ".join(f"{key}: {show_value(value)}" for key, value in marked[first].items())
    numbers = ", ".join(map(str, masked))
    turns = f"{noun} {numbers}" if len(masked) == 1 else f"{noun}s {numbers}"
    weights = []
    names: dict[str, None] = {}
    for number in masked:
        for key, value in marked[number].items():
            weights.append(as_number(value))
            names[key] = None
    in_part = any(weight not in (0, 1) for weight in weights)
    more_than_once = any(isinstance(weight, int | float) and weight > 1 for weight in weights)
    meaning = "as not to be learned"
    if in_part:
        meaning = "to be learned more than once" if more_than_once else "to be learned in part"
    message = f"{turns}: marked {meaning} ({listed}), and LLaMA-Factory would learn the whole answer"
    ignore = f"`ignore: [{', '.join(names)}]` {keys.where_to_ignore}"
    fix = _fix(masked, answers, ignore, history_can_be_masked=history_can_be_masked)
    if in_part:
        fix = f"an answer is learned whole or not at all: write 1 or 0, or leave the mark out by {ignore}"
    raise MaskedAnswerError(message, fix)


def _fix(masked: Sequence[int], answers: Sequence[int], ignore: str, *, history_can_be_masked: bool) -> str:
    """The edit of one row, or of the recipe, by which LLaMA-Factory follows the marks."""
    learned = [number for number in answers if number not in masked]
    if not learned:
        return f"leave the row out (`--on-error reject`), or the mark by {ignore}"
    last_masked, last_learned = masked[-1], learned[-1]
    if last_learned < masked[0]:
        return f"cut the row off after turn {last_learned}, or leave the mark out by {ignore}"
    if not history_can_be_masked:
        return f"leave the row out (`--on-error reject`), or the mark by {ignore}"
    if len(learned) == 1 and last_learned > last_masked:
        return f"`mask_history: true` in the recipe learns the last answer alone; with it, {ignore}"
    ends = f"turn {learned[0]}" if len(learned) == 1 else f"turns {', '.join(map(str, learned))}"
    return (
        f"split the row at each learned answer (new rows end at {ends}); with them, "
        f"`mask_history: true` in the recipe and {ignore}"
    )


@dataclass(slots=True)
class RowWeights:
    """The weights of all rows, in bounded memory: their range, and the first places."""

    rows: int = 0
    low: float = 0.0
    high: float = 0.0
    zeros: int = 0
    first_zero: str = ""
    first: str = ""
    first_other: str = ""
    numbers_only: bool = True
    first_weight: float = 0.0

    def note(self, value: object, place: str) -> None:
        """Add the weight of one row."""
        number = as_number(value)
        if not isinstance(number, int | float) or (isinstance(number, float) and math.isnan(number)):
            self.numbers_only = False
            return
        weight = float(min(max(number, -1), 2))  # beyond 0 to 1 the size is of no interest
        if weight == 0:
            self.zeros += 1
            self.first_zero = self.first_zero or place
        if self.rows and (weight != self.low or weight != self.high) and not self.first_other:
            self.first_other = place
        if not self.rows:
            self.low = self.high = self.first_weight = weight
            self.first = place
        self.low = min(self.low, weight)
        self.high = max(self.high, weight)
        self.rows += 1

    def join(self, other: "RowWeights") -> None:
        """Add the weights of further rows."""
        self.numbers_only = self.numbers_only and other.numbers_only
        if not other.rows:
            return
        if not self.rows:
            self.low, self.high = other.low, other.high
            self.first, self.first_weight = other.first, other.first_weight
            self.first_other = other.first_other
        elif not self.first_other:
            differs = other.first_weight != self.first_weight
            self.first_other = other.first if differs else other.first_other
        self.first_zero = self.first_zero or other.first_zero
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.rows += other.rows
        self.zeros += other.zeros

    def finding(self) -> tuple[str, str, int]:
        """The meaning of the weights, the first place and the rows; ("", "", 0) if they change nothing."""
        if not self.numbers_only:
            return "", "", 0
        if self.zeros:
            return "a weight of 0 (the row is not to be learned)", self.first_zero, self.zeros
        if self.first_other and self.low >= 0 and self.high <= 1:
            message = f"weights that differ, from {self.low:g} to {self.high:g},"
            return message, self.first_other, self.rows
        return "", "", 0


@dataclass(slots=True)
class CorrectnessMarks:
    """The values of a column such as `is_correct` over all rows: how many it marks as incorrect.

    `incorrect_at` is the mark of an incorrect answer: 0 for `is_correct`, 1 for `is_wrong`.

    A column called `correct` may have other contents: the answer itself, or a number of answers.
    It is one of marks only if each of its values is true, false, 0 or 1, and numbers only if the spec writes
    answers. `by_name` is true for names that leave no doubt.
    """

    by_name: bool
    has_answers: bool
    incorrect_at: int = 0
    rows: int = 0
    first: str = ""
    other_values: bool = False

    def note(self, value: object, place: str, *, typed: bool) -> None:
        """Add the value of one row. `typed` is false if the cells of the file are all text."""
        if not filled([value]):
            return
        number = as_number(value)
        if not self.by_name and not self._is_mark(value, number, typed=typed):
            self.other_values = True
        if number == self.incorrect_at:
            self.rows += 1
            self.first = self.first or place

    def join(self, other: "CorrectnessMarks") -> None:
        """Add the values of further rows."""
        self.rows += other.rows
        self.first = self.first or other.first
        self.other_values = self.other_values or other.other_values

    def _is_mark(self, value: object, number: object, *, typed: bool) -> bool:
        if isinstance(value, bool):
            return True
        if isinstance(value, str) and (typed or value.strip().lower() not in _TRUTH):
            return False
        return self.has_answers and number in (0, 1)

    def finding(self) -> tuple[str, str, int]:
        """The meaning of the marks, the first place and the rows; ("", "", 0) if they mark no answer."""
        if self.other_values or not self.rows:
            return "", "", 0
        return "answers marked as incorrect", self.first, self.rows
