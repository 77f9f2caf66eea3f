"""Glaive's function calls: one text of `USER: …`, `ASSISTANT: …` and `FUNCTION RESPONSE: …`."""

import re

from tuneyard.compiler.rows import Fields, without

CHAT = "chat"
"""The key of the text."""
ROLES = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "observation"}
CALL = "<functioncall>"
_SPEAKER = f"({'|'.join(ROLES)}): "
_TURN = re.compile(rf"{_SPEAKER}\s*(.*?)\s*(?={_SPEAKER}|$)", re.DOTALL)
_ARGUMENTS = re.compile(r"'(\{.*\})'", re.DOTALL)
"""The arguments of a call, in single quotes."""
_BETWEEN = re.compile(r"\}\s*\{")
"""What parts the declarations of two functions in the system text."""


def with_turns(row: Fields) -> Fields:
    """Put `messages` in place of a row's text, and `tools` in place of the functions in its system text."""
    chat, system = row.get(CHAT), row.get("system")
    if not isinstance(chat, str) or not isinstance(system, str) or not chat.startswith("USER: "):
        return row
    messages = []
    for speaker, text, _ in _TURN.findall(chat.replace("<|endoftext|>", "")):
        turn = {"role": ROLES[speaker], "content": text}
        if text.startswith(CALL):
            turn = {"role": "function_call", "content": _ARGUMENTS.sub(r"\1", text.removeprefix(CALL))}
        messages.append(turn)
    about, brace, tools = system.removeprefix("SYSTEM: ").strip().partition("{")
    if brace:
        tools = f"[{{{_BETWEEN.sub('},{', tools)}]"
    return {**without(row, CHAT), "messages": messages, "system": about.strip(), "tools": tools}
