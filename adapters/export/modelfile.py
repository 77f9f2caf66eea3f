"""Ollama's Modelfile: what to load, and the chat template, stop words and parameters of training.

Most chat templates wrap: a fixed text before and after each message by its role, an opening for the answer, a
system message where none is given. What a Jinja template puts around each message is found by rendering and
checked on probes: one that does more (trims texts, numbers turns) fails and is refused.
"""

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from tuneyard.adapters.export.source import GGUF, MODELFILE, ExportSource, begins_with, check_file
from tuneyard.adapters.store import note
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import read_object, write_text
from tuneyard.core.prompt import Message, Render, chat_renderer, saved_chat_template

PARAMETERS = {  # the key is generation_config.json's name, the value Ollama's
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}  # fmt: skip
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
MARK = "\u2042{}\u2042"  # a text that is in no template
TEXTS = ("yes", " two \n\nlines \n", "<b>{{ x }}</b> \"q\" 'a' 文本", "7")


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What stands around messages: `around` by role before and after, `answer` opens the answer.

    `default` is the system text of a conversation without one; `start` comes once before all messages.
    """

    start: str
    around: dict[str, tuple[str, str]]
    answer: str
    default: str | None

    def render(self, messages: list[Message]) -> str:
        """Return the prompt of a conversation, as the template would."""
        if self.default is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.default}, *messages]
        parts = [f"{self.around[m['role']][0]}{m['content']}{self.around[m['role']][1]}" for m in messages]
        return self.start + "".join(parts) + self.answer


def renderer(template: str, special: dict[str, str]) -> Render:
    """Return a Jinja template's rendering as `eval` has it, in a sandbox set up as transformers does.

    `special` are the texts of `bos_token` and its like. No tokenizer is loaded: many folders have none.
    """
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment as Environment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = refuse
    try:
        compiled = environment.from_string(template)
    except TemplateSyntaxError as error:
        raise ContentError(f"the chat template is damaged: line {error.lineno}: {error.message}") from error

    def apply(messages: list[Message], **names: Any) -> str:
        return compiled.render({"tools": None, "documents": None, **special, **names}, messages=messages)

    return chat_renderer(SimpleNamespace(apply_chat_template=apply), template)


def find_wrapping(render: Render) -> Wrapping:
    """Return what a template puts around messages; `ContentError` where that is not all that it does."""
    wrapping = _guess(render)
    turns = ["user", "assistant", "user", "assistant", "user"]
    for system, count, first in itertools.product(([], ["system"]), (1, 3, 5), range(len(TEXTS))):
        messages = _conversation([*system, *turns[:count]], [*TEXTS[first:], *TEXTS, *TEXTS])
        found, expected = wrapping.render(messages), render(messages, True)
        if found != expected:
            raise ContentError(
                "the chat template does more than wrap each message (it trims texts, or treats some turns "
                "otherwise), so no TEMPLATE can be written that is exact; write one by hand. For messages of "
                f"{', '.join(m['role'] for m in messages)} it gives {show_value(expected)}, a wrapping "
                f"{show_value(found)}"
            )
    return wrapping


def thinks(render: Render, wrapping: Wrapping) -> bool:
    """Return whether the template takes the thoughts out of earlier answers, which a wrapping keeps."""
    messages = _conversation(["user", "assistant", "user"], ["a", "<think>\nb\n</think>\n\nc", "d"])
    return render(messages, True) != wrapping.render(messages)


def _guess(render: Render) -> Wrapping:
    """Read the texts around marked messages; where the guess is wrong, the probes will tell."""

    def around(*roles: str, opened: bool = False) -> list[str]:
        """Return the texts before, between and after the messages of a conversation."""
        marks = [MARK.format(i) for i in range(len(roles))]
        text = render(_conversation(roles, marks), opened)
        found = re.fullmatch("(.*?)".join(["", *map(re.escape, marks), ""]), text, re.DOTALL)
        if found is None:
            raise ContentError(
                "the chat template leaves messages out or changes them; no TEMPLATE can say that"
            )
        return list(found.groups())

    user_after = around("user")[1]
    answer = around("user", opened=True)[1].removeprefix(user_after)
    assistant_after = around("user", "assistant")[2]
    turns = around("user", "assistant", "user")
    user_before = turns[2].removeprefix(assistant_after)
    before, between, _ = around("system", "user")
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


def to_ollama(source: ExportSource, options: Mapping[str, Any]) -> None:
    """Write a Modelfile."""
    out, gguf = options["out"], options["gguf"]
    target = check_file(out, source, MODELFILE, force=options["force"])
    if source.adapter and not options["from_"]:
        raise RequestError("--from is needed for an adapter: its base as Ollama knows it, or a .gguf file")
    folders = [folder for folder in (source.folder, source.base) if folder]
    template = next((text for folder in folders if (text := saved_chat_template(folder))), None)
    if template is None:
        raise ContentError(f"{source.folder}: no chat template in it or in its base (--base)")
    special = _special_texts(folders)
    render = renderer(template, special)
    wrapping = find_wrapping(render)
    if thinks(render, wrapping):
        note("the chat template takes thoughts out of earlier answers, this TEMPLATE keeps them")
    if gguf and not begins_with(gguf, GGUF):
        raise RequestError(f"--gguf {gguf}: no GGUF file there; make it with --to gguf")
    if source.adapter and not gguf:  # Ollama reads few safetensors, and of their config lora_alpha alone
        raise RequestError(
            "--gguf is needed for an adapter: what --to gguf --base DIR --out FILE makes of it"
        )
    here = os.path.relpath((gguf or source.folder).resolve(), target.parent)
    here = here if here.startswith("..") else f"./{here}"  # Ollama takes it from the Modelfile's folder
    stops, parameters = _parameters(folders, options["parameter"])
    written = modelfile_text(
        [f"FROM {options['from_'] or here}", *([f"ADAPTER {here}"] if source.adapter else [])],
        _without_bos(wrapping, folders, special.get("bos_token")),
        list(dict.fromkeys([*_find_stops(folders, wrapping, special.get("eos_token")), *stops])),
        parameters,
        wrapping.default if options["system"] is None else options["system"],
    )
    write_text(target, written)
    click.echo(f"{out}  now: ollama create NAME -f {out}")


def modelfile_text(
    head: list[str], wrapping: Wrapping, stops: list[str], parameters: dict[str, str], system: str | None
) -> str:
    """Return a Modelfile's content; `head` are its first lines (FROM, ADAPTER)."""
    lines = [*head, f"TEMPLATE {quoted(go_template(wrapping))}"]
    lines += [f"SYSTEM {quoted(system)}"] if system is not None else []
    lines += [f"PARAMETER stop {quoted(stop)}" for stop in stops]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    return "\n".join(lines) + "\n"


def go_template(wrapping: Wrapping) -> str:
    """Return the Go template that renders Ollama's .Messages as the wrapping does.

    The default system text is no part of it: Ollama puts SYSTEM before a conversation without one.
    """
    pairs = wrapping.around.items()
    named = {(*a.partition(role)[::2], b) for role, (a, b) in pairs if a.count(role) == 1}
    if len(named) == 1 and all(a.count(role) == 1 for role, (a, _) in pairs):  # roles differ in name alone
        before, middle, after = map(_literal, named.pop())
        body = f"{before}{{{{ .Role }}}}{middle}{{{{ .Content }}}}{after}"
    else:
        turns = [
            f'{{{{ {"else " * (i > 0)}if eq .Role "{role}" }}}}{_literal(a)}{{{{ .Content }}}}{_literal(b)}'
            for i, (role, (a, b)) in enumerate(pairs)
        ]
        body = "".join(turns) + "{{ end }}"
    messages = f"{{{{ range .Messages }}}}{body}{{{{ end }}}}"
    return _literal(wrapping.start) + messages + _literal(wrapping.answer)


def _literal(text: str) -> str:
    """Return text that a Go template prints unchanged."""
    return text.replace("{{", '{{ "{{" }}')


def quoted(text: str) -> str:
    """Return a Modelfile string, in quotes or in three of them; `ContentError` where neither can hold it."""
    if "\n" not in text and '"' not in text:
        return f'"{text}"'
    if '"""' in text or text.endswith('"'):
        raise ContentError(f'{show_value(text)}: a Modelfile has no way to write a text with """ in it')
    return f'"""{text}"""'


def _find_stops(folders: list[Path], wrapping: Wrapping, eos: str | None) -> list[str]:
    """Return the special tokens that stand around messages, and the model's own ends of text, sorted."""
    texts = [wrapping.answer, *(part for pair in wrapping.around.values() for part in pair)]
    ends = _first(folders, "generation_config.json").get("eos_token_id")
    ids = ends if isinstance(ends, list) else [ends]
    added = _first(folders, "tokenizer.json").get("added_tokens") or []
    special = {token["content"]: token["id"] for token in added if token.get("special")}
    found = {token for token, i in special.items() if i in ids or any(token in text for text in texts)}
    return sorted(found | ({eos} if eos else set()))


def _without_bos(wrapping: Wrapping, folders: list[Path], bos: str | None) -> Wrapping:
    """Return the wrapping without the beginning-of-text token where the tokenizer, and so Ollama, adds it."""
    post = _first(folders, "tokenizer.json").get("post_processor") or {}
    steps = [step for step in post.get("processors", [post]) if step.get("type") == "TemplateProcessing"]
    firsts = [step["single"][0].get("SpecialToken", {}).get("id") for step in steps if step.get("single")]
    added = _first(folders, "tokenizer_config.json").get("add_bos_token") is True or bos in firsts
    if not bos or not added:
        return wrapping
    before, after = wrapping.around["system"]
    around = {**wrapping.around, "system": (before.removeprefix(bos), after)}
    return replace(wrapping, start=wrapping.start.removeprefix(bos), around=around)


def _special_texts(folders: list[Path]) -> dict[str, str]:
    """Return the texts of bos_token and its like, which chat templates may use."""
    fields = _first(folders, "tokenizer_config.json")
    values = ((name, fields.get(name)) for name in SPECIAL)
    texts = ((name, one.get("content") if isinstance(one, dict) else one) for name, one in values)
    return {name: text for name, text in texts if text and isinstance(text, str)}


def _first(folders: list[Path], name: str) -> dict[str, Any]:
    """Return the first file of that name, {} where no folder has it."""
    return next((read_object(folder / name) for folder in folders if (folder / name).is_file()), {})


def _parameters(folders: list[Path], given: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Return (stop words given, parameters of generation_config.json and, over them, those given)."""
    fields = _first(folders, "generation_config.json")
    known = {ours: f"{fields[name]}" for name, ours in PARAMETERS.items() if fields.get(name) is not None}
    if fields.get("do_sample") is False:
        known["temperature"] = "0"
    stops: list[str] = []
    found: dict[str, str] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name == "stop" and value:
            stops.append(value)
        elif not re.fullmatch(r"[a-z_]+", name) or not re.fullmatch(r"\S+", value):
            raise RequestError(f"--parameter {text!r}: expected NAME=VALUE, e.g. temperature=0")
        elif name in found:
            raise RequestError(f"--parameter {text!r}: {name}={found[name]} is given, too: keep one")
        else:
            found[name] = value
    return stops, known | found
