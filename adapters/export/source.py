"""Open the folder to export: an adapter or a full model, its base, and the base's licence."""

import contextlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tuneyard.adapters.model.adapter import Adapter
from tuneyard.adapters.model.lora import LoraAdapter
from tuneyard.adapters.model.provenance import CARD
from tuneyard.adapters.model.store import adapters_in, find_folder, open_adapter, open_any, plain_lora
from tuneyard.adapters.model.weighted import check_names_in, open_alone
from tuneyard.adapters.write.carried_tokenizer import PROMPT_FILES
from tuneyard.adapters.write.output import Changes, check_free, check_outside
from tuneyard.core.documents import parse_yaml
from tuneyard.core.errors import RequestError
from tuneyard.core.files import read_object, text_sha256
from tuneyard.core.files.bounded_reading import open_regular, read_text
from tuneyard.core.files.links import check_own_files
from tuneyard.core.language.message import _
from tuneyard.core.training.training_run import model_sha256, read_provenance
from tuneyard.core.weights.adapter_files import CONFIG, WEIGHTS, WEIGHTS_INDEX
from tuneyard.core.weights.base_models import base_config, has_weights, open_base
from tuneyard.core.weights.tensors import INDEX, SINGLE

ORIGIN = "origin.json"  # `tuneyard recipe base` writes it next to the embedded model
GGUF, MODELFILE = b"GGUF", b"FROM "  # the first bytes of the written files
GGUF_HEAD = 4096  # bytes of a GGUF in which its source is named
_GGUF_COUNTS = "<IQQ"  # after the first bytes: version, number of tensors, number of fields
_GGUF_UINT32, _GGUF_STRING = 4, 8
MADE_OF = "source.sha256"  # general.…, a field in the first 4 kB of the GGUF files that are written
CARRIED = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
"""Texts about a model that go to the hub with it."""
PUBLISHED = (
    *PROMPT_FILES, *CARRIED, CARD, CONFIG, WEIGHTS, WEIGHTS_INDEX, "config.json", SINGLE, INDEX,
    ORIGIN,
)  # fmt: skip
"""Files of a folder whose content an export publishes. Parts of weights are checked as they are listed."""
LICENCE = ("license", "license_name", "license_link")  # of a hub card


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A checked folder. `adapter` is None for a full model, `base` None if the base is not a local folder."""

    folder: Path
    adapter: Adapter | None
    base: Path | None

    @property
    def lora(self) -> LoraAdapter | None:
        """The adapter as a plain LoRA, None for a full model. `ContentError` if it must be fused first."""
        if self.adapter is None:
            return None
        return plain_lora(self.adapter)

    @property
    def folders(self) -> list[Path]:
        """The folder, and the base's if it is here."""
        return list(filter(None, (self.folder, self.base)))

    @property
    def digest(self) -> str:
        """SHA-256 of the adapter, or of the model's files."""
        if self.adapter:
            return self.adapter.digest
        return model_sha256(self.folder)

    @property
    def whole_digest(self) -> str:
        """SHA-256 of the model's files, or of the adapter and the base into which it is fused."""
        if self.adapter is None or self.base is None:
            return self.digest
        return text_sha256(f"{self.digest} {model_sha256(self.base)}")


def open_source(
    reference: str | Path, base: Path | None, opening: Callable[[str | Path], Adapter] = open_adapter
) -> ExportSource:
    """Open an adapter (a NAME under saves/ or a folder) or a model folder. `base` overrides their own entry.

    `opening` is `open_any` where an adapter of any kind will do, since it is fused.

    `RequestError` if the folder is neither; `ContentError` if the adapter is damaged.
    """
    folder = find_folder(reference)
    if base:
        base_config(base)
    adapter = None
    if (folder / CONFIG).is_file():
        adapter = open_alone(folder, opening, base)
        base_name = adapter.config.base
    elif (folder / "config.json").is_file():
        base_name = fused_base(folder)
    else:
        hint = adapters_in(folder) or _("; name a LoRA's output_dir, or what `tuneyard adapter fuse` wrote")
        raise RequestError(
            _(
                "{folder}: not an adapter or a model: no {config} and no config.json{hint}",
                folder=folder,
                config=CONFIG,
                hint=hint,
            )
        )
    if base is None and base_name and (Path(base_name) / "config.json").is_file():
        base = Path(base_name)
    if adapter and base and has_weights(base):
        check_names_in(adapter, open_base(base))
    return ExportSource(folder, adapter, base)


def open_export(reference: str, base: Path | None, *, any_kind: bool, publishes_base: bool) -> ExportSource:
    """`open_source` for an export. `any_kind`: the adapter is fused, so that any kind will do.

    `ContentError` for links out of the folder. `publishes_base`: the prompt files of the base are exported.
    """
    source = open_source(reference, base, open_any if any_kind else open_adapter)
    check_own_files(source.folder, PUBLISHED)
    if publishes_base and source.base is not None:
        check_own_files(source.base, PROMPT_FILES)
    return source


def is_adapter(reference: str) -> bool:
    """True if a reference names an adapter, and no full model."""
    return (find_folder(reference) / CONFIG).is_file()


def fused_base(folder: Path) -> str | None:
    """The base of a fused model from its merge.json; for other models from the hub's card."""
    record = read_provenance(folder)
    name = front_matter(folder).get("base_model")
    if record:
        name = record["base"]["name"]
    if isinstance(name, str):
        return name
    return None


def check_file(
    out: Path, source: ExportSource, beginning: bytes, *, force: bool, changes: Changes = tuple
) -> Path:
    """Resolve `out`; `RequestError` if it is a folder, lies in an input, or exists.

    `force` replaces a file of the same format, which has the same `beginning`. `changes` are those of the
    state of an existing file, for the message.
    """
    target = check_outside(out, source.folders)
    if target.is_dir():
        raise RequestError(_("{path}: a folder; expected the name of a file", path=out))
    same_kind = begins_with(target, beginning)
    check_free(out, force=force, replaceable=same_kind, changes=changes)
    if target.exists() and not same_kind:
        raise RequestError(
            _(
                "{path}: found a file that does not begin with {magic}: --force will not replace it; "
                "choose another --out",
                path=out,
                magic=beginning.decode().strip(),
            )
        )
    return target


def begins_with(path: Path, beginning: bytes) -> bool:
    """True if `path` is a file with these first bytes."""
    if not path.is_file():
        return False
    with open_regular(path) as file:
        return file.read(len(beginning)) == beginning


def check_gguf(path: Path, source: ExportSource) -> None:
    """`RequestError` for another file than a GGUF, or for one that `--to gguf` wrote from something else.

    A file of another program names no source, and is taken.
    """
    if not begins_with(path, GGUF):
        raise RequestError(_("--gguf {path}: no GGUF file there; make it with --to gguf", path=path))
    with open_regular(path) as file:
        header = file.read(GGUF_HEAD)
    if MADE_OF.encode() in header and source.digest.encode() not in header:
        raise RequestError(
            _(
                "--gguf {path}: not made from {folder} as it is now; make it again: --to gguf --force",
                path=path,
                folder=source.folder,
            )
        )


def is_made_of(path: Path, digest: str) -> bool:
    """True for a GGUF that this command wrote from the files of a digest."""
    if not begins_with(path, GGUF):
        return False
    with open_regular(path) as file:
        return digest.encode() in file.read(GGUF_HEAD)


def gguf_fields(path: Path) -> dict[str, str | int]:
    """The texts and numbers at the beginning of a GGUF, where its `general.…` fields are; {} without any."""
    with open_regular(path) as file:
        head = file.read(GGUF_HEAD)
    fields: dict[str, str | int] = {}
    position = len(GGUF) + struct.calcsize(_GGUF_COUNTS)
    with contextlib.suppress(struct.error, UnicodeDecodeError):  # the end of what was read, or no GGUF
        while head.startswith(GGUF):
            key, position = _gguf_text(head, position)
            (kind,) = struct.unpack_from("<I", head, position)
            position += 4
            if kind == _GGUF_STRING:
                fields[key], position = _gguf_text(head, position)
            elif kind == _GGUF_UINT32:
                (fields[key],) = struct.unpack_from("<I", head, position)
                position += 4
            else:
                break
    return fields


def _gguf_text(head: bytes, position: int) -> tuple[str, int]:
    """A text of a GGUF, and the position after it."""
    (length,) = struct.unpack_from("<Q", head, position)
    (text,) = struct.unpack_from(f"{min(length, GGUF_HEAD)}s", head, position + 8)
    return text.decode(), position + 8 + length


def front_matter(folder: Path) -> dict[str, object]:
    """The YAML at the top of README.md, {} if there is none; `ContentError` names a damaged line.

    huggingface_hub's `ModelCard` names no line, and fails without a message on YAML that is nested too deep.
    """
    card = folder / CARD
    if not card.is_file():
        return {}
    return parse_front_matter(read_text(card, "replace"), card)


def parse_front_matter(text: str, place: Path) -> dict[str, object]:
    """The YAML at the top of the text of a card, as `front_matter`."""
    opening, _unused, rest = text.partition("---\n")
    if opening:
        return {}
    # The empty line counts for the first `---`, so that errors name the card's own lines.
    fields = parse_yaml("\n" + rest.partition("\n---")[0], str(place)).value
    if not isinstance(fields, dict):
        return {}
    return fields


def licence_of(source: ExportSource) -> tuple[dict[str, str], Path] | None:
    """The base's licence as fields of a hub card, with the file that has it; None if no file has it.

    The fields are `license`, and for a licence without an id on the hub (`other`) `license_name` and
    `license_link`.
    """
    for folder in reversed(source.folders):
        card = front_matter(folder)
        fields: dict[str, str] = {}
        for key in LICENCE:
            value = card.get(key)
            if isinstance(value, str):
                fields[key] = value
        licence = fields.get("license", "unknown")
        # LLaMA-Factory writes `other` without a name next to everything that it trains.
        is_unnamed = licence == "other" and "license_name" not in fields
        if licence != "unknown" and not is_unnamed:
            return fields | {"license": licence.lower()}, folder / CARD
        for file in (ORIGIN, "config.json"):
            if not (folder / file).is_file():
                continue
            record = read_object(folder / file)
            for key in ("licence", "license"):
                if isinstance(record.get(key), str):
                    return {"license": str(record[key]).lower()}, folder / file
    return None
