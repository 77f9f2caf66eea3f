"""What is there: the specs that can be compiled and the datasets that are registered."""

from datetime import datetime
from pathlib import Path
from typing import Any

from compiler.manifest import own_hash
from compiler.registry import Registry
from compiler.spec import MANIFEST, load_spec
from compiler.specfile import known_specs
from core.errors import ContentError, RequestError
from core.files import sha256

HUBS = (
    "hf_hub_url",
    "ms_hub_url",
    "om_hub_url",
    "script_url",
    "cloud_file_name",
)  # of LLaMA-Factory's entries


def spec_lines() -> list[str]:
    """Return one line for each spec: its name and what it is about."""
    specs = [load_spec(name) for name in known_specs()]
    width = max(len(spec.name) for spec in specs)
    return [f"{spec.name:{width}}  {spec.about}" for spec in specs]


def registered_lines(out: Path) -> list[str]:
    """Return one line for each dataset of a registry, compiled ones first.

    Of those: name, records, spec, when, and why it is stale if it is. Of others: name and file or address.
    """
    lines, registry = [], Registry(out)
    others = dict(registry.entries)
    for name, manifest in registry.manifests.items():
        made = datetime.fromtimestamp((out / name / MANIFEST).stat().st_mtime).strftime("%Y-%m-%d %H:%M")
        copied = manifest["made_from"]["spec"] != name
        stale = "a copied folder, not registered" if copied else _stale(manifest["made_from"])
        mark = f"  stale: {stale}" if stale else ""
        records = manifest["counts"]["records"]
        lines += [f"{dataset}  {rows} rows  {name}  {made}{mark}" for dataset, rows in records.items()]
        others = {key: entry for key, entry in others.items() if key not in records}
    for dataset, entry in others.items():
        where = next((entry[key] for key in ("file_name", *HUBS) if entry.get(key)), "no file")
        lines.append(f"{dataset}  {where}  not compiled here")
    return lines


def _stale(made_from: dict[str, Any]) -> str:
    """Return what has changed since a set was made, or an empty string."""
    for source in made_from["sources"]:
        path = Path(source["path"])
        if "://" in source["path"]:  # of a hub: only a compile asks it
            continue
        if not path.is_file():
            return f"source {path} is gone"
        if sha256(path) != source["sha256"]:
            return f"source {path} has changed"
    if made_from["compiler"] != own_hash():
        return "the compiler has changed"
    try:
        changed = load_spec(made_from["spec"]).raw != made_from["definition"]
    except (ContentError, RequestError):  # a spec given by path, or one that is gone
        return ""
    return "the spec has changed" if changed else ""
