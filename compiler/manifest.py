"""manifest.json: what a compiled dataset was made of and what it holds; without clock time."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from compiler.entries import entries_of
from compiler.request import CompileReport, CompileRequest
from compiler.sources import RAW, Input
from compiler.spec import MANIFEST, Spec
from compiler.specfile import PACKAGE
from core.checkout import version
from core.errors import RequestError
from core.files import read_object, sha256, versions, write_json

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
    own = [each for each in listed if each["split"] not in named and not _found_without(spec, each["path"])]
    for each in own:
        if not Path(each["path"]).is_file():
            raise RequestError(
                f"{path}: {spec.name} was compiled from {each['path']}, which is gone: "
                "say where it is now with --source PATH"
            )
    return tuple(f"{each['split']}={each['path']}" for each in own)


def _found_without(spec: Spec, path: str) -> bool:
    """Whether a source is of a hub or of data/raw/NAME, where the next compile looks by itself."""
    return "://" in path or Path(path).is_relative_to(RAW / spec.name)
