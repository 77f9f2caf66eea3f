"""Check that the files of a compiled dataset still match its manifest."""

import shlex
from pathlib import Path

from tuneyard.core.datasets.manifest import Manifest
from tuneyard.core.errors import Problem
from tuneyard.core.files import Moved, sha256


def compile_again(folder: str, manifest: Manifest) -> str:
    """Name the command that compiles a dataset as it was: its spec and the sources it is told."""
    has_splits = len({source.split for source in manifest.sources}) > 1
    words = ["tuneyard", "data", "compile", folder]
    for source in manifest.sources:
        if source.is_named:
            option = f"{source.split}={source.path}" if has_splits else source.path
            words += ["--source", option]
    return f"`{shlex.join(words)}` writes it again"


def changed_file(path: Path, manifest: Manifest, moved: Moved | None = None) -> Problem | None:
    """E431 if a file is missing or its bytes have changed since the compile.

    `moved` gets the number of bytes read, for a progress bar. None also for a file that the manifest does not
    list.
    """
    compiled = manifest.files.get(path.name)
    if compiled is None:
        return None
    hint = compile_again(path.parent.name, manifest)
    if not path.exists():
        return Problem("E431", str(path), "the compiled file is missing", hint=hint)
    if path.is_file() and sha256(path, moved) == compiled.sha256:
        return None
    message = f"the file has changed since it was compiled (with {compiled.rows} rows)"
    return Problem("E431", str(path), message, hint=hint)
