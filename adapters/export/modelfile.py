"""Ollama's Modelfile: what to load, and the chat template, stop words and parameters of training."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapters.config import CONFIG
from adapters.export.chat import Wrapping
from adapters.export.source import ExportSource
from core.errors import ContentError, RequestError, show_value
from core.files import read_object

# Ollama's converter (convert.go) takes a PEFT folder for these alone, and reads nothing but lora_alpha.
TAKES_ADAPTERS = ("llama", "mistral", "mixtral", "gemma2")
PARAMETERS = {  # ours is Ollama's, by the names of generation_config.json
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}


@dataclass(frozen=True, slots=True)
class Modelfile:
    """The lines of a Modelfile, by what they say."""

    model: str
    adapter: str | None
    wrapping: Wrapping
    stops: list[str]
    parameters: dict[str, str]
    system: str | None

    def text(self) -> str:
        """Return the file's content."""
        lines = [f"FROM {self.model}"]
        lines += [f"ADAPTER {self.adapter}"] if self.adapter else []
        lines.append(f"TEMPLATE {quoted(go_template(self.wrapping))}")
        lines += [f"SYSTEM {quoted(self.system)}"] if self.system is not None else []
        lines += [f"PARAMETER stop {quoted(stop)}" for stop in self.stops]
        lines += [f"PARAMETER {name} {value}" for name, value in self.parameters.items()]
        return "\n".join(lines) + "\n"


def go_template(wrapping: Wrapping) -> str:
    """Return the Go template that renders Ollama's .Messages as the wrapping does.

    The default system text is no part of it: Ollama puts SYSTEM before a conversation without one.
    """
    alike = wrapping.by_role_alone
    if alike:
        before, middle, after = map(_literal, alike)
        body = f"{before}{{{{ .Role }}}}{middle}{{{{ .Content }}}}{after}"
    else:
        turns = [
            f'{{{{ {"else " * (i > 0)}if eq .Role "{role}" }}}}{_literal(a)}{{{{ .Content }}}}{_literal(b)}'
            for i, (role, (a, b)) in enumerate(wrapping.around.items())
        ]
        body = "".join(turns) + "{{ end }}"
    start, answer = _literal(wrapping.start), _literal(wrapping.answer)
    return f"{start}{{{{ range .Messages }}}}{body}{{{{ end }}}}{answer}"


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


def find_stops(folders: list[Path], wrapping: Wrapping, ends: set[str]) -> list[str]:
    """Return the special tokens that stand around messages, and the model's own ends of text, sorted."""
    texts = [wrapping.answer, *(part for pair in wrapping.around.values() for part in pair)]
    special = _special_tokens(folders)
    return sorted({token for token in special if any(token in text for text in texts)} | ends)


def end_tokens(folders: list[Path]) -> set[str]:
    """Return the texts of eos tokens: the tokenizer's, and those of generation_config.json by id."""
    fields = _first(folders, "tokenizer_config.json")
    found = {text for text in [token_text(fields.get("eos_token"))] if text}
    wanted = _first(folders, "generation_config.json").get("eos_token_id")
    ids = wanted if isinstance(wanted, list) else [wanted]
    return found | {text for text, index in _special_tokens(folders).items() if index in ids}


def without_bos(wrapping: Wrapping, folders: list[Path]) -> Wrapping:
    """Return the wrapping without the beginning-of-text token where the tokenizer adds it by itself.

    Ollama adds it to every prompt then, and the model would read it twice.
    """
    bos = special_texts(folders).get("bos_token")
    if not bos or not _adds_bos(folders, bos):
        return wrapping
    before, after = wrapping.around["system"]
    around = {**wrapping.around, "system": (before.removeprefix(bos), after)}
    return replace(wrapping, start=wrapping.start.removeprefix(bos), around=around)


def _adds_bos(folders: list[Path], bos: str) -> bool:
    post: Any = _first(folders, "tokenizer.json").get("post_processor") or {}
    steps = [step for step in post.get("processors", [post]) if step.get("type") == "TemplateProcessing"]
    firsts = [step["single"][0].get("SpecialToken", {}).get("id") for step in steps if step.get("single")]
    return _first(folders, "tokenizer_config.json").get("add_bos_token") is True or bos in firsts


def special_texts(folders: list[Path]) -> dict[str, str]:
    """Return the texts of bos_token and its like, which chat templates may use."""
    fields = _first(folders, "tokenizer_config.json")
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    return {name: text for name in names if (text := token_text(fields.get(name)))}


def token_text(value: object) -> str | None:
    """Return a token of tokenizer_config.json, which is there as text or as an object."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _special_tokens(folders: list[Path]) -> dict[str, int]:
    added: Any = _first(folders, "tokenizer.json").get("added_tokens") or []
    return {token["content"]: token["id"] for token in added if token.get("special")}


def _first(folders: list[Path], name: str) -> dict[str, object]:
    """Return the first file of that name, {} where no folder has it."""
    return next((read_object(folder / name) for folder in folders if (folder / name).is_file()), {})


def given_parameters(given: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Return NAME=VALUE texts as (stop words, which may be several, every other parameter by its name).

    `RequestError` for what is no NAME=VALUE, and for a parameter other than `stop` that is given twice.
    """
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
    return stops, found


def find_parameters(folders: list[Path]) -> dict[str, str]:
    """Return Ollama's parameters for what generation_config.json says."""
    fields = _first(folders, "generation_config.json")
    found = {ours: f"{fields[name]}" for name, ours in PARAMETERS.items() if fields.get(name) is not None}
    if fields.get("do_sample") is False:
        found["temperature"] = "0"
    return found


def adapter_line(source: ExportSource, gguf: Path | None) -> Path:
    """Return what ADAPTER names: the GGUF LoRA, else the PEFT folder where Ollama reads it rightly."""
    if gguf or source.adapter is None:
        return gguf or source.folder
    reason = _unreadable(source.config or {}, source.adapter.config)
    if reason:
        raise RequestError(
            f"{source.folder}: Ollama cannot read this adapter's safetensors ({reason}); make a GGUF of it "
            f"with --to gguf --base DIR --out FILE.gguf and name it with --gguf FILE.gguf"
        )
    return source.folder


def _unreadable(model: Mapping[str, object], adapter: Mapping[str, object]) -> str:
    kind = model.get("model_type")
    if kind not in TAKES_ADAPTERS:
        known = ", ".join(TAKES_ADAPTERS)
        return f"the base is {kind or 'not known, for want of --base'}; it takes {known} only"
    for field in ("use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if adapter.get(field):
            return f"it overlooks {field} of {CONFIG}"
    if type(adapter.get("lora_alpha")) is not int:
        return "its lora_alpha is no whole number"
    return ""
