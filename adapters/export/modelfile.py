"""The text of Ollama's Modelfile: the files to load, the chat template, stop words and parameters.

Most chat templates only wrap messages: a fixed text before and after each message by its role, an opening for
the answer, and a default system message. `find_wrapping` renders marked messages to find these texts, and
checks them on probes. A template that does more (trims texts, numbers turns) is refused.
"""

import datetime
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneyard.adapters.export.source import ExportSource
from tuneyard.core.documents import is_number
from tuneyard.core.errors import ContentError, RequestError, show_value, unexpected
from tuneyard.core.language.message import _, joined
from tuneyard.core.llamafactory.prompt import TODAY, Message, Render
from tuneyard.core.llamafactory.prompt.rendering import template_renderer
from tuneyard.core.llamafactory.prompt.tokenizer_files import GENERATION, first_object, read_tokenizer
from tuneyard.core.llamafactory.prompt.trained_files import TrainedFiles, read_trained

PARAMETERS = {  # the key is generation_config.json's name, the value Ollama's
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}  # fmt: skip
MARK = "\u2042{}\u2042"  # a text that is in no template
TEXTS = ("yes", " two \n\nlines \n", "<b>{{ x }}</b> \"q\" 'a' 文本", "7")


@dataclass(frozen=True, slots=True)
class Wrapping:
    """The texts around messages: `around` by role (before, after), and `answer`, which opens the answer.

    `default` is the system text of a conversation without one. `start` comes once before all messages.
    """

    start: str
    around: dict[str, tuple[str, str]]
    answer: str
    default: str | None

    def render(self, messages: list[Message]) -> str:
        """Render the prompt of a conversation as the template does."""
        if self.default is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.default}, *messages]
        text = self.start
        for message in messages:
            before, after = self.around[message["role"]]
            text += f"{before}{message['content']}{after}"
        return text + self.answer


def find_wrapping(render: Render) -> Wrapping:
    """Find the texts that a template puts around messages; `ContentError` if it does anything more."""
    wrapping = _guess(render)
    turns = ["user", "assistant", "user", "assistant", "user"]
    for system, count, first in itertools.product(([], ["system"]), (1, 3, 5), range(len(TEXTS))):
        messages = _conversation([*system, *turns[:count]], [*TEXTS[first:], *TEXTS, *TEXTS])
        wrapped, expected = wrapping.render(messages), render(messages, True)
        if wrapped != expected:
            raise ContentError(
                _(
                    "the chat template does more than wrap each message (it trims texts, or treats some "
                    "turns differently), so no TEMPLATE can be written that is exact; write one by hand. "
                    "For messages of {roles} it gives {expected}, a wrapping {wrapped}",
                    roles=joined(message["role"] for message in messages),
                    expected=show_value(expected),
                    wrapped=show_value(wrapped),
                )
            )
    return wrapping


def thinks(render: Render, wrapping: Wrapping) -> bool:
    """True if the template removes the thoughts from earlier answers. A wrapping keeps them."""
    messages = _conversation(["user", "assistant", "user"], ["a", "<think>\nb\n</think>\n\nc", "d"])
    return render(messages, True) != wrapping.render(messages)


def _guess(render: Render) -> Wrapping:
    """Read the texts around marked messages. The probes of `find_wrapping` detect a wrong guess."""

    def around(*roles: str, opened: bool = False) -> list[str]:
        """The texts before, between and after the messages of a conversation."""
        marks = [MARK.format(i) for i in range(len(roles))]
        text = render(_conversation(roles, marks), opened)
        match = re.fullmatch("(.*?)".join(["", *map(re.escape, marks), ""]), text, re.DOTALL)
        if match is None:
            raise ContentError(
                _("the chat template leaves messages out or changes them; no TEMPLATE can do the same")
            )
        return list(match.groups())

    user_after = around("user")[1]
    answer = around("user", opened=True)[1].removeprefix(user_after)
    assistant_after = around("user", "assistant")[2]
    turns = around("user", "assistant", "user")
    user_before = turns[2].removeprefix(assistant_after)
    before, between, _unused = around("system", "user")
    system_after, without = between.removesuffix(user_before), turns[0].removesuffix(user_before)
    start, default = without, None
    if len(without) > len(before) and without.startswith(before) and without.endswith(system_after):
        start, default = "", without[len(before) : len(without) - len(system_after)]
    roles = {
        "system": (before.removeprefix(start), system_after),
        "user": (user_before, user_after),
        "assistant": (turns[1].removeprefix(user_after), assistant_after),
    }
    return Wrapping(start, roles, answer, default)


def _conversation(roles: Sequence[str], texts: Sequence[str]) -> list[Message]:
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


@dataclass(frozen=True, slots=True)
class ModelfileContent:
    """A checked Modelfile without its first lines (FROM, ADAPTER), and notes on what it does not say."""

    wrapping: Wrapping
    stops: list[str]
    parameters: dict[str, str]
    system: str | None
    notes: Sequence[str]

    def text(self, head: list[str]) -> str:
        """The whole Modelfile after these first lines."""
        return modelfile_text(head, self.wrapping, self.stops, self.parameters, self.system)


def modelfile_of(source: ExportSource, system: str | None, parameters: Sequence[str]) -> ModelfileContent:
    """Check everything that a Modelfile says of the model. `system` and `parameters` override its files."""
    trained = read_trained(source.folder, source.base)
    if trained.template is None:
        raise ContentError(
            _("{folder}: no chat template in it or in its base (--base)", folder=source.folder)
        )
    notes: list[str] = []
    render = template_renderer(trained.template.text, trained.special)
    wrapping = find_wrapping(render)
    if thinks(render, wrapping):
        notes.append(_("the chat template removes thoughts from earlier answers, this TEMPLATE keeps them"))
    if TODAY in trained.template.text:
        day = datetime.date.today()
        notes.append(
            _(
                "the chat template writes today's date, this TEMPLATE has {day}: export it again "
                "when it is old",
                day=day,
            )
        )
    if system is None:
        system = wrapping.default
    stops, values = _parameters(source.folders, parameters)
    tokenizer = read_tokenizer([trained.folder])
    stops = [*_find_stops(trained, tokenizer, wrapping), *stops]
    served = _without_bos(wrapping, trained, tokenizer)
    return ModelfileContent(served, list(dict.fromkeys(stops)), values, system, notes)


def modelfile_text(
    head: list[str], wrapping: Wrapping, stops: list[str], parameters: dict[str, str], system: str | None
) -> str:
    """The content of a Modelfile; `head` has its first lines (FROM, ADAPTER)."""
    for line in head:
        if not line.isprintable():
            raise ContentError(
                _(
                    "{value}: a line break or a control character in a line of a Modelfile; rename the "
                    "folder or the file without it",
                    value=show_value(line),
                )
            )
    lines = [*head, f"TEMPLATE {quoted(go_template(wrapping))}"]
    if system is not None:
        lines.append(f"SYSTEM {quoted(system)}")
    lines += [f"PARAMETER stop {quoted(stop)}" for stop in stops]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    return "\n".join(lines) + "\n"


def differing_instructions(text: str, expected: str) -> list[str]:
    """The names of the instructions in which a Modelfile differs from the expected one: `PARAMETER stop`."""
    instructions, expected_instructions = _instructions(text), _instructions(expected)
    names = []
    for instruction in [*expected_instructions, *instructions]:
        if instruction not in instructions or instruction not in expected_instructions:
            first, _space, rest = instruction.partition(" ")
            names.append(f"{first} {rest.split()[0]}" if first == "PARAMETER" and rest.split() else first)
    return list(dict.fromkeys(names)) or ["FROM"] * (text != expected)


def _instructions(text: str) -> list[str]:
    """The instructions of a Modelfile. A line of a template may look like one: the parts still differ."""
    parts = re.split(r"^(?=(?:FROM|ADAPTER|TEMPLATE|SYSTEM|PARAMETER) )", text, flags=re.MULTILINE)
    return [part.rstrip("\n") for part in parts if part.strip()]


def go_template(wrapping: Wrapping) -> str:
    """Write the wrapping as a Go template over Ollama's .Messages.

    The default system text is not in it: Ollama puts SYSTEM before a conversation without one.
    """
    forms = set()
    for role, (before, after) in wrapping.around.items():
        opening, _unused, rest = before.partition(role)
        forms.add((opening, rest, after))
    names_roles = all(before.count(role) == 1 for role, (before, _unused) in wrapping.around.items())
    if names_roles and len(forms) == 1:  # the texts around the roles differ only in the role's name
        opening, rest, after = map(_literal, forms.pop())
        body = f"{opening}{{{{ .Role }}}}{rest}{{{{ .Content }}}}{after}"
    else:
        keyword, body = "if", ""
        for role, (before, after) in wrapping.around.items():
            content = f"{_literal(before)}{{{{ .Content }}}}{_literal(after)}"
            body += f'{{{{ {keyword} eq .Role "{role}" }}}}{content}'
            keyword = "else if"
        body += "{{ end }}"
    messages = f"{{{{ range .Messages }}}}{body}{{{{ end }}}}"
    return _literal(wrapping.start) + messages + _literal(wrapping.answer)


def _literal(text: str) -> str:
    """Escape text so that a Go template prints it unchanged."""
    return text.replace("{{", '{{ "{{" }}')


def quoted(text: str) -> str:
    """Quote a Modelfile string with one or three quotes; `ContentError` if neither is possible."""
    if text.isprintable() and '"' not in text:
        return f'"{text}"'
    if '"""' in text or text.endswith('"'):
        raise ContentError(
            _('{text}: a Modelfile has no way to write a text with """ in it', text=show_value(text))
        )
    return f'"""{text}"""'


def _find_stops(trained: TrainedFiles, tokenizer: Mapping[str, Any], wrapping: Wrapping) -> list[str]:
    """The special tokens in the texts around messages, and the end tokens of the training, sorted."""
    texts = [wrapping.answer]
    for pair in wrapping.around.values():
        texts += pair
    stops = {text for text, index in trained.ids.items() if index in trained.ends}
    eos = trained.special.get("eos_token")
    if eos:
        stops.add(eos)
    for token in tokenizer.get("added_tokens") or []:
        if token.get("special") and any(token["content"] in text for text in texts):
            stops.add(token["content"])
    return sorted(stops)


def _without_bos(wrapping: Wrapping, trained: TrainedFiles, tokenizer: Mapping[str, Any]) -> Wrapping:
    """Remove the beginning-of-text token if the tokenizer, and so Ollama, adds it."""
    bos = trained.special.get("bos_token")
    if not bos:
        return wrapping
    added = first_object([trained.folder], "tokenizer_config.json").get("add_bos_token") is True
    processor = tokenizer.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        if step.get("type") == "TemplateProcessing" and step.get("single"):
            first = step["single"][0].get("SpecialToken", {}).get("id")
            added = added or first == bos
    if not added:
        return wrapping
    before, after = wrapping.around["system"]
    around = {**wrapping.around, "system": (before.removeprefix(bos), after)}
    return replace(wrapping, start=wrapping.start.removeprefix(bos), around=around)


def _parameters(folders: list[Path], texts: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Stop words of `--parameter`, and the parameters of generation_config.json that it overrides."""
    fields = first_object(folders, "generation_config.json")
    parameters = {}
    for name, ollama_name in PARAMETERS.items():
        value = fields.get(name)
        if value is None:
            continue
        if not is_number(value) or not math.isfinite(value):
            place = next(folder for folder in folders if (folder / GENERATION).is_file()) / GENERATION
            raise unexpected(place, name, value, _("a number"))
        parameters[ollama_name] = str(value)
    if fields.get("do_sample") is False:
        parameters["temperature"] = "0"
    # Otherwise Ollama takes a temperature of 0.8 and a penalty of 1.1.
    parameters.setdefault("temperature", "1" if fields.get("do_sample") else "0")
    parameters.setdefault("repeat_penalty", "1")
    stops: list[str] = []
    options: dict[str, str] = {}
    for text in texts:
        name, _unused, value = text.partition("=")
        if name == "stop" and value:
            stops.append(value)
        elif not re.fullmatch(r"[a-z_]+", name) or not re.fullmatch(r"\S+", value):
            raise RequestError(_("--parameter {text!r}: expected NAME=VALUE, e.g. temperature=0", text=text))
        elif name in options:
            raise RequestError(
                _(
                    "--parameter {text!r}: {name}={options} is given, too: keep one",
                    text=text,
                    name=name,
                    options=options[name],
                )
            )
        else:
            options[name] = value
    return stops, parameters | options
