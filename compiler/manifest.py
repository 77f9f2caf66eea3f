"""manifest.json: what a compiled dataset was made of and what it holds; and what `list` tells of it."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from compiler.entries import entries_of
from compiler.registry import Registry
from compiler.request import COUNTED, CompileReport, CompileRequest
from compiler.sources import RAW, Input
from compiler.spec import MANIFEST, Spec, load_spec
from compiler.specfile import PACKAGE, known_specs
from core.checkout import version
from core.errors import ContentError, RequestError
from core.files import read_object, sha256, versions, write_json

Identity = dict[str, object]
PACKAGES = ("jsonschema-rs", "lxml", "orjson", "pyarrow", "zstandard")
# what LLaMA-Factory's entries name beside `file_name`
HUBS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


def identify(spec: Spec, request: CompileRequest, inputs: Sequence[Input], hashes: Sequence[str]) -> Identity:
    """Return everything that decides what a compile writes: equal identities, equal bytes."""
    return {
        "spec": spec.name,
        "definition": spec.raw,
        "over": request.over,
        "limit": request.limit,
        "seed": request.seed,
        "duplicates": request.duplicates,
        "on_error": "reject" if request.reject else "fail",
        "sources": [
            {"split": one.split, "path": one.shown, "sha256": digest}
            for one, digest in zip(inputs, hashes, strict=True)
        ],
        "compiler": own_hash(),
        "versions": {"python": sys.version.split()[0], **versions(*PACKAGES)},
    }


@cache
def own_hash() -> str:
    """Return one hash over the compiler's own source: a changed compiler makes sets stale."""
    digest = hashlib.sha256()
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.glob("schemas/*.json")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_whole(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Tell whether a compiled dataset is what its manifest says: no file of it is gone or has changed."""
    files = manifest.get("files")
    if "made_from" not in manifest or not isinstance(files, dict):
        return False
    hashes = {folder / name: about["sha256"] for name, about in files.items()}
    return all(path.is_file() and sha256(path) == known for path, known in hashes.items())


def seal(spec: Spec, identity: Identity, report: CompileReport, staged: Path) -> None:
    """Write the manifest into a staged dataset; it is what makes the folder a compiled dataset."""
    there = {name: entry for name, entry in entries_of(spec, spec.splits).items() if name in report.datasets}
    manifest = {
        "about": spec.about,
        "counts": {**{name: getattr(report, name) for name in COUNTED}, "records": report.datasets},
        "problems": dict(sorted(report.problems.counts.items())),
        "first_problems": report.problems.first(),
        "notes": report.notes,
        "not_used": report.unused.counts(),
        "fit": report.fit,
        "cluster": spec.group,
        "files": report.files,
        "entries": there,
        "made_from": identity,
        "tuneyard": version(),  # beside the identity: a commit elsewhere makes no dataset stale
    }
    write_json(staged / MANIFEST, manifest)


def sources_before(spec: Spec, folder: Path) -> tuple[str, ...]:
    """Return, as --source takes them, the files that a set was compiled from and that its spec does not find.

    None where it was not compiled here. `RequestError` where one is gone: the others are not the whole set.
    """
    path = folder / spec.name / MANIFEST
    named = spec.source.files
    if not path.is_file() or (named and not spec.mix):
        return ()
    made_from = read_object(path).get("made_from")
    listed = made_from.get("sources", []) if isinstance(made_from, dict) else []
    files = [(each["split"], Path(each["path"])) for each in listed if "://" not in each["path"]]
    # what is in data/raw/NAME, as what is on a hub, the next compile finds by itself
    own = [one for one in files if one[0] not in named and not one[1].is_relative_to(RAW / spec.name)]
    if gone := [file for _, file in own if not file.is_file()]:
        fix = "say where it is now with --source PATH"
        raise RequestError(f"{path}: {spec.name} was compiled from {gone[0]}, which is gone: {fix}")
    return tuple(f"{split}={file}" for split, file in own)


def spec_lines() -> list[str]:
    """Return one line for each spec: its name and what it is about."""
    specs = [load_spec(name) for name in known_specs()]
    width = max(len(spec.name) for spec in specs)
    return [f"{spec.name:{width}}  {spec.about}" for spec in specs]


def registered_lines(out: Path) -> list[str]:
    """Return a line for each dataset of a registry: compiled ones (rows, spec, when, stale), then others."""
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
