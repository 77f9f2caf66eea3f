"""Check that a compiled dataset still matches its manifest: bytes of files, registry entries."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from tuneyard.core.errors import Problem, show_value
from tuneyard.core.files import sha256
from tuneyard.core.manifest import MANIFEST, Manifest, read_manifest

Entry = dict[str, object]
COMPILED_KEYS = ("file_name", "formatting", "ranking", "columns", "tags")
"""The keys of an entry that a compile writes. Any other key was added by hand, and stays as it is."""
_ABSENT = object()


def read_manifests(folder: Path) -> dict[str, Manifest]:
    """Read the manifests of the compiled datasets in a folder, by name; `ContentError` if one is broken.

    Other tools write files of this name too (e.g. next to images). They are left out.
    """
    manifests: dict[str, Manifest] = {}
    for path in sorted(folder.glob(f"[!.]*/{MANIFEST}")):
        manifest = read_manifest(path.parent)
        if manifest is not None and manifest.is_of_compile:
            manifests[path.parent.name] = manifest
    return manifests


def compiled_entries(folder: str, manifest: Manifest) -> dict[str, Entry]:
    """Entries that a compile registered; a copied folder has none, since they name the original's files."""
    return {name: entry for name, entry in manifest.entries.items() if folder_of(entry) == folder}


def folder_of(entry: Entry) -> str:
    """First folder of an entry's `file_name`, "" if it names none."""
    file_name = entry.get("file_name")
    parts = PurePosixPath(file_name).parts if isinstance(file_name, str) else ()
    return parts[0] if len(parts) > 1 else ""


def compile_again(folder: str, manifest: Manifest) -> str:
    """Name the command that compiles a dataset as it was: its spec and its local sources."""
    has_splits = len({source.split for source in manifest.sources}) > 1
    words = ["tuneyard", "data", "compile", folder]
    for source in manifest.sources:
        if source.is_local:
            words += ["--source", f"{source.split}={source.path}" if has_splits else source.path]
    return f"`{shlex.join(words)}` writes it again"


def changed_file(
    path: Path, manifest: Manifest, moved: Callable[[int], None] | None = None
) -> Problem | None:
    """E431 if a file is missing or its bytes have changed since the compile.

    `moved` gets the number of bytes read, for a progress bar. None also for a file that the manifest does not
    list.
    """
    compiled = manifest.files.get(path.name)
    if compiled is None:
        return None
    hint = compile_again(path.parent.name, manifest)
    if not path.is_file():
        return Problem("E431", str(path), "the compiled file is missing", hint=hint)
    if sha256(path, moved) == compiled.sha256:
        return None
    message = f"the file has changed since it was compiled (with {compiled.rows} rows)"
    return Problem("E431", str(path), message, hint=hint)


def changed_entry(place: str, name: str, entry: Entry, compiled: Entry, hint: str = "") -> Iterator[Problem]:
    """Yield E432 for each part of a registry entry that differs from what the compile registered.

    Keys that a user added (`num_samples`, `split`, …) do not count. `place` is the registry's path.
    """
    for key in COMPILED_KEYS:
        values, expected = entry.get(key, _ABSENT), compiled.get(key, _ABSENT)
        for field, value, expected_value in _parts(key, values, expected):
            if value != expected_value:
                message = f"{_shown(value)}, but the compile registered {_shown(expected_value)}"
                yield Problem("E432", f"{place}: {name}", message, field, hint)


def _parts(key: str, value: object, expected: object) -> Iterator[tuple[str, object, object]]:
    """Yield (field, value, expected value): each key of `columns` and `tags` by itself, other keys whole."""
    if not isinstance(value, Mapping) or not isinstance(expected, Mapping):
        yield key, value, expected
        return
    for name in dict.fromkeys([*expected, *value]):
        yield f"{key}.{name}", value.get(name, _ABSENT), expected.get(name, _ABSENT)


def _shown(value: object) -> str:
    return "nothing" if value is _ABSENT else show_value(value)
