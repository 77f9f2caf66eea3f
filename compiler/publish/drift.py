"""Check that the file and the entry of a compiled dataset still match its manifest."""

import shlex
from pathlib import Path

from tuneyard.compiler.publish.registry import changed_entry, compiled_entries
from tuneyard.core.datasets import REGISTRY, Dataset
from tuneyard.core.datasets.manifest import Manifest, Manifests
from tuneyard.core.errors import Problem
from tuneyard.core.files import Moved, sha256


def compile_again(manifest: Manifest) -> str:
    """Name the command that compiles a dataset from the same spec and the sources of its options."""
    words = ["tuneyard", "data", "compile", manifest.spec]
    for source in manifest.sources:
        if source.is_named:
            words += ["--source", f"{source.split}={source.path}"]
    return f"`{shlex.join(words)}` writes it again"


def since_compiled(
    dataset: Dataset,
    out: Path,
    manifests: Manifests,
    read_sha256: str = "",
    moved: Moved | None = None,
) -> list[Problem] | None:
    """How file and entry of a dataset differ from a compile's manifest, None if no manifest lists either.

    `read_sha256` is the hash of the bytes that a reader took from the file. If it differs, the whole file is
    read: the reader may have stopped early. `moved` gets the number of bytes read, for a progress bar.
    """
    is_compiled = False
    problems: list[Problem] = []
    for folder, manifest in manifests.items():
        hint = compile_again(manifest)
        path = dataset.path
        if path.parent == out / folder and path.name in manifest.files:
            is_compiled = True
            compiled_file = manifest.files[path.name]
            same = compiled_file.sha256
            if not path.exists():
                problems.append(Problem("E431", str(path), "the compiled file is missing", hint=hint))
            elif not path.is_file() or (read_sha256 != same and sha256(path, moved) != same):
                message = f"the file has changed since it was compiled (with {compiled_file.rows} rows)"
                problems.append(Problem("E431", str(path), message, hint=hint))
        compiled = compiled_entries(folder, manifest).get(dataset.name)
        if compiled:
            is_compiled = True
            problems += changed_entry(str(out / REGISTRY), dataset.name, dataset.entry, compiled, hint)
    return problems if is_compiled else None
