"""dataset_info.json and the compiled datasets next to it: checks, publishing, removal.

An entry describes a file, so that LLaMA-Factory reads it rightly.

A folder with a manifest.json is a compiled dataset. Its entries are those of the manifest for files of this
folder: a copied folder has none. The compiler writes the keys of `COMPILED_KEYS` in them, and keys of a user
stay. Every other entry was written by hand and stays unchanged.
"""

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Self

from tuneyard.compiler.read.inputs import Input
from tuneyard.compiler.spec.file import where_to_write
from tuneyard.compiler.spec.model import REJECTED, Spec
from tuneyard.compiler.write.entries import entries_of
from tuneyard.core.datasets import REGISTRY, read_registry, wrong_folder
from tuneyard.core.datasets.compiled import (
    EMPTY,
    MANIFEST,
    Entries,
    Entry,
    Manifest,
    Manifests,
    read_manifests,
    row_index_file,
)
from tuneyard.core.datasets.kept import (
    KeptDataset,
    delete_oldest,
    find_kept,
    kept_datasets,
    recover,
    reserve,
)
from tuneyard.core.errors import ContentError, Problem, RequestError, nearest, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import DISK_FULL, exchange, publish, recovered, sync, write_json
from tuneyard.core.files.temporaries import OURS, remove_folder
from tuneyard.core.language.message import _, joined
from tuneyard.core.language.messages import say
from tuneyard.core.language.number_format import size_words
from tuneyard.core.text.quoting import shell

CHANGED_ENTRY = ProblemCode(
    "E432", _("an entry that changed since the compile"), _("Restore it, or compile again.")
)


COMPILED_KEYS = ("file_name", "formatting", "ranking", "columns", "tags")
"""The keys of an entry that a compile writes. Any other key was added by hand, and stays as it is."""
_ABSENT = object()


class Registry:
    """Registry of a folder: the `entries` and the `manifests` of the compiled datasets, both by name.

    Opening it reads without the lock and changes nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = read_registry(folder)
        self.manifests = read_manifests(folder)

    def finish_publications(self, name: str = "") -> Self:
        """Lock the folder once, and finish the publications of killed commands. Returns this registry.

        Missing entries are written. The entries of the compiled dataset `name` get the keys of its compile.
        """
        with self._locked():
            self._write(with_compiled(self.entries, self.manifests, name))
        return self

    def check(self, spec: Spec, inputs: Sequence[Input], *, force: bool) -> Entries:
        """Refuse a compile that would overwrite or delete anything but the spec's own dataset.

        A split that has no source any more is deleted only with `force`. Returns the entries of all splits.
        """
        target = self.folder / spec.name
        splits_with_source = {item.input_name for item in inputs}
        entries = entries_of(spec, spec.splits)
        real_target = os.path.realpath(target)  # Path.resolve raises at a loop of links
        for item in inputs:
            if isinstance(item.path, Path) and Path(os.path.realpath(item.path)).is_relative_to(real_target):
                raise RequestError(
                    _(
                        "{path}: the source lies inside the output folder {target}",
                        path=item.display_path,
                        target=target,
                    )
                )
        written: list[str] = []
        for entry in entries.values():
            file = Path(str(entry["file_name"]))
            written += [file.name, row_index_file(file).name]
        self._refuse_foreign(target, written)
        draws = spec.split and not spec.split.is_given
        if not (force or draws or spec.mix):
            self._refuse_lost_splits(spec, splits_with_source)
        registered = entries_of(spec, splits_with_source) if spec.source.held_out else entries
        self._refuse_taken(self.entries, spec.name, registered)
        return entries

    def _refuse_lost_splits(self, spec: Spec, splits_with_source: Collection[str]) -> None:
        """Refuse to delete the files of a split that has no source any more."""
        files = self.manifests.get(spec.name, EMPTY).files
        for split in spec.splits:
            names = [output.file_of(split) for output in spec.outputs]
            lost = [name for name in names if name in files]
            if lost and split not in splits_with_source:
                raise RequestError(
                    _(
                        "{folder}: holds the split {split} ({lost}), for which there is no source: "
                        "it would be deleted and unregistered; give --source {split}=PATH too, or "
                        "--force to let it go",
                        folder=self.folder / spec.name,
                        split=split,
                        lost=", ".join(lost),
                    )
                )

    def publish(self, staged: Path, name: str, manifest: Manifest) -> list[str]:
        """Move a staged dataset, which has its manifest, to its folder and register it, under one lock.

        Returns a note if it replaces a dataset of other sources or of more rows (`limit`), since one spec
        writes one dataset.
        """
        target = self.folder / name
        with self._locked():  # others may have published since the registry was opened
            self._refuse_foreign(target, [path.name for path in staged.iterdir()])
            before = with_compiled(self.entries, self.manifests)
            self._refuse_taken(before, name, manifest.entries)
            old = self.manifests.get(name, EMPTY)
            kept = self._reserve(name, manifest)
            self.manifests[name] = manifest
            entries = with_compiled(before, self.manifests, name)
            publish(staged, target, kept.folder if kept else None)
            self._write(entries)
            delete_oldest(self.folder, name)
        notes: list[str] = []
        if kept:
            notes.append(
                _(
                    "the earlier compile is kept ({size}): `tuneyard data restore {reference}` brings it "
                    "back",
                    size=size_words(kept.size),
                    reference=shell(kept.reference),
                )
            )
        old_sources = [source.path for source in old.sources]
        if not old_sources:
            return notes
        if {source.path for source in manifest.sources}.isdisjoint(old_sources):
            replaced = _("what was compiled from {sources}", sources=", ".join(old_sources[:3]))
        elif manifest.made_from["limit"] and not old.made_from.get("limit"):
            replaced = _("the dataset of {kept} rows, compiled without --limit", kept=old.counts["kept"])
        else:
            return notes
        ways = _(
            "another `dataset:` {where_to_write} of another name, or another --out keeps both",
            where_to_write=where_to_write(name),
        )
        replacing = _("{target}: replaced {replaced}; {ways}", target=target, replaced=replaced, ways=ways)
        return [replacing, *notes]

    def restore(self, reference: str) -> tuple[KeptDataset, KeptDataset | None]:
        """Put an earlier compile (`NAME@TIME`, or `NAME` for the last one) back into its place.

        Returns it, and what was in its place and is kept now: so a restore can be undone, too.
        """
        with self._locked():
            earlier = find_kept(self.folder, reference)
            name = earlier.name
            target = self.folder / name
            self._refuse_foreign(target)
            before = with_compiled(self.entries, self.manifests)
            entries: Entries = {}
            for dataset, entry in before.items():
                if folder_of(entry) != name:
                    entries[dataset] = entry
                elif dataset in earlier.entries:
                    entries[dataset] = earlier.entries[dataset]
            self._refuse_taken(entries, name, earlier.entries)
            current = None
            if name in self.manifests:
                current = reserve(self.folder, name, self._entries_of(name))
                earlier.folder.rename(current.folder)
                exchange(current.folder, target)
            else:
                earlier.folder.rename(target)
                sync(self.folder)
            self._write(entries | earlier.entries)
            earlier.forget()
        return earlier, current

    def remove(self, name: str) -> KeptDataset | None:
        """Unregister a compiled dataset and keep its folder, so that `restore` can bring it back.

        Returns what is kept. None if a kill had left a removed dataset, which is gone now.
        """
        target = self.folder / name
        with self._locked() as swept:
            if name not in self.manifests and f".{name}.{OURS}old" in swept:
                return None
            self._require_compiled(name)
            self._refuse_foreign(target)
            kept = reserve(self.folder, name, self._entries_of(name))
            self._write(self._entries_without(name))
            target.rename(kept.folder)
            sync(self.folder)
            delete_oldest(self.folder, name)
        return kept

    def delete(self, name: str) -> list[str]:
        """Unregister a compiled dataset and delete its folder, and what is kept of it.

        On a full disk its records go first: the registry is written anew beside the old one. A kill between
        the two leaves the manifest, by which the same command removes the rest. A kill after that leaves the
        hidden folder: the same command deletes it. Returns the names of the datasets and of the earlier
        compiles that are gone.
        """
        target = self.folder / name
        aside = target.with_name(f".{name}.{OURS}old")
        gone: list[str] = []
        with self._locked() as swept:
            earlier = kept_datasets(self.folder, name)
            if name in self.manifests:
                self._refuse_foreign(target)
                gone += compiled_entries(name, self.manifests[name])
                self._unregister_on_a_full_disk(name)
                target.rename(aside)
                sync(self.folder)
                remove_folder(aside)
            elif aside.name not in swept and not earlier:
                self._require_compiled(name)
            for each in earlier:
                each.delete()
                gone.append(each.reference)
        return gone

    def drop(self, reference: str) -> list[KeptDataset]:
        """Delete one earlier compile (`NAME@TIME`), or all that are kept of `NAME`. Returns them."""
        with self._locked():
            chosen = find_kept(self.folder, reference)
            dropped = [chosen]
            if reference == chosen.name:
                dropped = kept_datasets(self.folder, reference)
            for each in dropped:
                each.delete()
        return dropped

    def _reserve(self, name: str, manifest: Manifest) -> KeptDataset | None:
        """Where the dataset that a compile replaces is kept; None if there is none or it is equal."""
        old = self.manifests.get(name)
        if old is None or old.files == manifest.files:
            return None
        return reserve(self.folder, name, self._entries_of(name))

    def _entries_of(self, name: str) -> Entries:
        """The entries of a compiled dataset as they are registered, with a user's own keys."""
        compiled = compiled_entries(name, self.manifests[name])
        return {dataset: self.entries.get(dataset, entry) for dataset, entry in compiled.items()}

    def _entries_without(self, name: str) -> Entries:
        gone = compiled_entries(name, self.manifests[name])
        entries = with_compiled(self.entries, self.manifests)
        return {dataset: entry for dataset, entry in entries.items() if dataset not in gone}

    def _unregister_on_a_full_disk(self, name: str) -> None:
        """Take a dataset out of the registry; without room for that, its records are deleted first."""
        left = self._entries_without(name)
        try:
            self._write(left)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            target = self.folder / name
            for path in target.iterdir():
                if path.name != MANIFEST:
                    path.unlink()
            self._write(left)

    def _require_compiled(self, name: str) -> None:
        """`RequestError` with the compiled datasets if none has this name."""
        if name in self.manifests:
            return
        no_folder = wrong_folder(self.folder) or _("`tuneyard data list` shows what there is")
        kept = kept_datasets(self.folder, name)
        if kept:
            no_folder = _(
                "it is kept: `tuneyard data restore {name}` brings it back, and `tuneyard data remove {name} "
                "--now` deletes it",
                name=shell(name),
            )
        hint = nearest(name, self.manifests, no_folder)
        names = joined(self.manifests) if self.manifests else _("none")
        raise RequestError(
            _(
                "no compiled dataset {name!r} in {folder} (found: {names}; each goes with all its "
                "splits); {hint}",
                name=name,
                folder=self.folder,
                names=names,
                hint=hint,
            )
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[dict[str, int]]:
        """Lock the folder, finish interrupted publications, and read entries and manifests again.

        Yields what killed commands left and is removed now, as {name: bytes}.
        """
        with recovered(self.folder, partial(recover, self.folder)) as swept:
            self.entries = read_registry(self.folder)
            self.manifests = read_manifests(self.folder)
            yield swept

    def _write(self, entries: Entries) -> None:
        if entries != self.entries:
            path = self.folder / REGISTRY
            if path.is_symlink():  # to a registry, which was read
                say(_("{path}: a link; {target} is updated", path=path, target=Path(os.path.realpath(path))))
            write_json(path, entries, ascii_only=True, follows_link=True)
        self.entries = entries

    def _refuse_taken(self, entries: Entries, folder: str, datasets: Iterable[str]) -> None:
        """Refuse dataset names whose entries are of another folder, or of a user's own file."""
        for dataset in datasets:
            registered = entries.get(dataset)
            if registered is None:
                continue
            other = folder_of(registered)
            if other == folder:
                continue
            fix = _("rename one of the two")
            if other in self.manifests:
                fix = _("`tuneyard data remove {name}` first, or give another --out", name=shell(other))
            taken = _(
                "the dataset name {dataset!r} is taken by {registered!r}",
                dataset=dataset,
                registered=registered.get("file_name"),
            )
            raise ContentError(_("{path}: {taken}: {fix}", path=self.folder / REGISTRY, taken=taken, fix=fix))

    def _refuse_foreign(self, target: Path, written: Collection[str] = ()) -> None:
        """Refuse a folder that is a link or contains files of others: publishing replaces it whole.

        Next to a manifest, its own files and files with the names in `written` come from a compile.
        """
        if target.is_symlink():
            raise RequestError(
                _("{target}: a link; compile replaces the whole folder: give another --out", target=target)
            )
        if not target.exists():
            return
        if not target.is_dir():
            raise RequestError(
                _("{target}: a file, where the dataset's folder has to be: give another --out", target=target)
            )
        compiled: set[str] = set()
        if (target / MANIFEST).is_file():
            compiled = {MANIFEST, REJECTED, *written, *self.manifests.get(target.name, EMPTY).files}
        foreign = [
            path.name for path in sorted(target.iterdir()) if path.name not in compiled or path.is_dir()
        ]
        if foreign:
            raise RequestError(
                _(
                    "{target}: holds {number} files that compile did not make, first "
                    "{first}, and compile replaces the whole folder: move them, or give "
                    "another --out",
                    target=target,
                    number=len(foreign),
                    first=foreign[0],
                )
            )


def folder_of(entry: Entry) -> str:
    """First folder of an entry's `file_name`, "" if it names none."""
    file_name = entry.get("file_name")
    parts = PurePosixPath(file_name).parts if isinstance(file_name, str) else ()
    return parts[0] if len(parts) > 1 else ""


def compiled_entries(folder: str, manifest: Manifest) -> Entries:
    """Entries that a compile registered. A copied folder has none, since they name the original's files."""
    return {name: entry for name, entry in manifest.entries.items() if folder_of(entry) == folder}


def with_compiled(entries: Entries, manifests: Manifests, name: str = "") -> Entries:
    """Entries with those of the compiled datasets of `manifests` (by folder). Each keeps its location.

    Missing entries are added, and entries of files that no compile has any more are dropped. The entries of
    the folder `name` get the keys of its compile. All others stay as they are.
    """
    registered: Entries = {}
    compiled_now = compiled_entries(name, manifests.get(name, EMPTY))
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


def changed_entry(location: str, name: str, entry: Entry, compiled: Entry, hint: str) -> Iterator[Problem]:
    """Yield E432 for each part of a registry entry that differs from what the compile registered.

    Keys that a user added (`num_samples`, `split`, …) do not count. `location` is the registry's path.
    """
    for key in COMPILED_KEYS:
        values, expected = entry.get(key, _ABSENT), compiled.get(key, _ABSENT)
        for field, value, expected_value in _parts(key, values, expected):
            if value != expected_value:
                message = _(
                    "{value}, but the compile registered {registered}",
                    value=_shown(value),
                    registered=_shown(expected_value),
                )
                yield Problem(CHANGED_ENTRY, f"{location}: {name}", message, field, hint)


def _parts(key: str, value: object, expected: object) -> Iterator[tuple[str, object, object]]:
    """Yield (field, value, expected value): each key of `columns` and `tags` by itself, other keys whole."""
    if not isinstance(value, Mapping) or not isinstance(expected, Mapping):
        yield key, value, expected
        return
    for name in dict.fromkeys([*expected, *value]):
        yield f"{key}.{name}", value.get(name, _ABSENT), expected.get(name, _ABSENT)


def _shown(value: object) -> str:
    return "nothing" if value is _ABSENT else show_value(value)
