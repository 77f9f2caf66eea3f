"""Entries of compiled datasets in a registry, and changes that were made in them by hand."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from tuneyard.core.datasets.manifest import Entry, Manifest
from tuneyard.core.errors import ContentError, Problem, show_value

COMPILED_KEYS = ("file_name", "formatting", "ranking", "columns", "tags")
"""The keys of an entry that a compile writes. Any other key was added by hand, and stays as it is."""
_ABSENT = object()


def folder_of(entry: Entry) -> str:
    """First folder of an entry's `file_name`, "" if it names none."""
    file_name = entry.get("file_name")
    parts = PurePosixPath(file_name).parts if isinstance(file_name, str) else ()
    return parts[0] if len(parts) > 1 else ""


def compiled_entries(folder: str, manifest: Manifest) -> dict[str, Entry]:
    """Entries that a compile registered. A copied folder has none, since they name the original's files."""
    return {name: entry for name, entry in manifest.entries.items() if folder_of(entry) == folder}


def with_compiled(
    entries: Mapping[str, Entry], manifests: Mapping[str, Manifest], name: str = ""
) -> dict[str, Entry]:
    """Entries with those of the compiled datasets of `manifests` (by folder). Each keeps its place.

    Missing entries are added, and entries of files that no compile has any more are dropped. The entries of
    the folder `name` get the keys of its compile. All others stay as they are.
    """
    registered: dict[str, Entry] = {}
    compiled_now = compiled_entries(name, manifests[name]) if name in manifests else {}
    for dataset, entry in entries.items():
        folder = folder_of(entry)
        if dataset in compiled_now and folder == name:
            compiled = compiled_now[dataset]
            kept = {key: value for key, value in entry.items() if key in compiled or key not in COMPILED_KEYS}
            registered[dataset] = kept | compiled
            continue
        file_name = PurePosixPath(str(entry.get("file_name"))).name
        if folder not in manifests or file_name in manifests[folder].files:
            registered[dataset] = entry
    for folder, manifest in manifests.items():
        of_folder = compiled_entries(folder, manifest)
        registered |= {dataset: entry for dataset, entry in of_folder.items() if dataset not in entries}
    return registered


def refuse_taken(
    place: str,
    entries: Mapping[str, Entry],
    manifests: Mapping[str, Manifest],
    folder: str,
    datasets: Iterable[str],
) -> None:
    """Refuse dataset names whose entries are of another folder, or of a user's own file."""
    for dataset in datasets:
        registered = entries.get(dataset)
        if registered is None or folder_of(registered) == folder:
            continue
        fix = "rename one of the two"
        other = folder_of(registered)
        if other in manifests:
            fix = f"`tuneyard data remove {other}` first, or give another --out"
        taken = f"the dataset name {dataset!r} is taken by {registered.get('file_name')!r}"
        raise ContentError(f"{place}: {taken}: {fix}")


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
