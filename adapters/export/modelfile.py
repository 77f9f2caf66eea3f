"""Ollama's Modelfile: what to load, and the chat template, stop words and parameters of training."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from adapters.export.chat import Wrapping, find_wrapping, renderer, thinks
from adapters.export.source import ExportSource, check_file
from adapters.output import note
from core.errors import ContentError, RequestError, show_value
from core.files import read_object, write_text
from core.prompt import saved_chat_template

PARAMETERS = {  # the key is generation_config.json's name, the value Ollama's
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}  # fmt: skip
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


def to_ollama(source: ExportSource, options: Mapping[str, Any]) -> None:
    """Write a Modelfile."""
    out, gguf = options["out"], options["gguf"]
    target = check_file(out, source, force=options["force"])
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
    if gguf and (not gguf.is_file() or gguf.open("rb").read(4) != b"GGUF"):
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
    return (
        f"{_literal(wrapping.start)}{{{{ range .Messages }}}}{body}{{{{ end }}}}{_literal(wrapping.answer)}"
    )


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
    values = {name: fields.get(name) for name in SPECIAL}
    texts = {
        name: value.get("content") if isinstance(value, dict) else value for name, value in values.items()
    }
    return {name: text for name, text in texts.items() if text and isinstance(text, str)}


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
