"""Glaive's function calls: one text of `USER: …`, `ASSISTANT: …` and `FUNCTION RESPONSE: …`."""

import re

from tuneyard.compiler.rows import Fields

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
    """Put `messages` in place of a row's text, and `tools` in place of a system text that declares them."""
    chat = row.get(CHAT)
    if not isinstance(chat, str) or not chat.startswith("USER: "):
        return row
    messages = []
    for speaker, text, _ in _TURN.findall(chat.replace("<|endoftext|>", "")):
        turn = {"role": ROLES[speaker], "content": text}
        if text.startswith(CALL):
            turn = {"role": "function_call", "content": _ARGUMENTS.sub(r"\1", text.removeprefix(CALL))}
        messages.append(turn)
    others = {key: value for key, value in row.items() if key != CHAT}
    system = str(row.get("system")).removeprefix("SYSTEM: ").strip()
    _, brace, tools = system.partition("{")
    if brace:
        return {**others, "messages": messages, "system": "", "tools": f"[{{{_BETWEEN.sub('},{', tools)}]"}
    return {**others, "messages": messages, "system": system}
