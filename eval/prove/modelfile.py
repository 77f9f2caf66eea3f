"""Render a conversation by a Modelfile, as Ollama does.

Jinja renders the part of Go's text/template (pkg.go.dev/text/template) that exported Modelfiles use:
messages, their fields, choices by role, and `{{-` and `-}}`, which trim the white space next to them. Other
actions are refused by name.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from tuneyard.core.errors import ContentError, bounded, show_value
from tuneyard.core.files import require
from tuneyard.core.files.bounded_reading import read_text
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt import Messages
from tuneyard.core.llamafactory.prompt.templates import compile_template, render_template

INSTRUCTION = re.compile(r'^[ \t]*([A-Za-z]+)[ \t]+("""(?:.*?)"""|[^\n]*)', re.M | re.S)
ACTION = re.compile(
    r"""(?:(?:(?<!\s)\s+)?\{\{-\s|\{\{)\s*((?:"(?:[^"\\]|\\.)*"|[^"}])*?)\s*(?:\s-\}\}\s*|\}\})""", re.S
)
"""An action with the white space that it trims. The lookbehind reads long white space once."""
WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')
FIELDS = {".Role": "message['role']", ".Content": "message['content']"}


@dataclass(frozen=True, slots=True)
class ServedModelfile:
    """TEMPLATE and SYSTEM of a Modelfile."""

    template: Callable[[Messages], str]
    system: str | None

    def render(self, messages: Messages) -> str:
        """Write Ollama's prompt. SYSTEM comes first unless the conversation has a system message.

        Neighbouring messages of one role are joined.
        """
        if self.system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system}, *messages]
        joined: Messages = []
        for _role, neighbours in groupby(messages, itemgetter("role")):
            same_role = list(neighbours)
            content = same_role[0]["content"]
            if len(same_role) > 1:
                content = "\n\n".join(str(message["content"]) for message in same_role)
            joined.append({**same_role[-1], "content": content})
        return self.template(joined)


def read_modelfile(path: Path) -> ServedModelfile:
    """Read a Modelfile. `ContentError` if its TEMPLATE is missing or cannot be rendered here."""
    text = read_text(require(path, "Modelfile"), "replace")
    try:
        with bounded(_("reading it")):
            instructions = {word.upper(): _unquoted(value) for word, value in INSTRUCTION.findall(text)}
            if "TEMPLATE" not in instructions:
                raise ContentError(_("no TEMPLATE; tuneyard adapter export --to ollama writes one"))
            if "MESSAGE" in instructions:
                raise ContentError(_("MESSAGE puts turns before every conversation: training had none"))
            return ServedModelfile(compile_go_template(instructions["TEMPLATE"]), instructions.get("SYSTEM"))
    except ContentError as error:
        raise ContentError(_("{path}: {error}", path=path, error=error)) from error


def _unquoted(value: str) -> str:
    for quotes in ('"""', '"'):
        if len(value) >= 2 * len(quotes) and value.startswith(quotes) and value.rstrip().endswith(quotes):
            return value.rstrip()[len(quotes) : -len(quotes)]
    return value.strip()


def compile_go_template(template: str) -> Callable[[Messages], str]:
    """Turn a Go template into a function that renders conversations.

    `ContentError` names an action that is not supported here.
    """
    from jinja2 import TemplateError

    jinja = _Jinja()
    pieces = []
    for number, text in enumerate(ACTION.split(template)):
        write = jinja.action if number % 2 else jinja.constant  # they alternate
        pieces.append(write(text))
    whole = "".join(pieces)
    try:
        compile_template(whole, trims=False)
    except TemplateError as error:
        raise ContentError(_("the TEMPLATE cannot be rendered here: {error}", error=error)) from error
    return lambda messages: render_template(whole, {"messages": messages, "texts": jinja.texts}, trims=False)


class _Jinja:
    """Translate a Go template piece by piece into Jinja.

    `texts` are its constants, `blocks` the kinds of the blocks that are open. Jinja refuses what does not
    nest.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []  # passed to Jinja as values, so that it never parses them
        self.blocks: list[str] = []

    def constant(self, text: str) -> str:
        if "{{" in text:  # an action that does not end
            raise _unknown(text)
        return f"{{{{ {self._held(text)} }}}}"

    def action(self, body: str) -> str:
        test = body.removeprefix("else ").removeprefix("if ")
        if body == "end" and self.blocks:
            return f"{{% end{self.blocks.pop()} %}}"
        if body == "else":
            return "{% else %}"
        if body.startswith("else if "):
            return f"{{% elif {self._condition(test)} %}}"
        if body == "range .Messages" and "for" not in self.blocks:
            self.blocks.append("for")
            return "{% for message in messages %}"
        if body.startswith("if "):
            self.blocks.append("if")
            return f"{{% if {self._condition(test)} %}}"
        return f"{{{{ {self._value(body)} }}}}"

    def _condition(self, test: str) -> str:
        words = WORD.findall(test)
        if len(words) != 1 and not (len(words) == 3 and words[0] == "eq"):
            raise _unknown(f"if {test}")
        return " == ".join(map(self._value, words[-2:]))

    def _value(self, body: str) -> str:
        if body in FIELDS and "for" in self.blocks:
            return FIELDS[body]
        try:
            return self._held(str(json.loads(body if body.startswith('"') else "")))
        except ValueError as error:
            raise _unknown(body) from error

    def _held(self, text: str) -> str:
        self.texts.append(text)
        return f"texts[{len(self.texts) - 1}]"


def _unknown(body: str) -> ContentError:
    return ContentError(
        _("the TEMPLATE contains {text}, which Tuneyard cannot render", text=show_value(body))
    )
