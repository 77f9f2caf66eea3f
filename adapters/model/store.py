"""Find and open adapters by name or folder.

An unknown prefix or a missing tensor is an error here. PEFT fills missing tensors with zeros and only warns.
"""

import functools
import json
import os
from abc import ABCMeta
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneyard.adapters.model.adapter import Adapter
from tuneyard.adapters.model.lora import LoraAdapter
from tuneyard.core.errors import ContentError, RequestError, nearest, show_value
from tuneyard.core.files import check_characters, near_name, read_object
from tuneyard.core.files.hub import from_hub
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.language.messages import say, say_once
from tuneyard.core.plugins import bundled_with
from tuneyard.core.text.references import parse_reference
from tuneyard.core.weights.adapter_files import CONFIG, check_here

KINDS = "tuneyard.adapters.kinds"
"""The package with a file for each kind whose ΔW needs the base's weights."""
SAVES = Path("saves")
BASE_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "LICENSE*", "README.md")
"""What is fetched of a base on the hub."""
SHOWN_ADAPTERS = 5  # names in a message
HOW_TO_FUSE = _("fuse it into its base, which is exact: `tuneyard adapter fuse NAME --base DIR --out DIR`")


def open_adapter(reference: str | Path) -> LoraAdapter:
    """Open a plain LoRA adapter by its reference (`find_folder`); config and weights must match.

    `RequestError` if there is no adapter, `ContentError` if it is damaged, not supported, or of a kind that
    needs the base's weights.
    """
    kind, folder, raw = _read(reference)
    _refuse_unmergeable(kind, folder)
    return LoraAdapter.open(folder, raw)


def plain_lora(adapter: Adapter) -> LoraAdapter:
    """An opened adapter as a plain LoRA; `ContentError` for a kind that needs the base's weights."""
    _refuse_unmergeable(type(adapter), adapter.folder)
    if not isinstance(adapter, LoraAdapter):
        raise TypeError(
            _("{name}: an adapter that can be merged, and is no LoraAdapter", name=type(adapter).__name__)
        )
    return adapter


def _refuse_unmergeable(kind: type[Adapter], folder: Path) -> None:
    """Raise `ContentError` for a kind that needs the base's weights."""
    if kind.NOT_MERGED:
        raise ContentError(
            _("{path}: {reason}; {fix}", path=folder / CONFIG, reason=kind.NOT_MERGED, fix=HOW_TO_FUSE)
        )


def open_any(reference: str | Path) -> Adapter:
    """Open an adapter of any kind, to fuse or to show it. Errors as of `open_adapter`."""
    kind, folder, raw = _read(reference)
    return kind.open(folder, raw)


def _read(reference: str | Path) -> tuple[type[Adapter], Path, dict[str, Any]]:
    """The kind of an adapter, its folder, and the fields of its adapter_config.json."""
    folder = find_folder(reference)
    path = require_config(folder)
    raw: dict[str, Any] = read_object(path)
    check_characters(json.dumps(raw, ensure_ascii=False), path)
    return kind_of(raw, path), folder, raw


def require_config(folder: Path) -> Path:
    """The adapter_config.json of a folder. A `RequestError` names what the folder has in its place."""
    path = folder / CONFIG
    if not path.is_file():
        hint = adapters_in(folder) or _(
            "; name the output_dir of a LoRA training ({listing})", listing=_listing()
        )
        if (folder / "config.json").is_file():
            hint = _(
                "; it is a whole model: was it meant for --model or --base? Adapters {listing}",
                listing=_listing(),
            )
        raise RequestError(
            _("{folder}: not an adapter: {config} is missing{hint}", folder=folder, config=CONFIG, hint=hint)
        )
    return path


@functools.cache
def kinds() -> list[type[Adapter]]:
    """LoRA, and the kinds that have a file in `adapters/kinds/`."""
    classes = bundled_with(KINDS, ABCMeta)  # also those that the files import
    adapters = [each for each in classes if issubclass(each, Adapter)]
    return [LoraAdapter, *(each for each in adapters if each.__module__.startswith(f"{KINDS}."))]


def kind_of(raw: Mapping[str, Any], place: object) -> type[Adapter]:
    """The kind of an adapter_config.json; `ContentError` names one that is not supported."""
    for kind in kinds():
        if kind.recognises(raw):
            return kind
    kind_name = show_value(raw.get("peft_type"))
    raise ContentError(
        _(
            "{path}: peft_type {kind}: only LoRA and OFT adapters are supported: train one of them",
            path=relative(place),
            kind=kind_name,
        )
    )


def find_folder(reference: str | Path) -> Path:
    """Find the folder of an adapter by the rule that all commands share.

    A text with a slash, and every `Path`, is a path. A bare name is saves/NAME, or the folder NAME here if
    there is none. A note names the folder that is used if both exist. NAME=REFERENCE, as `eval` takes it, is
    the adapter of the reference.
    """
    text, path = str(reference), Path(reference)
    if text.encode(errors="ignore") != os.fsencode(reference):
        raise RequestError(
            _("adapter {text!r}: its name is not UTF-8, as in README.md: rename it", text=text)
        )
    name = text
    folders = _folders(reference)
    if not folders:
        name = parse_reference(text, is_folder, named=True, weight="never").reference
        folders = _folders(name) if name else []
    if len(folders) > 1:
        meaning = _(
            "{text} means {saves}/{text}; for the folder {text} here, write ./{text}", text=name, saves=SAVES
        )
        say_once(_("note: {message}", message=meaning))  # a command may open an adapter twice
    if folders:
        return folders[0]
    if path.is_file() and not path.with_name(CONFIG).is_file():
        raise RequestError(
            _(
                "adapter {name!r}: a file, expected the folder of an adapter ({listing})",
                name=text,
                listing=_listing(),
            )
        )
    if path.parent.is_dir() and "/" in text:
        raise RequestError(
            _("adapter {text!r}: no such folder; {near_name}", text=text, near_name=near_name(path))
        )
    raise RequestError(
        _(
            "adapter {text!r}: no such folder ({listing}); {fix}",
            text=text,
            listing=_listing(),
            fix=nearest(text, _saved(), _("name one of saves/, or a path with a slash")),
        )
    )


def is_folder(text: str) -> bool:
    """True if a text means a folder by the rule of `find_folder`, without a name before it."""
    return text != "" and bool(_folders(text))


def _folders(reference: str | Path) -> list[Path]:
    """The folders that a reference may mean, that of saves/ first."""
    path = Path(reference)
    candidates = [path]
    if isinstance(reference, str) and "/" not in reference and reference not in ("", ".", ".."):
        candidates = [SAVES / path, path]
    return list(filter(Path.is_dir, candidates))


def fetched_base(adapter: Adapter) -> Path:
    """The base that an adapter names, from the hub or its cache; `RequestError` if it is in neither."""
    name = adapter.config.base
    fix = _("name its folder with --base DIR --same-base")
    if not name:
        raise RequestError(_("{path}: names no base model: {fix}", path=adapter.folder / CONFIG, fix=fix))
    check_here(adapter.config.path, name, "--base")
    revision = adapter.config.raw.get("revision")
    return from_hub(name, fix, allow_patterns=list(BASE_FILES), revision=revision)


def _saved() -> list[str]:
    """The names of the adapters in saves/."""
    return sorted(config.parent.name for config in SAVES.glob(f"[!.]*/{CONFIG}"))


def _listing() -> str:
    names = _saved()
    return _("under {folder}/: {names}", folder=SAVES, names=joined(names) if names else _("none"))


def adapters_in(folder: Path) -> str:
    """Hint at the adapters in a folder that is not one itself, or "".

    They are the checkpoints of a training, and adapters that PEFT saved under their names (DIR/sft).
    """
    checkpoints = sorted(path.parent.name for path in folder.glob(f"checkpoint-*/{CONFIG}"))
    if checkpoints:
        return _(" (but it contains {names})", names=joined(checkpoints))
    named = sorted(relative(path.parent) for path in folder.glob(f"[!.]*/{CONFIG}"))
    if not named:
        return ""
    listing = joined(named[:SHOWN_ADAPTERS])
    if len(named) > SHOWN_ADAPTERS:
        listing = _("{names} and {number} more", names=listing, number=len(named) - SHOWN_ADAPTERS)
    return _("; PEFT saves an adapter under its name in the folder: name {names}", names=listing)


def note(text: str) -> None:
    """Print a note on stderr; the command continues."""
    say(_("note: {message}", message=text), to_stderr=True)
