"""Convert the turns of other tools into OpenAI's form: role, content, tool_calls.

It knows contents in parts (texts, reasoning, images), dialogues in one text and conversations as JSON text. A
part of another type stays, and reading its turn refuses it. Unused keys of a part move to its turn, which
counts them or checks them as marks.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tuneyard.compiler.check.marks import masks
from tuneyard.core.records.calls import read_strict

USER, ASSISTANT, SYSTEM, CALL, OBSERVATION = "user", "assistant", "system", "call", "observation"
ROLES = {
    "human": USER,
    "user": USER,
    "gpt": ASSISTANT,
    "assistant": ASSISTANT,
    "model": ASSISTANT,
    "bot": ASSISTANT,
    "bard": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bing": ASSISTANT,
    "system": SYSTEM,
    "developer": SYSTEM,
    "function_call": CALL,
    "tool_call": CALL,
    "observation": OBSERVATION,
    "tool": OBSERVATION,
    "function": OBSERVATION,
}
"""Who speaks, by the name of a role in lower case."""
IMAGES = "paths of images in the content"
"""The key of a turn under which its images are passed on."""
IMAGE_PLACEHOLDER = "<image>"
EXCHANGES = (
    ("input", "output"),
    ("human", "assistant"),
    ("user", "assistant"),
    ("question", "answer"),
    ("prompt", "response"),
)
"""The keys of a question and its answer in one object of a conversation (Capybara, MOSS)."""
_SPEAKERS = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_TEXT_PARTS = dict.fromkeys(("text", "input_text", "output_text"), "text")
_THOUGHTS = ("thinking", "reasoning")
_TEXT_PARTS |= dict.fromkeys(_THOUGHTS, "thinking")
"""The key of the text in a part by the part's type, unless it has a `value` (files of LLaMA-Factory's v1)."""
_IMAGE_PARTS = ("image_url", "image", "input_image")


def role_and_content(turn: Mapping[str, object]) -> tuple[str, str]:
    """The keys of a turn's speaker and of its text."""
    if "from" in turn:
        return "from", "value"
    return "role", "content"


def common_turns(value: object, roles: Mapping[str, str], *, whole: bool = True) -> object:
    """Convert a conversation into OpenAI's form. Any other value stays, and its check refuses it.

    `roles` maps further names of roles to those of `ROLES`. `whole`: a text that is a JSON list of turns is a
    conversation, too (otherwise only if each of its turns has a known role: an answer may be JSON itself).
    """
    if isinstance(value, str):
        value = _from_text(value, whole=whole)
    turns = [value] if isinstance(value, dict) else value
    if not isinstance(turns, list) or all(_is_common(turn, roles) for turn in turns):
        return value
    changed = [each for turn in turns for each in _common(turn, roles)]
    if isinstance(value, dict) and len(changed) == 1:
        return changed[0]
    return changed


def is_transcript(value: object) -> bool:
    """True if a value is a dialogue in one text: `Human: …`, a blank line, `Assistant: …`."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def _from_text(text: str, *, whole: bool) -> object:
    """The turns in a text, or the text itself."""
    if is_transcript(text):
        _, *pieces = _SPEAKERS.split(text.lstrip())
        names = {"Human": "human", "Assistant": "gpt"}
        speakers = zip(pieces[::2], pieces[1::2], strict=True)
        return [{"from": names[speaker], "value": words} for speaker, words in speakers]
    if not text.lstrip().startswith("["):
        return text
    try:
        turns = read_strict(text)
    except ValueError:
        return text
    if not turns or not all(isinstance(turn, dict) for turn in turns):
        return text
    has_roles = all(str(turn.get(role_and_content(turn)[0])).lower() in ROLES for turn in turns)
    return turns if whole or has_roles else text


def _is_common(turn: object, roles: Mapping[str, str]) -> bool:
    """True if a turn needs no change."""
    if not isinstance(turn, dict):
        return True
    if "parts" in turn:
        return False
    name, content = role_and_content(turn)
    if name not in turn and exchange_keys(turn):
        return False
    return not isinstance(turn.get(content), list) and not (roles and turn.get(name) in roles)


def exchange_keys(item: Mapping[str, object]) -> tuple[str, str] | None:
    """The keys of the question and of the answer in an object that has both as texts, None for any other."""
    for question, answer in EXCHANGES:
        if isinstance(item.get(question), str) and isinstance(item.get(answer), str):
            return question, answer
    return None


def _common(turn: Any, roles: Mapping[str, str]) -> list[Any]:
    """One turn in OpenAI's form, or the two turns of an exchange."""
    if not isinstance(turn, dict):
        return [turn]
    name, content = role_and_content(turn)
    exchange = exchange_keys(turn) if name not in turn else None
    if exchange:
        question, answer = exchange
        rest = {key: value for key, value in turn.items() if key not in exchange}
        reply = {"role": ASSISTANT, "content": turn[answer], **rest}
        return [{"role": USER, "content": turn[question]}, reply]
    if turn.get(name) in roles:
        turn = {**turn, name: roles[str(turn[name])]}
    parts = turn.get(content, turn.get("parts"))
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        return [turn]
    rest = {key: value for key, value in turn.items() if key not in (content, "parts")}
    return [_joined(parts, rest, content) or {**rest, content: parts}]


def _joined(
    parts: Sequence[Mapping[str, Any]], rest: Mapping[str, object], content: str
) -> dict[str, object] | None:
    """A turn with the texts, the reasoning and the images of its parts; None if one of them is not known.

    `rest` are the turn's other keys. Those of a part join them, first of all its marks.
    """
    texts: list[str] = []
    thoughts: list[str] = []
    images: list[str] = []
    others: dict[str, object] = {}
    for part in parts:
        kind = str(part.get("type", "text"))
        text: object
        if kind in _IMAGE_PARTS:
            text, key = _image(part)
        else:
            key = "value" if "value" in part else _TEXT_PARTS.get(kind, "")
            text = part.get(key)
        if kind not in (*_IMAGE_PARTS, *_TEXT_PARTS) or not isinstance(text, str) or not key:
            return None
        if kind in _IMAGE_PARTS:
            images.append(text)
            text = IMAGE_PLACEHOLDER
        (thoughts if kind in _THOUGHTS else texts).append(text)
        for other in part.keys() - {key, "type"}:
            if other not in others or masks(other, part[other]):
                others[other] = part[other]
    turn = {**others, **rest, content: "".join(texts)}
    turn |= {key: value for key, value in others.items() if masks(key, value)}
    if thoughts:
        turn["thinking"] = "\n".join(thoughts)
    if images:
        turn[IMAGES] = images
    return turn


def _image(part: Mapping[str, Any]) -> tuple[str, str]:
    """The path of an image in a part, and its key; both are "" if there is none."""
    for key in ("image_url", "image", "path", "url", "value"):
        place = part.get(key)
        if isinstance(place, dict) and place.keys() <= {"url", "detail"}:
            place = place.get("url")
        if isinstance(place, str) and place:
            return place.removeprefix("file://"), key
    return "", ""
