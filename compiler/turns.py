"""Nested values: the turns of a conversation (ShareGPT, OpenAI messages), the best of several answers."""

import json
from typing import NamedTuple

from compiler.spec import Column
from core.errors import show_value

USER, ASSISTANT, SYSTEM, CALL, OBSERVATION = "user", "assistant", "system", "call", "observation"
ROLES = {
    "human": USER,
    "user": USER,
    "gpt": ASSISTANT,
    "assistant": ASSISTANT,
    "system": SYSTEM,
    "function_call": CALL,
    "tool_call": CALL,
    "observation": OBSERVATION,
    "tool": OBSERVATION,
    "function": OBSERVATION,
}
SHAREGPT = {
    USER: "human",
    ASSISTANT: "gpt",
    SYSTEM: "system",
    CALL: "function_call",
    OBSERVATION: "observation",
}
OPENAI = {
    USER: "user",
    ASSISTANT: "assistant",
    SYSTEM: "system",
    CALL: "function_call",
    OBSERVATION: "observation",
}


class Turn(NamedTuple):
    """One turn: who speaks (user, assistant, system, call, observation), and the text."""

    role: str
    text: str


class WrongValueError(Exception):
    """A nested value that cannot be used: the message says what was found and expected."""


def read_turns(value: list[dict[str, object]]) -> list[Turn]:
    """Return turns in order; `WrongValueError` names the turn that is wrong.

    After an optional system turn, user (or observation) and assistant (or call) must alternate,
    and the last turn is the assistant's: what LLaMA-Factory's converters ask for.
    """
    turns = [_turn(number, item) for number, item in enumerate(value, 1)]
    talk = turns[1:] if turns[0].role == SYSTEM else turns
    skipped = len(turns) - len(talk)
    if not talk:
        raise WrongValueError("found a system turn alone, expected a conversation")
    for number, turn in enumerate(talk):
        due = (USER, OBSERVATION) if number % 2 == 0 else (ASSISTANT, CALL)
        if turn.role not in due:
            raise WrongValueError(
                f"turn {number + skipped + 1}: found {turn.role}, expected {due[0]} (turns alternate)"
            )
    if len(talk) % 2:
        raise WrongValueError(
            f"the last turn is the {talk[-1].role}'s: nothing to learn; expected an assistant's"
        )
    return turns


def _turn(number: int, item: dict[str, object]) -> Turn:
    name, text = ("from", "value") if "from" in item else ("role", "content")
    role = ROLES.get(str(item.get(name)).lower())
    if role is None:
        known = ", ".join(ROLES)
        raise WrongValueError(
            f"turn {number}: found the role {show_value(item.get(name))}, expected one of {known}"
        )
    calls = item.get("tool_calls")
    if calls and role == ASSISTANT:
        return Turn(CALL, _calls(number, calls))
    content = item.get(text)
    if not isinstance(content, str):
        raise WrongValueError(f"turn {number}: found {show_value(content)}, expected text in {text!r}")
    return Turn(role, content)


def _calls(number: int, calls: object) -> str:
    """Return OpenAI tool calls as the JSON text that LLaMA-Factory's function turns hold."""
    try:
        found = [call["function"] for call in calls]  # type: ignore[attr-defined]  # the except tells what else it was
        plain = [
            {
                "name": f["name"],
                "arguments": json.loads(f["arguments"])
                if isinstance(f["arguments"], str)
                else f["arguments"],
            }
            for f in found
        ]
        text = json.dumps(plain if len(plain) > 1 else plain[0], ensure_ascii=False, allow_nan=False)
        text.encode()  # halves of characters are no text
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise WrongValueError(f"turn {number}: tool_calls are not OpenAI's: {error!r}") from error
    return text


def best_of(column: Column, value: list[dict[str, object]]) -> str:
    """Return the text of the object with the highest number; of equals the first."""
    best: tuple[float, str] | None = None
    for number, item in enumerate(value, 1):
        score, text = item.get(column.best_by), item.get(column.best_take)
        if isinstance(score, bool) or not isinstance(score, int | float) or not isinstance(text, str):
            expected = f"a number {column.best_by!r} and a text {column.best_take!r}"
            raise WrongValueError(f"item {number}: found {show_value(item)}, expected {expected}")
        if best is None or score > best[0]:
            best = (score, text)
    if best is None or not best[1].strip():
        raise WrongValueError("the best of them has no text")
    return best[1]
