"""What is exported: a fused model's folder or an adapter's, with its base and the base's licence."""

from dataclasses import dataclass
from pathlib import Path

from tuneyard.adapters.card import CARD
from tuneyard.adapters.config import checkpoints_in
from tuneyard.adapters.output import check_free
from tuneyard.adapters.provenance import read_provenance
from tuneyard.adapters.store import Adapter, find_folder, open_adapter
from tuneyard.core.adapter_files import CONFIG
from tuneyard.core.documents import parse_yaml
from tuneyard.core.errors import RequestError
from tuneyard.core.files import read_object, require

ORIGIN = "origin.json"  # written by `python -m recipes base` beside the embedded model
GGUF, MODELFILE = b"GGUF", b"FROM "  # how the files begin that are written
LICENCE = ("license", "license_name", "license_link")  # of a hub card


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A checked folder: `adapter` is None for a whole model, `base` the base's folder where it is local."""

    folder: Path
    adapter: Adapter | None
    base: Path | None


def open_source(reference: str, base: Path | None) -> ExportSource:
    """Open an adapter (a NAME under saves/ or a folder) or a model folder; `base` overrides what they name.

    `RequestError` where the folder is neither; `ContentError` where the adapter is damaged.
    """
    folder = find_folder(reference)
    if base:
        require(base / "config.json", "config of the base model (--base)")
    if (folder / CONFIG).is_file():
        adapter = open_adapter(folder)
        named: object = adapter.lora.base
    elif (folder / "config.json").is_file():
        adapter, named = None, fused_base(folder)
    else:
        hint = checkpoints_in(folder)
        raise RequestError(f"{folder}: neither {CONFIG} nor config.json: no adapter and no model{hint}")
    if base is None and isinstance(named, str) and (Path(named) / "config.json").is_file():
        base = Path(named)
    return ExportSource(folder, adapter, base)


def fused_base(folder: Path) -> str | None:
    """The base of a fused model by its merge.json; of other models what the hub's card says."""
    record = read_provenance(folder)
    name = record["base"]["name"] if record else front_matter(folder).get("base_model")
    return name if isinstance(name, str) else None


def check_file(out: Path, source: ExportSource, beginning: bytes, *, force: bool) -> Path:
    """Return `out` resolved; `RequestError` if it is a folder, lies in an input, or is there already.

    With `force` a file of the same format is replaced, known by its `beginning`, and nothing else.
    """
    target = out.resolve()
    for folder in (source.folder, source.base):
        if folder and folder.resolve() in target.parents:
            raise RequestError(f"{out}: lies in an input ({folder}); choose another --out")
    if target.is_dir():
        raise RequestError(f"{out}: a folder; expected the name of a file")
    same_kind = begins_with(target, beginning)
    check_free(out, force=force, replaceable=same_kind)
    if target.exists() and not same_kind:
        raise RequestError(
            f"{out}: found a file that does not begin with {beginning.decode().strip()}: --force will not "
            "replace it; choose another --out"
        )
    return target


def begins_with(path: Path, beginning: bytes) -> bool:
    """Return whether `path` is a file whose first bytes are these."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(beginning)) == beginning


def front_matter(folder: Path) -> dict[str, object]:
    """Return the YAML between the `---` lines that open README.md, {} where there is none."""
    card = folder / CARD
    if not card.is_file():
        return {}
    opening, _, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    if opening:
        return {}
    # the empty line: its lines are the card's
    fields = parse_yaml("\n" + rest.partition("\n---")[0], str(folder / CARD)).value
    return fields if isinstance(fields, dict) else {}


def licence_of(source: ExportSource) -> tuple[dict[str, str], Path] | None:
    """Return the base's licence in the fields of a hub card, and the file that says so; None where none does.

    The fields are `license`, and where the hub has no id for it (`other`) `license_name` and `license_link`.
    """
    for folder in filter(None, (source.base, source.folder)):
        card = front_matter(folder)
        found = {key: value for key in LICENCE if isinstance(value := card.get(key), str)}
        # `other` without a name says nothing: LLaMA-Factory writes it beside all that it trains.
        nothing = {"unknown"} if "license_name" in found else {"unknown", "other"}
        if "license" in found and found["license"] not in nothing:
            return {**found, "license": found["license"].lower()}, folder / CARD
        for file in (ORIGIN, "config.json"):
            fields = read_object(folder / file) if (folder / file).is_file() else {}
            for key in ("licence", "license"):
                if isinstance(fields.get(key), str):
                    return {"license": str(fields[key]).lower()}, folder / file
    return None
