"""manifest.json: what a compiled dataset was made of and what it holds; without clock time."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from compiler.entries import entries_of
from compiler.request import CompileReport, CompileRequest
from compiler.sources import Input
from compiler.spec import MANIFEST, Spec
from compiler.specfile import PACKAGE
from core.checkout import version
from core.files import sha256, versions, write_json

Identity = dict[str, object]
PACKAGES = ("jsonschema-rs", "lxml", "orjson", "pyarrow", "zstandard")


def identify(spec: Spec, request: CompileRequest, inputs: Sequence[Input]) -> Identity:
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
            {"split": found.split, "path": found.shown, "sha256": found.sha256()} for found in inputs
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
    return all(
        (folder / name).is_file() and sha256(folder / name) == about["sha256"]
        for name, about in files.items()
    )


def seal(spec: Spec, identity: Identity, report: CompileReport, staged: Path) -> None:
    """Write the manifest into a staged dataset; it is what makes the folder a compiled dataset."""
    there = {name: entry for name, entry in entries_of(spec, spec.splits).items() if name in report.datasets}
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
        "tuneyard": version(),  # beside the identity: a commit elsewhere makes no dataset stale
    }
    write_json(staged / MANIFEST, manifest)
