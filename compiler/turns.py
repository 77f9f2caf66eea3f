"""Nested values: the turns of a conversation (ShareGPT, OpenAI messages), the best of several answers."""

import json
from collections.abc import Callable, Iterable
from typing import NamedTuple

from compiler.rows import filled
from compiler.spec import Column, Output
from compiler.unused import meaning
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
Clean = Callable[[list[object]], list[object]]


class Turn(NamedTuple):
    """One turn: who speaks (user, assistant, system, call, observation), and the text."""

    role: str
    text: str


def keeps_tools(outputs: Iterable[Output]) -> bool:
    """Whether every output can hold calls of tools and what they return."""
    both = {CALL, OBSERVATION}
    return all(output.format in ("sharegpt", "messages") or both <= output.roles.keys() for output in outputs)


class WrongValueError(Exception):
    """A nested value that cannot be used: the message says what was found and expected."""


def read_turns(value: list[dict[str, object]], tools: bool = True) -> list[Turn]:
    """Return turns in order; `WrongValueError` names the turn that is wrong.

    `tools` says whether calls of tools and what they return can be written.
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
        if turn.role in (CALL, OBSERVATION) and not tools:
            raise WrongValueError(
                f"turn {number + skipped + 1}: found the {turn.role} of a tool, which this output would make "
                "plain text; write sharegpt or messages"
            )
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
    calls = item.get("tool_calls") if role == ASSISTANT else None
    if len(item) > 2:
        _refuse_loss(number, item, (name, text), bool(calls))
    if calls:
        return Turn(CALL, _calls(number, calls))
    content = item.get(text)
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        kinds = ", ".join(dict.fromkeys(str(part.get("type")) for part in content))
        raise WrongValueError(f"turn {number}: found parts ({kinds}), expected text in {text!r}")
    if not isinstance(content, str):
        raise WrongValueError(f"turn {number}: found {show_value(content)}, expected text in {text!r}")
    return Turn(role, content)


def _refuse_loss(number: int, item: dict[str, object], own: tuple[str, str], called: bool) -> None:
    """Refuse a turn with more than its role and text (`own`) in it that changes what it means."""
    taken = (*own, "tool_calls") if called else own
    lost = [key for key in item if key not in taken and _means(key, item[key], own[0] == "role")]
    if called and str(item.get(own[1]) or "").strip():
        lost.append(own[1])
    if lost:
        beside = "tool_calls" if called else own[1]
        what = f"{', '.join(lost)} beside {beside}"
        raise WrongValueError(f"turn {number}: {what} would be lost; put it into the text or leave it out")


def _means(key: str, value: object, openai: bool) -> bool:
    """Whether a key of a turn changes what is learned: OpenAI's `weight: 0` keeps an answer from it."""
    if openai and key == "weight":
        return value is not None and value != 1
    return bool((meaning(key) or key == "refusal") and filled([value]))


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


def cleaned(talk: list[Turn], clean: Clean) -> list[Turn]:
    """Return turns with their texts cleaned; what is said to tools and by them stays."""
    said = (USER, ASSISTANT, SYSTEM)
    return [Turn(t.role, str(clean([t.text])[0])) if t.role in said else t for t in talk]


def best_of(column: Column, clean: Clean, value: list[dict[str, object]]) -> str:
    """Return the text of the object with the highest number, cleaned; of equals the first."""
    best: tuple[float, str] | None = None
    for number, item in enumerate(value, 1):
        score, text = item.get(column.best_by), item.get(column.best_take)
        if isinstance(score, bool) or not isinstance(score, int | float) or not isinstance(text, str):
            expected = f"a number {column.best_by!r} and a text {column.best_take!r}"
            raise WrongValueError(f"item {number}: found {show_value(item)}, expected {expected}")
        if best is None or score > best[0]:
            best = (score, text)
    text = str(clean([best[1]])[0]) if best else ""
    if not text.strip():
        raise WrongValueError("the best of them has no text")
    return text
