"""Whether a compiled dataset is still what its manifest says: bytes of files, registry entries."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard, cast

from tuneyard.compiler.spec.model import MANIFEST
from tuneyard.core.errors import Problem, show_value
from tuneyard.core.files import read_json, sha256

Entry = dict[str, object]
Manifest = dict[str, Any]
COMPILED_KEYS = ("file_name", "formatting", "ranking", "columns", "tags")
"""The keys of an entry that a compile writes. Any other key was added by hand, and stays as it is."""
_ABSENT = object()


def read_manifests(folder: Path) -> dict[str, Manifest]:
    """Read the manifests of the compiled datasets in a folder, by name; `ContentError` if one is broken.

    Other tools write files of this name too (next to images, say): those are left out.
    """
    paths = sorted(folder.glob(f"[!.]*/{MANIFEST}"))
    contents = {path.parent.name: read_json(path) for path in paths}
    return {name: content for name, content in contents.items() if _is_manifest(content)}


def _is_manifest(content: object) -> TypeGuard[Manifest]:
    """Whether the JSON value of a file called manifest.json is what a compile writes."""
    if not isinstance(content, dict):
        return False
    made_from = content.get("made_from")
    return isinstance(made_from, dict) and isinstance(made_from.get("sources"), list)


def compiled_entries(folder: str, manifest: Manifest) -> dict[str, Entry]:
    """Entries that a compile registered; a copied folder has none, since they name the original's files."""
    entries = cast("dict[str, Entry]", manifest.get("entries") or {})
    return {name: entry for name, entry in entries.items() if folder_of(entry) == folder}


def folder_of(entry: Entry) -> str:
    """First folder of an entry's `file_name`, "" if it names none."""
    file_name = entry.get("file_name")
    parts = PurePosixPath(file_name).parts if isinstance(file_name, str) else ()
    return parts[0] if len(parts) > 1 else ""


def compile_again(folder: str, manifest: Manifest) -> str:
    """Name the command that compiles a dataset as it was: its spec and its local sources."""
    made_from = manifest.get("made_from")
    sources = made_from.get("sources", ()) if isinstance(made_from, dict) else ()
    several = len({source["split"] for source in sources}) > 1
    words = ["tuneyard", "data", "compile", folder]
    for source in sources:
        if "://" not in source["path"]:
            words += ["--source", f"{source['split']}={source['path']}" if several else source["path"]]
    return f"`{shlex.join(words)}` writes it again"


def changed_file(
    path: Path, manifest: Manifest, moved: Callable[[int], None] | None = None
) -> Problem | None:
    """E431 if a file is missing or its bytes are not those that the compile wrote.

    `moved` is told of the bytes read, for a progress bar. None also for a file that the manifest does not
    list.
    """
    files = manifest.get("files")
    compiled = files.get(path.name) if isinstance(files, dict) else None
    if not isinstance(compiled, dict):
        return None
    hint = compile_again(path.parent.name, manifest)
    if not path.is_file():
        return Problem("E431", str(path), "the compiled file is missing", hint=hint)
    if sha256(path, moved) == compiled.get("sha256"):
        return None
    rows = compiled.get("rows")
    message = f"the file has changed since it was compiled (with {rows} rows)"
    return Problem("E431", str(path), message, hint=hint)


def changed_entry(place: str, name: str, entry: Entry, compiled: Entry, hint: str = "") -> Iterator[Problem]:
    """Yield E432 for each part of a registry entry that differs from what the compile registered.

    Keys that a user added (`num_samples`, `split`, …) are no difference. `place` is the registry's path.
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
