"""What Ollama makes of a Modelfile: the text that its model reads for a conversation.

Of Go's text/template (pkg.go.dev/text/template) the part that exported Modelfiles use is rendered, by Jinja:
messages, their fields, choices by role, and `{{-` and `-}}`, which trim the space beside them. Whatever else
a template does is refused by name.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import require
from tuneyard.core.prompt import Message
from tuneyard.core.time_limit import bounded

INSTRUCTION = re.compile(r'^[ \t]*([A-Za-z]+)[ \t]+("""(?:.*?)"""|[^\n]*)', re.M | re.S)
ACTION = re.compile(r'\{\{(-\s)?\s*((?:"(?:[^"\\]|\\.)*"|[^"}])*?)\s*(\s-)?\}\}', re.S)
WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')
FIELDS = {".Role": "message['role']", ".Content": "message['content']"}


@dataclass(frozen=True, slots=True)
class ServedModelfile:
    """TEMPLATE and SYSTEM of a Modelfile."""

    template: Callable[[list[Message]], str]
    system: str | None

    def render(self, messages: list[Message]) -> str:
        """Return Ollama's prompt: SYSTEM where no message is a system's, neighbours of one role joined."""
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
                raise ContentError("no TEMPLATE; tuneyard adapter export --to ollama writes one")
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


def compile_template(template: str) -> Callable[[list[Message]], str]:
    """Return what renders conversations by a Go template; `ContentError` names an action not known here."""
    from jinja2 import Environment, TemplateSyntaxError

    jinja = _Jinja()
    pieces = [jinja.action(text) if acts else jinja.constant(text) for acts, text in _pieces(template)]
    if jinja.blocks:
        raise _unknown(f"{jinja.blocks[-1]} without end")
    try:
        whole = Environment(autoescape=False).from_string("".join(pieces))
    except (TemplateSyntaxError, SyntaxError, RecursionError) as error:
        raise ContentError(f"the TEMPLATE cannot be rendered here: {error}") from error
    return lambda messages: whole.render(messages=messages, texts=jinja.texts)


def _pieces(template: str) -> Iterator[tuple[bool, str]]:
    """Yield a template in pieces: whether each is an action, and its text."""
    place, trim = 0, False
    for action in ACTION.finditer(template):
        text = template[place : action.start()]
        text = text.lstrip() if trim else text
        yield False, text.rstrip() if action[1] else text
        yield True, action[2]
        place, trim = action.end(), bool(action[3])
    rest = template[place:].lstrip() if trim else template[place:]
    if "{{" in rest:
        raise _unknown(rest)
    yield False, rest


class _Jinja:
    """A Go template piece by piece in Jinja: the texts that it holds, and the `blocks` that are open."""

    def __init__(self) -> None:
        self.texts: list[str] = []  # written as they are: no character of them is Jinja's
        self.blocks: list[str] = []

    def constant(self, text: str) -> str:
        return f"{{{{ {self._held(text)} }}}}"

    def action(self, body: str) -> str:
        innermost = self.blocks[-1] if self.blocks else ""
        test = body.removeprefix("else ").removeprefix("if ")
        if body == "end" and innermost:
            return "{% endfor %}" if self.blocks.pop() == "range" else "{% endif %}"
        if body == "else" and innermost == "if":
            self.blocks[-1] = "else"
            return "{% else %}"
        if body.startswith("else if ") and innermost == "if":
            return f"{{% elif {self._condition(test)} %}}"
        if body == "range .Messages" and "range" not in self.blocks:
            self.blocks.append("range")
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
        if body in FIELDS and "range" in self.blocks:
            return FIELDS[body]
        try:
            return self._held(str(json.loads(body if body.startswith('"') else "")))
        except ValueError as error:
            raise _unknown(body) from error

    def _held(self, text: str) -> str:
        self.texts.append(text)
        return f"texts[{len(self.texts) - 1}]"


def _unknown(body: str) -> ContentError:
    return ContentError(f"the TEMPLATE does {show_value(body)}, which is not rendered here")
