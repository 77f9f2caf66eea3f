"""Preferences: two answers to one prompt (chosen, rejected), or one answer and whether it is wanted (KTO).

What LLaMA-Factory 0.9.5 reads as `ranking` (stages rm, dpo) and `kto_tag` (stage kto): data/converter.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from compiler.spec import Column
from compiler.turns import ASSISTANT, Clean, Turn, best_of, cleaned, read_answer, read_turns
from core.calls import WrongValueError
from core.errors import Problem, show_value

WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Reply(NamedTuple):
    """An answer, and the turns before it where it stood at the end of a whole conversation."""

    before: list[Turn]
    text: str


def reply_of(column: Column, clean: Clean, value: object) -> Reply:
    """Return the cleaned answer in a text or messages, of rated ones the best (`rejected`: the worst)."""
    if column.best:
        return Reply([], best_of(column, clean, value))
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, str):
        reply = Reply([], value)
    elif isinstance(value, list) and len(value) == 1:
        reply = Reply([], read_answer(value[0]))
    else:
        *before, last = read_turns(cast("list[dict[str, object]]", value))
        reply = Reply(cleaned(before, clean), last.text)
        if last.role != ASSISTANT:
            raise WrongValueError(f"the last turn is a {last.role}, which a pair would make plain text")
    if not reply.text.strip():
        raise WrongValueError(f"found {show_value(reply.text)}, expected an answer that is not blank")
    return reply._replace(text=str(clean([reply.text])[0]))


def wanted(column: Column, value: object) -> bool:
    """Return whether an answer is wanted: a truth value, or a number from the column's `at_least` on."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if column.at_least is not None:
        if not number:
            raise WrongValueError(f"found {show_value(value)}, expected a number: `at_least` is given")
        return float(cast("float", value)) >= column.at_least
    known = value if isinstance(value, bool) else WORDS.get(str(value).strip().lower())
    if known is None:
        what = f"found {show_value(value)}, expected true or false"
        raise WrongValueError(f"{what} (`at_least` at the column takes ratings)")
    return known


def checked_pair(row: Mapping[str, Any], pair: Sequence[str], turns: str | None) -> dict[str, object]:
    """Return the texts of a row's two answers; `WrongValueError` unless they differ and have one prompt."""
    chosen, rejected = (cast("Reply", row[name]) for name in pair)
    if chosen.text == rejected.text:
        raise WrongValueError(f"chosen and rejected are the same: {show_value(chosen.text)}")
    told = [[(turn.role, turn.text) for turn in reply.before] for reply in (chosen, rejected)]
    if told[0] != told[1]:
        what = "chosen and rejected do not answer the same prompt"
        raise WrongValueError(f"{what}: the turns before them differ")
    asked = [(turn.role, turn.text) for turn in row[turns]] if turns else []
    if told[0] and told[0] != asked:
        raise WrongValueError(
            f"the turns before chosen are not those of the prompt: found {show_value(told[0][-1][1])}; "
            "expected the same (`--column turns=chosen` takes the prompt from there)"
        )
    return {name: reply.text for name, reply in zip(pair, (chosen, rejected), strict=True)}


def one_class(counts: Counter[object], place: str) -> Problem:
    """Return the error of a KTO set in which every answer is wanted, or none is."""
    found = "wanted" if counts[True] else "unwanted"
    message = f"all {counts.total()} answers are {found}: KTO learns from both kinds"
    return Problem("E112", place, message, "", "`at_least` at the column says which ratings are wanted")
