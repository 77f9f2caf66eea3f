"""Two answers in columns of their own, and a column that names the better one, or a score of each."""

import re
from collections.abc import Iterable, Mapping
from itertools import chain
from math import isfinite

from tuneyard.compiler.chat.message_forms import common_messages
from tuneyard.compiler.rows import Fields, without
from tuneyard.compiler.rows.problem_codes import MISSING_FIELD, NO_PREFERENCE
from tuneyard.compiler.rows.problems import some_of
from tuneyard.compiler.spec.export_forms import ExportForm
from tuneyard.core.datasets.answer_flags import as_number
from tuneyard.core.datasets.column_meanings import snake_case
from tuneyard.core.errors import show_value
from tuneyard.core.language.message import _, marked
from tuneyard.core.records import PAIR
from tuneyard.core.records.calls import WrongValueError, read_strict

ANSWERS = {
    "response_0": "response_1",  # SafeRLHF
    "response_1": "response_2",
    "response_a": "response_b",
    "answer_a": "answer_b",
    "answer_0": "answer_1",  # WebGPT
    "answer_1": "answer_2",
    "answer1": "answer2",  # Label Studio's pairwise choice
    "response1": "response2",
    "output1": "output2",
    "conversation_a": "conversation_b",  # Chatbot Arena
    "output_1": "output_2",  # AlpacaFarm
    "human_ref_A": "human_ref_B",  # SHP
}
"""By the column of one answer: that of the other."""
SELECTED = "selected"
BETTER = ("better_response_id", "winner", "preference", "preferred", "overall_preference", SELECTED)
"""Columns whose value is the name of the better answer's column, or its end: `A`, `model_a`, `Response A`."""
ONE_HOT = "winner_"
"""The beginning of columns of which one is 1: `winner_model_a`, `winner_tie`."""
TIES = (marked("tie"), "winner_tie", "both", "neither", "equal", "draw", "none")
"""How a verdict begins if neither answer is better."""
FIRST, SECOND, TIE = marked("first"), "second", marked("tie")
_SIDES = {"left": FIRST, "right": SECOND, "左": FIRST, "右": SECOND, FIRST: FIRST, SECOND: SECOND}
"""Verdicts of answers that stood side by side, or one after the other."""
"""The meanings of a verdict, as the `verdict` of a source lists them."""
_WORDS = {
    "answer",
    "assistant",
    marked("better"),
    "conversation",
    "human",
    "model",
    "option",
    "output",
    "ref",
}
_WORDS |= {"response", "winner"}
"""Words before the letter or the number of an answer in a verdict."""
_NAME = re.compile(r"\w([\w -]*\w)?")
_SIGNED = re.compile(r"\s*[-+\u2212]")


class TieError(Exception):
    """Neither answer of a row is better."""


class PairError(WrongValueError):
    """Two answers that make no pair, with the code of the problem, its column and the edit that helps.

    `is_in_doubt`: the verdicts of other rows may mean something else, too.
    """

    code = MISSING_FIELD
    fix = ""
    is_in_doubt = False

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


class MissingError(PairError):
    """A row lacks one of the two answers, or a verdict."""

    def __init__(self, column: str, row: Fields) -> None:
        super().__init__(column, _("missing; the row has {keys}", keys=some_of(tuple(row), column)))


class VerdictError(PairError):
    """A verdict names neither answer. After a number the other numbers are in doubt."""

    code = NO_PREFERENCE

    def __init__(self, column: str, value: object, names: tuple[str, str]) -> None:
        first, second = names
        super().__init__(
            column,
            _(
                "found {value}, expected {first} or {second}, their last letter or number, or tie",
                value=show_value(value),
                first=first,
                second=second,
            ),
        )
        self.is_in_doubt = isinstance(_key(value), float)
        verdict = "{first: [A], second: [B], tie: [C]}"
        if self.is_in_doubt:
            verdict = "{first: [-3, -2, -1], second: [1, 2, 3], tie: [0]}"
        self.fix = _(
            "say in the spec what each verdict means, as in `source: {{form: preference, "
            "verdict: {verdict}}}`; first is {first}, second is {second}",
            verdict=verdict,
            first=first,
            second=second,
        )


def has_form(row: Fields) -> bool:
    """True for a row with two answers, and with a verdict or a score of each."""
    row = _with_selection(row)
    names = _answers_in(row)
    return names is not None and bool(_verdict_columns(row) or _scores(row, names))


def with_chosen(row: Fields, verdict: Mapping[str, object] | None = None) -> Fields:
    """Put `chosen` and `rejected` in place of two answers. Rows that have both already stay.

    `verdict` lists the values that mean the first answer, the second one and a tie. Raises `TieError` if
    neither answer is better, `VerdictError` if the verdict is another one, and `MissingError` for a row with
    one answer, or without a verdict.
    """
    row = _with_selection(row)
    names = _answers_in(row)
    if names is None:
        missing = _missing_answer(row)
        if missing:
            raise MissingError(missing, row)
        return row
    columns = _verdict_columns(row)
    if columns:
        better = _better_by_verdict(row, columns, names, verdict or {})
    elif _scores(row, names):
        better = _better_by_score(row, names)
    else:
        raise MissingError(BETTER[1], row)
    if better == TIE:
        raise TieError
    row = _with_dialogues(row, *names)
    others = without(row, *names, *columns)
    first, second = names if better == FIRST else names[::-1]
    return {"chosen": row[first], "rejected": row[second], **others}


def verdicts_of(row: Fields) -> Mapping[object, object]:
    """The verdict of a row in one column, by its key: numbers have one in all spellings."""
    return {_key(row[column]): row[column] for column in _verdict_columns(row) if column in BETTER}


def meaning_of_verdicts(verdicts: Iterable[object]) -> Mapping[str, list[object]]:
    """What the verdicts of a file mean if all are numbers and some have a sign: below 0 the first is better.

    {} for verdicts that name the answers. HelpSteer3 counts so, from -3 to 3.
    """
    keys = list(verdicts)
    numbers = sorted(key for key in keys if isinstance(key, float))
    if len(numbers) < len(keys) or not numbers or numbers[0] >= 0 or numbers[-1] <= 0:
        return {}
    meanings: dict[str, list[object]] = {FIRST: [], SECOND: [], TIE: []}
    for number in numbers:
        name = SECOND
        if number <= 0:
            name = FIRST if number < 0 else TIE
        meanings[name].append(int(number) if number.is_integer() else number)
    return {name: listed for name, listed in meanings.items() if listed}


def _answers_in(row: Fields) -> tuple[str, str] | None:
    """The columns of the two answers, None if a row has no two, or a chosen one already."""
    if not row.keys().isdisjoint(PAIR):
        return None
    for first, second in ANSWERS.items():
        if first in row and second in row:
            return first, second
    return None


def _with_selection(row: Fields) -> Fields:
    """Put `selected` in place of Label Studio's `{"selected": "left"}` under the name of its control."""
    for name, value in row.items():
        if isinstance(value, dict) and value.keys() == {SELECTED} and _answers_in(row):
            return {**without(row, name), SELECTED: value[SELECTED]}
    return row


def _missing_answer(row: Fields) -> str:
    """The column of the answer that a row with another one lacks, or with a verdict; "" for other rows."""
    if not row.keys().isdisjoint(PAIR):
        return ""
    for first, second in ANSWERS.items():
        if first in row:
            return second
        if second in row:
            return first
    return PAIR[0] if _verdict_columns(row) else ""


def _verdict_columns(row: Fields) -> list[str]:
    """The column of the verdict: the first that the row fills. Otherwise the columns of which one is 1."""
    columns = [name for name in BETTER if name in row]
    filled_columns = [name for name in columns if row[name] not in (None, "")]
    one_hot = [name for name in row if name.startswith(ONE_HOT)]
    return filled_columns[:1] or one_hot or columns[:1]


def _better_by_verdict(
    row: Fields, columns: list[str], names: tuple[str, str], verdict: Mapping[str, object]
) -> str:
    """The meaning of a row's verdict; `VerdictError` if it has none."""
    column = columns[0]
    value: object = row[column]
    if column not in BETTER:
        ones = [name for name in columns if as_number(row[name]) == 1]
        value = ones[0] if len(ones) == 1 else None
    for meaning, listed in verdict.items():
        if isinstance(listed, list | tuple) and _key(value) in map(_key, listed):
            return meaning
    if verdict:
        raise VerdictError(column, value, names)
    side = _SIDES.get(str(_key(value)))
    if side:
        return side
    for meaning, name in zip((FIRST, SECOND), names, strict=True):
        if _names_answer(value, name):
            return meaning
    if isinstance(value, str) and snake_case(value).startswith(TIES):
        return TIE
    raise VerdictError(column, value, names)


def _names_answer(value: object, name: str) -> bool:
    """True if a verdict is the name of an answer, or its last letter or number: `model_a`, `Response A`."""
    end = name.rpartition("_")[2].lower()
    key = _key(value)
    if isinstance(value, str) and _SIGNED.match(value):
        return False
    if isinstance(key, float):
        return key.is_integer() and str(int(key)) == end
    if not isinstance(value, str) or not _NAME.fullmatch(value.strip()):
        return False
    *words, last = re.split("[_ -]+", snake_case(value))
    return last == end and _WORDS.issuperset(words)


def _key(value: object) -> object:
    """A verdict as it is compared: numbers and truth values also in the spelling of tables."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, str):
        return str(value)
    text = value.strip().lower().replace("\u2212", "-")
    try:
        return float(text)
    except ValueError:
        return text


def _with_dialogues(row: Fields, *answers: str) -> Fields:
    """Join the questions in `prompt` with each list of their answers, if all are lists in JSON (LMSYS)."""
    try:
        prompt, *replies = [read_strict(str(row.get(name))) for name in ("prompt", *answers)]
        dialogues = [common_messages([*chain(*zip(prompt, texts, strict=True))], {}) for texts in replies]
    except (ValueError, TypeError):
        return row
    return {**without(row, "prompt"), **dict(zip(answers, dialogues, strict=True))}


def _scores(row: Fields, names: tuple[str, str]) -> list[float]:
    """The scores of both answers, [] if one has none."""
    scores = []
    for name in names:
        score = as_number(row.get(f"score_{name[-1]}"))
        if score is None or not isfinite(score):
            return []
        scores.append(score)
    return scores


def _better_by_score(row: Fields, names: tuple[str, str]) -> str:
    """The meaning of the scores of a row."""
    first, second = _scores(row, names)
    if first == second:
        return TIE
    return FIRST if first > second else SECOND


PREFERENCE = ExportForm("preference", has_form, with_chosen)
