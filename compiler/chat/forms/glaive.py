"""Glaive's function calls: one text of `USER: …`, `ASSISTANT: …` and `FUNCTION RESPONSE: …`."""

import re

from tuneyard.compiler.chat.forms.hermes import TURNS, without_tags
from tuneyard.compiler.rows import Fields, without
from tuneyard.compiler.spec.export_forms import ExportForm
from tuneyard.core.files import JsonObject

CHAT = "chat"
"""The key of the text."""
ROLES = {"USER": "human", "ASSISTANT": "gpt", "FUNCTION RESPONSE": "observation"}
_SPEAKER = f"({'|'.join(ROLES)}): "
_TURN = re.compile(rf"{_SPEAKER}\s*+(.*?)(?:(?<!\s)\s+)?(?={_SPEAKER}|$)", re.DOTALL)
"""A message. The lookbehind reads long white space once."""
_BETWEEN = re.compile(r"\}\s*\{")  # two functions in the system text


def has_form(row: Fields) -> bool:
    """True for a text that begins with `USER: `, next to a system text."""
    chat = row.get(CHAT)
    return (
        isinstance(chat, str)
        and chat.startswith("USER: ")
        and isinstance(row.get("system"), str)
        and TURNS not in row
    )


def with_messages(row: JsonObject) -> Fields:
    """Put messages in place of a row's text, and `tools` in place of the functions in its system text."""
    if not has_form(row):
        return row
    chat, system = row[CHAT], row["system"]
    messages = []
    for speaker, text, _unused in _TURN.findall(chat.replace("<|endoftext|>", "")):
        messages.append(without_tags({"from": ROLES[speaker], "value": text}))
    about, brace, tools = system.removeprefix("SYSTEM: ").strip().partition("{")
    if brace:
        tools = f"[{{{_BETWEEN.sub('},{', tools)}]"
    return {**without(row, CHAT), TURNS: messages, "system": about.strip(), "tools": tools}


GLAIVE = ExportForm("glaive", has_form, with_messages)
