"""manifest.json: what a compiled set was made of and what it holds; without clock time."""

import hashlib
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from compiler.registry import Entry, entry_of
from compiler.request import Report, Request
from compiler.sources import Input
from compiler.spec import MANIFEST, Spec
from compiler.specfile import ROOM
from core.errors import ContentError
from core.files import read_object, sha256, versions, write_json

Identity = dict[str, object]
PACKAGES = ("jsonschema-rs", "lxml", "orjson", "pyarrow", "zstandard")


def entries(spec: Spec, splits: Sequence[str]) -> dict[str, Entry]:
    """Return the registry entries of these splits of a spec, by dataset name."""
    found = {}
    for split in splits:
        for output in spec.outputs:
            if output.dataset:
                file_name = f"{spec.name}/{output.file.format(split=split)}"
                found[output.dataset.format(split=split)] = entry_of(spec, output, file_name)
    return found


def identify(spec: Spec, request: Request, inputs: Sequence[Input]) -> Identity:
    """Return everything that decides what a compile writes: equal identities, equal bytes."""
    return {
        "spec": spec.name,
        "definition": spec.raw,
        "over": request.over,
        "limit": request.limit,
        "seed": request.seed,
        "duplicates": request.duplicates,
        "on_error": "quarantine" if request.quarantine else "fail",
        "sources": [
            {"split": found.split, "path": found.shown, "sha256": found.sha256()} for found in inputs
        ],
        "compiler": own_hash(),
        "versions": {"python": sys.version.split()[0], **versions(*PACKAGES)},
    }


@cache
def own_hash() -> str:
    """Return one hash over the compiler's own source: a changed compiler makes sets stale."""
    digest = hashlib.sha256()
    for path in sorted([*ROOM.rglob("*.py"), *ROOM.glob("schemas/*.json")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def read_standing(target: Path) -> dict[str, object] | None:
    """Return the manifest of the set at `target`, or None where there is none or a file of it has changed."""
    path = target / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = read_object(path)
    except ContentError:
        return None
    files = manifest.get("files")
    if "made_from" not in manifest or not isinstance(files, dict):
        return None
    whole = all(
        (target / name).is_file() and sha256(target / name) == about["sha256"]
        for name, about in files.items()
    )
    return manifest if whole else None


def seal(spec: Spec, identity: Identity, report: Report, staged: Path) -> None:
    """Write the manifest into a staged set; it is what makes the folder a compiled set."""
    there = {name: entry for name, entry in entries(spec, spec.splits).items() if name in report.datasets}
    manifest = {
        "about": spec.about,
        "counts": {
            "read": report.read,
            "kept": report.kept,
            "dropped": report.dropped,
            "rejected": report.rejected,
            "not_sampled": report.not_sampled,
            "records": report.datasets,
        },
        "problems": dict(sorted(report.problems.counts.items())),
        "first_problems": report.problems.first(),
        "notes": report.notes,
        "not_used": report.unused.counts(),
        "fit": report.fit,
        "cluster": spec.group,
        "files": report.files,
        "entries": there,
        "made_from": identity,
    }
    write_json(staged / MANIFEST, manifest)
