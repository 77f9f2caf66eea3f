"""dataset_info.json and the compiled datasets next to it: checks, publishing, removal.

An entry describes a file, so that LLaMA-Factory reads it rightly.

A folder with a manifest.json is a compiled dataset. Its entries are those of the manifest for files of this
folder: a copied folder has none. The compiler writes the keys of `COMPILED_KEYS` in them, and keys of a user
stay. Every other entry was written by hand and stays unchanged.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.progress import Progress
from tuneyard.compiler.publish.drift import (
    COMPILED_KEYS,
    Entry,
    changed_entry,
    changed_file,
    compiled_entries,
    folder_of,
    read_manifests,
)
from tuneyard.compiler.read.inputs import Input
from tuneyard.compiler.request import COUNTED, CompileReport, CompileRequest, Identity, own_hash
from tuneyard.compiler.spec.file import where_to_write
from tuneyard.compiler.spec.model import REJECTED, Output, Spec, load_spec
from tuneyard.core.checkout import version
from tuneyard.core.datasets import REGISTRY, REMOTE_SOURCES, read_registry, wrong_folder
from tuneyard.core.errors import ContentError, RequestError, nearest
from tuneyard.core.files import OURS, publish, recovered, sha256, sync_folder, write_json
from tuneyard.core.manifest import EMPTY, MANIFEST, Manifest, write_manifest
from tuneyard.core.records import ALPACA, OPENAI_TAGS, SHAREGPT_TAGS
from tuneyard.core.row_index import row_index_file


class Registry:
    """Registry of a folder: the `entries` and the `manifests` of the compiled datasets, both by name.

    Opening it finishes the publications of killed commands and writes missing entries. It also restores
    entries of compiled datasets that were changed by hand, unless `restore` is false. `restored` lists them
    for people.
    """

    def __init__(self, folder: Path, *, restore: bool = True, settle: bool = True) -> None:
        """Open the registry. `settle=False` reads without the lock, and changes nothing before `publish`."""
        self.folder, self.restore = folder, restore
        self.restored: list[str] = []
        self.entries = read_registry(folder)
        self.manifests = read_manifests(folder)
        if settle:
            self.settle()

    def settle(self) -> None:
        """Lock the folder once, and finish what killed commands left in it."""
        with self._opened():
            pass

    def check(self, spec: Spec, inputs: Sequence[Input], *, force: bool) -> None:
        """Refuse a compile that would overwrite or delete anything but the spec's own dataset.

        A split that has no source any more is deleted only with `force`.
        """
        target = self.folder / spec.name
        entries = entries_of(spec, spec.splits)
        real_target = os.path.realpath(target)  # Path.resolve raises at a loop of links
        for item in inputs:
            if isinstance(item.path, Path) and Path(os.path.realpath(item.path)).is_relative_to(real_target):
                raise RequestError(f"{item.display_path}: the source lies inside the output folder {target}")
        written: list[str] = []
        for entry in entries.values():
            file = Path(str(entry["file_name"]))
            written += [file.name, row_index_file(file).name]
        self._refuse_foreign(target, written)
        self._refuse_taken(spec.name, entries)
        if not (force or spec.split or spec.mix):
            self._refuse_lost_splits(spec, {item.split for item in inputs})

    def _refuse_lost_splits(self, spec: Spec, splits_with_source: Collection[str]) -> None:
        """Refuse to delete the files of a split that has no source any more."""
        files = self.manifests.get(spec.name, EMPTY).files
        for split in spec.splits:
            names = [output.file.format(split=split) for output in spec.outputs]
            lost = [name for name in names if name in files]
            if lost and split not in splits_with_source:
                raise RequestError(
                    f"{self.folder / spec.name}: holds the split {split} ({', '.join(lost)}), for which "
                    f"there is no source: it would be deleted and unregistered; give --source {split}=PATH "
                    "too, or --force to let it go"
                )

    def up_to_date(
        self, spec: Spec, request: CompileRequest, made_from: Callable[[], Identity]
    ) -> CompileReport | None:
        """The report of the compiled dataset. None if a compile would write or report anything else."""
        manifest = self.manifests.get(spec.name)
        if manifest is None or not manifest.files:
            return None
        for name, file in manifest.files.items():
            path = self.folder / spec.name / name
            if not path.is_file() or sha256(path) != file.sha256:
                return None
        if manifest.made_from != made_from():
            return None
        first, counts = manifest.first_problems, manifest.counts
        if request.every_problem and len(first) < sum(manifest.problems.values()):
            return None
        problems = Problems.again(manifest.problems, first, manifest.notes)
        problems.fatal = request.strict and problems.count("W") > 0
        self.settle()
        problems.notes.extend(self.restored)
        return CompileReport(
            name=spec.name,
            problems=problems,
            **{key: counts[key] for key in COUNTED},
            datasets=manifest.records,
            fit=manifest.fit,
            unused=Unused(manifest.not_used, manifest.ignored),
            up_to_date=True,
        )

    def publish_report(self, staged: Path, spec: Spec, report: CompileReport, made_from: Identity) -> None:
        """Publish a staged dataset with the manifest of its report, and note other changed entries."""
        notes = self.publish(staged, spec.name, manifest_of(spec, report, made_from))
        report.problems.notes.extend([*notes, *self.restored])

    def publish(self, staged: Path, name: str, manifest: Manifest) -> list[str]:
        """Move a staged dataset to its folder and register it, under the folder's lock.

        Returns a note if it replaces a dataset of other sources: one spec writes one dataset.
        """
        target = self.folder / name
        write_manifest(staged, manifest)
        with self._opened():  # again: others may have published since
            self._refuse_foreign(target, [path.name for path in staged.iterdir()])
            self._refuse_taken(name, manifest.entries)
            publish(staged, target)
            old_sources = _sources(self.manifests.get(name, EMPTY))
            self.manifests[name] = manifest
            self._register()
        if not old_sources or {*old_sources}.intersection(_sources(manifest)):
            return []
        ways = f"another `dataset:` {where_to_write(name)} of another name, or another --out keeps both"
        return [f"{target}: replaced what was compiled from {', '.join(old_sources[:3])}; {ways}"]

    def remove(self, name: str) -> list[str]:
        """Unregister a compiled dataset and delete its folder. Returns the names of its datasets."""
        if name not in self.manifests:
            nowhere = wrong_folder(self.folder)
            if nowhere:
                raise RequestError(f"no compiled dataset {name!r}: {nowhere}")
            names = f"(found: {', '.join(self.manifests) or 'none'}) {nearest(name, self.manifests)}"
            raise RequestError(f"no compiled dataset {name!r} in {self.folder} {names}".rstrip())
        target = self.folder / name
        self._refuse_foreign(target)
        with self._opened():
            gone = list(compiled_entries(name, self.manifests[name]))
            kept = {key: entry for key, entry in self.entries.items() if key not in gone}
            write_json(self.folder / REGISTRY, kept, ascii_only=True)
            aside = target.with_name(f".{name}.{OURS}old")
            target.rename(aside)
            sync_folder(self.folder)
            shutil.rmtree(aside)
        return gone

    def lines(self) -> Iterator[str]:
        """Yield a line for each dataset: compiled ones with rows, spec, time, stale or changed; then others.

        Sources and compiled files are hashed, with a bar on stderr if that takes over two seconds.
        """
        others = dict(self.entries)
        paths = [
            path
            for name, manifest in self.manifests.items()
            for path in _files_of(self.folder / name, manifest)
        ]
        with contextlib.closing(Progress(path for path in paths if path.is_file())) as progress:
            for name, manifest in self.manifests.items():
                made_at = (self.folder / name / MANIFEST).stat().st_mtime
                made = datetime.fromtimestamp(made_at).strftime("%Y-%m-%d %H:%M")
                copied = manifest.spec != name
                stale = "a copied folder, not registered"
                if not copied:
                    stale = _stale(manifest, progress.move)
                for dataset, rows in manifest.records.items():
                    parts = [dataset, f"{rows} rows", name, made]
                    if stale:
                        parts.append(f"stale: {stale}")
                    changes = self._changes(dataset, name, progress.move)
                    if changes:
                        parts.append(f"changed: {'; '.join(changes)}")
                    yield "  ".join(parts)
                    others.pop(dataset, None)
        for dataset, entry in others.items():
            where = next((entry[key] for key in ("file_name", *REMOTE_SOURCES) if entry.get(key)), "no file")
            yield f"{dataset}  {where}  not compiled here"

    def _changes(self, dataset: str, name: str, moved: Callable[[int], None]) -> list[str]:
        """How the file and the entry of a compiled dataset differ from its manifest in folder `name`."""
        manifest = self.manifests[name]
        compiled = compiled_entries(name, manifest).get(dataset)
        file_name = str(compiled["file_name"]) if compiled else f"{name}/{dataset}"
        problem = changed_file(self.folder / file_name, manifest, moved)
        changes = [problem.message] if problem else []
        entry = self.entries.get(dataset)
        if compiled and entry is not None:
            problems = changed_entry(str(self.folder / REGISTRY), dataset, entry, compiled)
            changes += [f"{problem.field}: {problem.message}" for problem in problems]
        return changes

    @contextlib.contextmanager
    def _opened(self) -> Iterator[None]:
        """Lock the folder, finish interrupted publications, and read entries and manifests."""
        with recovered(self.folder):
            self.entries, self.manifests = read_registry(self.folder), read_manifests(self.folder)
            if self.restore:
                self._note_restored()
            self._register()
            yield

    def _note_restored(self) -> None:
        """Note for people which values of entries `_register` is about to restore."""
        for folder, manifest in self.manifests.items():
            for name, compiled in compiled_entries(folder, manifest).items():
                entry = self.entries.get(name)
                if entry is None or folder_of(entry) != folder:
                    continue
                place = str(self.folder / REGISTRY)
                for problem in changed_entry(place, name, entry, compiled):
                    line = f"{problem.place}: {problem.field}: {problem.message}: it is restored"
                    self.restored.append(line)

    def _register(self) -> None:
        """Bring the entries in line with the compiled datasets, and write them if that changes any."""
        before = self.entries
        entries = {
            name: entry
            for name, entry in before.items()
            if folder_of(entry) not in self.manifests or (self.folder / str(entry["file_name"])).exists()
        }
        for folder, manifest in self.manifests.items():
            for name, entry in compiled_entries(folder, manifest).items():
                registered = before.get(name)
                if registered is None:
                    entries[name] = entry
                elif self.restore and folder_of(registered) == folder:  # else a user gave it another file
                    entries[name] = _with_added_keys(registered, entry) | entry
        if entries != before:
            names = dict.fromkeys([*before, *entries])  # entries keep their places in the file
            self.entries = {name: entries[name] for name in names if name in entries}
            write_json(self.folder / REGISTRY, self.entries, ascii_only=True)

    def _refuse_taken(self, name: str, datasets: Iterable[str]) -> None:
        """Refuse dataset names whose entries are of another folder, or of a user's own file."""
        for dataset in datasets:
            registered = self.entries.get(dataset)
            if registered is None or folder_of(registered) == name:
                continue
            fix = "rename one of the two"
            other = folder_of(registered)
            if other in self.manifests:
                fix = f"`tuneyard data remove {other}` first, or give another --out"
            taken = f"the dataset name {dataset!r} is taken by {registered.get('file_name')!r}"
            raise ContentError(f"{self.folder / REGISTRY}: {taken}: {fix}")

    def _refuse_foreign(self, target: Path, written: Collection[str] = ()) -> None:
        """Refuse a folder that is a link or contains files of others: publishing replaces it whole.

        Next to a manifest, its own files and files with the names in `written` come from a compile.
        """
        if target.is_symlink():
            raise RequestError(f"{target}: a link; compile replaces the whole folder: give another --out")
        if not target.exists():
            return
        if not target.is_dir():
            raise RequestError(f"{target}: a file, where the dataset's folder has to be: give another --out")
        compiled: set[str] = set()
        if (target / MANIFEST).is_file():
            compiled = {MANIFEST, REJECTED, *written, *self.manifests.get(target.name, EMPTY).files}
        foreign = sorted(path.name for path in target.iterdir() if path.name not in compiled)
        if foreign:
            listed = ", ".join(foreign[:3])
            if len(foreign) > 3:
                listed += " …"
            raise RequestError(
                f"{target}: holds {len(foreign)} files that compile did not make ({listed}), and compile "
                "replaces the whole folder: move them, or give another --out"
            )


def entry_of(spec: Spec, output: Output, file_name: str) -> Entry:
    """The registry entry of a dataset, with complete `columns` (and `tags`) for LLaMA-Factory."""
    if output.format == "text":
        return {"file_name": file_name, "formatting": "alpaca", "columns": {"prompt": output.field}}
    entry: Entry = {}
    for kind in spec.recorded.values():
        entry.update(kind.entry_keys)
    entry["file_name"] = file_name
    if output.format == "alpaca":
        columns = {part: name for part, name in ALPACA.items() if part not in spec.replaced_parts}
        if "system" in output.templates:
            columns["system"] = "system"
        if output.turns == "history":
            columns["history"] = "history"
        return {**entry, "formatting": "alpaca", "columns": columns | spec.recorded_parts}
    columns = {"messages": output.field}
    names = spec.kinds | output.templates
    if output.format == "sharegpt" and "system" in names:
        columns["system"] = "system"
    if "tools" in names:
        columns["tools"] = "tools"
    tags = SHAREGPT_TAGS if output.format == "sharegpt" else OPENAI_TAGS
    return {**entry, "formatting": "sharegpt", "tags": tags, "columns": columns | spec.recorded_parts}


def entries_of(spec: Spec, splits: Sequence[str]) -> dict[str, Entry]:
    """The registry entries of these splits of a spec, by dataset name."""
    entries = {}
    for split in splits:
        for output in spec.outputs:
            if output.dataset:
                file_name = f"{spec.name}/{output.file.format(split=split)}"
                entries[output.dataset.format(split=split)] = entry_of(spec, output, file_name)
    return entries


def manifest_of(spec: Spec, report: CompileReport, made_from: Identity) -> Manifest:
    """The manifest of a compiled dataset, from which `Registry.up_to_date` makes the report again."""
    entries = entries_of(spec, spec.splits)
    return Manifest(
        about=spec.about,
        counts={**{key: getattr(report, key) for key in COUNTED}, "records": report.datasets},
        problems=dict(sorted(report.problems.counts.items())),
        first_problems=report.problems.first(),
        notes=report.problems.notes,
        not_used=report.unused.counts(),
        ignored=report.unused.ignored_counts(),
        fit=report.fit,
        cluster=spec.group,
        files=report.files,
        entries={name: entry for name, entry in entries.items() if name in report.datasets},
        made_from=made_from,
        tuneyard=version(),  # beside the identity: a commit elsewhere makes no dataset stale
    )


def _with_added_keys(registered: Entry, compiled: Entry) -> Entry:
    """An entry without the compiler's keys that this compile did not write; keys of a user stay."""
    return {key: value for key, value in registered.items() if key in compiled or key not in COMPILED_KEYS}


def _sources(manifest: Manifest) -> list[str]:
    return [source.path for source in manifest.sources]


def _files_of(folder: Path, manifest: Manifest) -> list[Path]:
    """Paths of the compiled files and of the local sources of a dataset."""
    return [*(folder / name for name in manifest.files), *map(Path, _sources(manifest))]


def _stale(manifest: Manifest, moved: Callable[[int], None]) -> str:
    """The reason why a compile would make another dataset now, "" if it would not."""
    for source in manifest.sources:
        if not source.is_local:  # only a compile asks a hub
            continue
        path = Path(source.path)
        if not path.is_file():
            return f"source {path} is gone"
        if sha256(path, moved) != source.sha256:
            return f"source {path} has changed"
    if manifest.made_from.get("compiler") != own_hash():
        return "the compiler has changed"
    try:
        changed = load_spec(manifest.spec).raw != manifest.definition
    except (ContentError, RequestError):  # a spec given by path, or one that is gone
        return ""
    return "the spec has changed" if changed else ""
