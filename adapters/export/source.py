"""What is exported: a fused model's folder or an adapter's, with its base and the base's licence."""

from dataclasses import dataclass
from pathlib import Path

from adapters.config import CONFIG
from adapters.store import Adapter, find_folder, name_of, open_adapter
from core.documents import parse_yaml
from core.errors import RequestError
from core.files import read_object, require

ORIGIN = "origin.json"  # written by `python -m recipes base` beside the embedded model
LICENCE = ("license", "license_name", "license_link")  # of a hub card


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A checked folder: `adapter` is None for a whole model, `base` the base's folder where it is local."""

    folder: Path
    adapter: Adapter | None
    base: Path | None

    @property
    def name(self) -> str:
        """The folder's name, a checkpoint's with that of its run before it."""
        return name_of(self.folder)

    @property
    def config(self) -> dict[str, object] | None:
        """config.json of the model, or of an adapter's base; None where the base is not local."""
        folder = self.base if self.adapter else self.folder
        return read_object(folder / "config.json") if folder else None


def open_source(reference: str, base: Path | None) -> ExportSource:
    """Open an adapter (a NAME under saves/ or a folder) or a model folder.

    `base` overrides where the adapter's config says that its base lies. `RequestError` where the
    folder is neither; `ContentError` where the adapter is damaged.
    """
    folder = find_folder(reference)
    if base:
        require(base / "config.json", "config of the base model (--base)")
    if (folder / CONFIG).is_file():
        adapter = open_adapter(folder)
        return ExportSource(folder, adapter, base or _local(adapter.base))
    if (folder / "config.json").is_file():
        return ExportSource(folder, None, base or _local(front_matter(folder).get("base_model")))
    inside = sorted(path.parent.name for path in folder.glob(f"checkpoint-*/{CONFIG}"))
    hint = f" (but {', '.join(inside)} in it)" if inside else ""
    raise RequestError(f"{folder}: neither {CONFIG} nor config.json: no adapter and no model{hint}")


def _local(name: object) -> Path | None:
    found = isinstance(name, str) and (Path(name) / "config.json").is_file()
    return Path(str(name)) if found else None


def front_matter(folder: Path) -> dict[str, object]:
    """Return the YAML between the `---` lines that open README.md, {} where there is none."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    opening, _, rest = text.partition("---\n")
    if opening:
        return {}
    fields = parse_yaml("\n" + rest.partition("\n---")[0], str(card)).value  # its lines are the card's
    return fields if isinstance(fields, dict) else {}


def licence_of(source: ExportSource) -> tuple[dict[str, str], Path] | None:
    """Return the base's licence in the fields of a hub card, and the file that says so; None where none does.

    The fields are `license`, and where the hub has no id for it (`other`) `license_name` and `license_link`.
    """
    for folder in (source.base, source.folder):
        if folder is None:
            continue
        card = front_matter(folder)
        found = {key: value for key in LICENCE if isinstance(value := card.get(key), str)}
        # `other` without a name says nothing: LLaMA-Factory writes it beside all that it trains.
        nothing = {"unknown"} if "license_name" in found else {"unknown", "other"}
        if "license" in found and found["license"] not in nothing:
            return {**found, "license": found["license"].lower()}, folder / "README.md"
        for file in (ORIGIN, "config.json"):
            fields = read_object(folder / file) if (folder / file).is_file() else {}
            for key in ("licence", "license"):
                if isinstance(fields.get(key), str):
                    return {"license": str(fields[key]).lower()}, folder / file
    return None
