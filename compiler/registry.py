"""dataset_info.json: the entries of compiled sets, and how a set is published, repaired and removed.

A folder with a manifest.json is a compiled set, and its entries are those that the manifest names for
files of this folder: a copied folder has none. In them the keys of `OWN` are the compiler's, and what a user
added stays. Every other entry was written by hand and stays as it is.
"""

import shutil
from pathlib import Path, PurePosixPath
from typing import cast

from compiler.spec import MANIFEST, QUARANTINE, Output, Spec
from core.datasets import REGISTRY, read_registry
from core.errors import ContentError, RequestError
from core.examples import examples_file
from core.files import OURS, locked, publish, read_object, recover, sync_folder, write_json

Entry = dict[str, object]
OWN = ("file_name", "formatting", "columns", "tags")


def entry_of(spec: Spec, output: Output, file_name: str) -> Entry:
    """Return the registry entry of a dataset, with complete `columns` (and `tags`) for LLaMA-Factory."""
    entry: Entry = {"file_name": file_name, "formatting": "sharegpt"}
    names = {column.name for column in spec.columns} | set(output.templates)
    extras: tuple[str, ...]
    if output.format == "alpaca":
        entry["formatting"] = "alpaca"
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        extras = ("system",) if "system" in output.templates else ()
        extras += ("history",) if output.turns == "history" else ()
    elif output.format == "text":
        return {"file_name": file_name, "formatting": "alpaca", "columns": {"prompt": output.field}}
    else:
        columns = {"messages": output.field}
        wanted = ("system", "tools") if output.format == "sharegpt" else ("tools",)
        extras = tuple(name for name in wanted if name in names)
        entry["tags"] = _SHAREGPT if output.format == "sharegpt" else _MESSAGES
    entry["columns"] = columns | {name: name for name in extras}
    return entry


_SHAREGPT = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
_MESSAGES = _SHAREGPT | {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
}


def put_in_place(staged: Path, target: Path) -> None:
    """Publish a staged set and then register it, under the folder's lock."""
    with locked(target.parent):
        _repair(target.parent)
        _refuse_foreign(target, {path.name for path in staged.iterdir()})
        _refuse_taken_names(target, cast("dict[str, Entry]", read_object(staged / MANIFEST)["entries"]))
        publish(staged, target)
        _repair(target.parent)


def repair(out: Path) -> None:
    """Finish what a killed command left: interrupted publications, entries not yet written."""
    if out.is_dir():
        with locked(out):
            _repair(out)


def check_names(target: Path, entries: dict[str, Entry]) -> None:
    """Refuse early what `put_in_place` would refuse: a broken registry, foreign files, taken names."""
    read_registry(target.parent)
    files = [Path(str(entry["file_name"])) for entry in entries.values()]
    _refuse_foreign(target, {path.name for file in files for path in (file, examples_file(file))})
    _refuse_taken_names(target, entries)


def remove(target: Path) -> list[str]:
    """Unregister a compiled set and delete its folder; returns the dataset names that are gone."""
    out = target.parent
    if not (target / MANIFEST).is_file():
        raise RequestError(f"{target}: no compiled set (no {MANIFEST} in it); nothing was removed")
    _refuse_foreign(target, set())
    with locked(out):
        _repair(out)
        names = list(entries_in(target))
        registry = read_registry(out)
        write_json(out / REGISTRY, {k: v for k, v in registry.items() if k not in names}, ascii_only=True)
        gone = target.with_name(f".{target.name}.{OURS}old")
        target.rename(gone)
        sync_folder(out)
        shutil.rmtree(gone)
    return names


def compiled(out: Path) -> dict[str, Path]:
    """Return the compiled sets under a folder: name → folder, by name."""
    return {path.parent.name: path.parent for path in sorted(out.glob(f"[!.]*/{MANIFEST}"))}


def entries_in(folder: Path) -> dict[str, Entry]:
    """Return the entries of a compiled set: those of its manifest that name files of this very folder."""
    path = folder / MANIFEST
    entries = read_object(path).get("entries") if path.is_file() else None
    found = cast("dict[str, Entry]", entries or {})
    return {name: entry for name, entry in found.items() if _folder_of(entry) == folder.name}


def _repair(out: Path) -> None:
    recover(out)
    registry = read_registry(out)
    sets = compiled(out)
    wanted = {
        k: v for k, v in registry.items() if _folder_of(v) not in sets or (out / str(v["file_name"])).exists()
    }
    for folder in sets.values():
        for name, entry in entries_in(folder).items():
            there = registry.get(name, entry)
            if _folder_of(there) == folder.name:  # else the name was given by hand to something else
                wanted[name] = {k: v for k, v in there.items() if k in entry or k not in OWN} | entry
    if wanted != registry:
        ordered = {
            k: wanted[k]
            for k in [*(k for k in registry if k in wanted), *(k for k in wanted if k not in registry)]
        }
        write_json(out / REGISTRY, ordered, ascii_only=True)


def _folder_of(entry: Entry) -> str:
    file_name = entry.get("file_name")
    parts = PurePosixPath(file_name).parts if isinstance(file_name, str) else ()
    return parts[0] if len(parts) > 1 else ""


def _refuse_foreign(target: Path, written: set[str]) -> None:
    """Refuse a set's folder that is a link or holds what no compile wrote: publishing replaces it whole.

    Beside a manifest, what it names is a compile's, and what this compile writes under the same names.
    """
    if target.is_symlink():
        raise RequestError(f"{target}: a link; compile replaces the whole folder: give another --out")
    if not target.exists():
        return
    if not target.is_dir():
        raise RequestError(f"{target}: a file, where the folder of the set has to be: give another --out")
    ours: set[str] = set()
    if (target / MANIFEST).is_file():
        files = read_object(target / MANIFEST).get("files")
        ours = {MANIFEST, QUARANTINE, *written, *(files if isinstance(files, dict) else ())}
    foreign = sorted(path.name for path in target.iterdir() if path.name not in ours)
    if foreign:
        shown = ", ".join(foreign[:3]) + (" …" if len(foreign) > 3 else "")
        raise RequestError(
            f"{target}: holds {len(foreign)} files that compile did not make ({shown}), and compile "
            "replaces the whole folder: move them, or give another --out"
        )


def _refuse_taken_names(target: Path, entries: dict[str, Entry]) -> None:
    registry = read_registry(target.parent)
    for name in entries:
        if name in registry and _folder_of(registry[name]) != target.name:
            other = registry[name].get("file_name")
            where = target.parent / REGISTRY
            raise ContentError(
                f"{where}: the dataset name {name!r} is taken by {other!r}: rename one of the two"
            )
