"""What Ollama makes of a Modelfile: the text that its model reads for a conversation."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import ContentError
from core.files import require
from core.patterns import bounded
from core.prompt import Message
from eval.backends.gotemplate import compile_template

INSTRUCTION = re.compile(r'^[ \t]*([A-Za-z]+)[ \t]+("""(?:.*?)"""|[^\n]*)', re.M | re.S)


@dataclass(frozen=True, slots=True)
class ServedModelfile:
    """TEMPLATE and SYSTEM of a Modelfile."""

    template: Callable[[list[Message]], str]
    system: str | None

    def render(self, messages: list[Message]) -> str:
        """Return the prompt of a conversation.

        As Ollama does it: SYSTEM stands before a conversation that has no system message of its own, and
        neighbouring messages of one role become one.
        """
        if self.system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system}, *messages]
        joined: list[Message] = []
        for message in messages:
            if joined and joined[-1]["role"] == message["role"]:
                both = f"{joined[-1]['content']}\n\n{message['content']}"
                joined[-1] = {**message, "content": both}
            else:
                joined.append(message)
        return self.template(joined)


def read_modelfile(path: Path) -> ServedModelfile:
    """Read a Modelfile; `ContentError` where it has no TEMPLATE, or one that cannot be rendered here."""
    text = require(path, "Modelfile").read_text(encoding="utf-8", errors="replace")
    try:
        with bounded("reading it"):
            found = {word.upper(): _unquoted(value) for word, value in INSTRUCTION.findall(text)}
            if "TEMPLATE" not in found:
                raise ContentError("no TEMPLATE; python -m adapters export --to ollama writes one")
            if "MESSAGE" in found:
                raise ContentError("MESSAGE puts turns before every conversation: training had none")
            return ServedModelfile(compile_template(found["TEMPLATE"]), found.get("SYSTEM"))
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from error


def _unquoted(value: str) -> str:
    for quotes in ('"""', '"'):
        if len(value) >= 2 * len(quotes) and value.startswith(quotes) and value.rstrip().endswith(quotes):
            return value.rstrip()[len(quotes) : -len(quotes)]
    return value.strip()
