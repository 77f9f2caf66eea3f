"""dataset_info.json and the compiled datasets beside it: opened once by a command, checked, published.

A folder with a manifest.json is a compiled dataset, and its entries are those that the manifest names for
files of this folder: a copied folder has none. In them the keys of `OWN` are the compiler's, and what a user
added stays. Every other entry was written by hand and stays as it is.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, cast

from compiler.entries import Entry
from compiler.spec import MANIFEST, REJECTED, REJECTED_BEFORE
from core.datasets import REGISTRY, read_registry
from core.errors import ContentError, RequestError, nearest
from core.examples import examples_file
from core.files import OURS, locked, publish, read_object, recover, sync_folder, write_json

OWN = ("ranking", "file_name", "formatting", "columns", "tags")
Manifest = dict[str, Any]


class Registry:
    """The registry of a folder: its `entries` by name and the `manifests` of the compiled datasets by name.

    Opening it finishes what a killed command left: interrupted publications, entries not yet written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.is_dir():
            with locked(folder):
                self._read()
        else:
            self.entries, self.manifests = read_registry(folder), dict[str, Manifest]()

    def check(self, name: str, entries: dict[str, Entry], files: Iterable[str] = ()) -> None:
        """Refuse taken names, and a folder with more in it than compiles wrote or would write."""
        written = [Path(str(entry["file_name"])) for entry in entries.values()]
        beside = [path.name for file in written for path in (file, examples_file(file))]
        self._refuse_foreign(self.folder / name, {*files, *beside})
        for dataset in entries:
            there = self.entries.get(dataset)
            if there is not None and (other := _folder_of(there)) != name:
                remove = f"`python -m compiler remove {other}` first, or give another --out"
                fix = remove if other in self.manifests else "rename one of the two"
                taken = f"the dataset name {dataset!r} is taken by {there.get('file_name')!r}"
                raise ContentError(f"{self.folder / REGISTRY}: {taken}: {fix}")

    def publish(self, staged: Path, name: str) -> None:
        """Put a staged dataset in its place and register it, under the folder's lock."""
        manifest = read_object(staged / MANIFEST)
        with locked(self.folder):
            self._read()  # others may have published since
            entries = cast("dict[str, Entry]", manifest["entries"])
            self.check(name, entries, [path.name for path in staged.iterdir()])
            publish(staged, self.folder / name)
            self.manifests[name] = manifest
            self._register()

    def remove(self, name: str) -> list[str]:
        """Unregister a compiled dataset and delete its folder; returns the dataset names that are gone."""
        if name not in self.manifests:
            known = f"(found: {', '.join(self.manifests) or 'none'}) {nearest(name, self.manifests)}"
            raise RequestError(f"no compiled dataset {name!r} in {self.folder} {known}".rstrip())
        target = self.folder / name
        self._refuse_foreign(target, set())
        with locked(self.folder):
            self._read()
            gone = list(entries_in(name, self.manifests[name]))
            kept = {key: entry for key, entry in self.entries.items() if key not in gone}
            write_json(self.folder / REGISTRY, kept, ascii_only=True)
            aside = target.with_name(f".{name}.{OURS}old")
            target.rename(aside)
            sync_folder(self.folder)
            shutil.rmtree(aside)
        return gone

    def _read(self) -> None:
        recover(self.folder)
        self.entries, self.manifests = read_registry(self.folder), read_manifests(self.folder)
        self._register()

    def _register(self) -> None:
        """Bring the entries in line with the compiled datasets; write them where that changed any."""
        before = self.entries
        wanted = {
            name: entry
            for name, entry in before.items()
            if _folder_of(entry) not in self.manifests or (self.folder / str(entry["file_name"])).exists()
        }
        for folder, manifest in self.manifests.items():
            for name, entry in entries_in(folder, manifest).items():
                there = before.get(name, entry)
                if _folder_of(there) == folder:  # else the name was given by hand to something else
                    wanted[name] = {k: v for k, v in there.items() if k in entry or k not in OWN} | entry
        if wanted != before:
            names = dict.fromkeys([*before, *wanted])  # those that were there keep their places
            self.entries = {name: wanted[name] for name in names if name in wanted}
            write_json(self.folder / REGISTRY, self.entries, ascii_only=True)

    def _refuse_foreign(self, target: Path, written: set[str]) -> None:
        """Refuse a folder that is a link or holds what no compile wrote: publishing replaces it whole.

        Beside a manifest, what it names is a compile's, and what this compile writes under the same names.
        """
        if target.is_symlink():
            raise RequestError(f"{target}: a link; compile replaces the whole folder: give another --out")
        if not target.exists():
            return
        if not target.is_dir():
            raise RequestError(f"{target}: a file, where the dataset's folder has to be: give another --out")
        own: set[str] = set()
        if target.name in self.manifests:
            files = self.manifests[target.name].get("files")
            own = {MANIFEST, REJECTED, REJECTED_BEFORE, *written, *(files if isinstance(files, dict) else ())}
        foreign = sorted(path.name for path in target.iterdir() if path.name not in own)
        if foreign:
            shown = ", ".join(foreign[:3]) + (" …" if len(foreign) > 3 else "")
            raise RequestError(
                f"{target}: holds {len(foreign)} files that compile did not make ({shown}), and compile "
                "replaces the whole folder: move them, or give another --out"
            )


def read_manifests(folder: Path) -> dict[str, Manifest]:
    """Return the manifests of the compiled datasets in a folder, by name; `ContentError` if one is broken."""
    return {path.parent.name: read_object(path) for path in sorted(folder.glob(f"[!.]*/{MANIFEST}"))}


def entries_in(folder: str, manifest: Manifest) -> dict[str, Entry]:
    """Return the entries of a compiled dataset: those of its manifest that name files of this very folder."""
    found = cast("dict[str, Entry]", manifest.get("entries") or {})
    return {name: entry for name, entry in found.items() if _folder_of(entry) == folder}


def _folder_of(entry: Entry) -> str:
    file_name = entry.get("file_name")
    parts = PurePosixPath(file_name).parts if isinstance(file_name, str) else ()
    return parts[0] if len(parts) > 1 else ""
