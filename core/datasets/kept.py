"""Earlier compiles of a dataset, kept so that `data restore` can bring them back.

`dataset_info/.kept/NAME@TIME/` is the folder as it was, and `NAME@TIME.json` beside it has its registry
entries and the hash of its manifest. (LLaMA-Factory reads every file in the folder of a dataset.) A folder
takes its place by one exchange: it is kept if its manifest has the recorded hash. After a kill it may have
the dataset that was to take its place; `recover` tells the two apart.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tuneyard.core.datasets.compiled import MANIFEST, Entries
from tuneyard.core.errors import RequestError, wrong_value
from tuneyard.core.files import file_sha256, make_folder, names_folder, read_object, write_json
from tuneyard.core.files.temporaries import OURS, remove_folder, size_of
from tuneyard.core.language.message import _, joined

KEPT = ".kept"
MOST_KEPT = 3
"""Earlier compiles of one dataset. What was replaced before them goes."""
_TIME = "%Y-%m-%dT%H-%M-%S"


@dataclass(frozen=True, slots=True)
class KeptDataset:
    """An earlier compile of a dataset."""

    name: str
    time: str
    """When it was compiled, a part of its folder's name."""
    folder: Path
    entries: Entries
    """Its registry entries, with the keys that a user added."""
    manifest: str
    """SHA-256 of its manifest."""
    replaced_at: int
    """When another compile took its place, in nanoseconds."""

    @property
    def reference(self) -> str:
        """What `data restore` takes."""
        return f"{self.name}@{self.time}"

    @property
    def record(self) -> Path:
        """The file with its entries."""
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def is_whole(self) -> bool:
        """True if its folder is there, and is that of the record."""
        return self.folder.is_dir() and manifest_sha256(self.folder) == self.manifest

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return size_of(self.folder)

    def delete(self) -> None:
        """Delete the folder, then its record."""
        remove_folder(self.folder)
        self.forget()

    def forget(self) -> None:
        """Delete the record, and the folder of all that is kept with the last one."""
        self.record.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are kept
            self.folder.parent.rmdir()


def manifest_sha256(folder: Path) -> str:
    """The hash of the manifest of a compiled dataset, "" without one."""
    path = folder / MANIFEST
    return file_sha256(path) if path.is_file() else ""


def kept_datasets(registry: Path, name: str = "") -> list[KeptDataset]:
    """The earlier compiles of one dataset or of all; what was replaced last comes first."""
    kept = [each for each in _records(registry) if each.is_whole and name in ("", each.name)]
    return sorted(kept, key=lambda each: each.replaced_at, reverse=True)


def find_kept(registry: Path, reference: str) -> KeptDataset:
    """The earlier compile `NAME@TIME`, or of `NAME` that which was replaced last."""
    kept = kept_datasets(registry)
    for each in kept:
        if reference in (each.name, each.reference):
            return each
    references = joined([each.reference for each in kept]) if kept else _("none")
    raise RequestError(
        _(
            "nothing is kept of {reference!r} in {folder} (kept: {references})",
            reference=reference,
            folder=registry / KEPT,
            references=references,
        )
    )


def reserve(registry: Path, name: str, entries: Entries) -> KeptDataset:
    """Record the dataset `name` as one to keep, and return it. Its folder is still to be moved."""
    folder = registry / KEPT
    if folder.is_symlink():
        raise RequestError(_("{path}: a link, where the earlier compiles are kept: remove it", path=folder))
    make_folder(folder)
    manifest = registry / name / MANIFEST
    time = datetime.fromtimestamp(manifest.stat().st_mtime).strftime(_TIME)
    free, number = time, 1
    while (folder / f"{name}@{free}").exists() or (folder / f"{name}@{free}.json").exists():
        number += 1
        free = f"{time}-{number}"
    kept = KeptDataset(name, free, folder / f"{name}@{free}", entries, file_sha256(manifest), 0)
    record = {"dataset": name, "time": free, "manifest": kept.manifest, "entries": entries}
    write_json(kept.record, record, ascii_only=True)
    return kept


def delete_oldest(registry: Path, name: str) -> None:
    """Delete what is kept of a dataset beyond the last `MOST_KEPT`."""
    for each in kept_datasets(registry, name)[MOST_KEPT:]:
        each.delete()


def recover(registry: Path) -> None:
    """Finish what a kill has left: folders get the name of their record, and records without a folder go."""
    records = list(_records(registry))
    lost = {each.manifest: each for each in records if not each.folder.exists()}
    for each in records:
        if each.folder.exists() and not each.is_whole:
            if not _take(each.folder, lost):
                remove_folder(each.folder)
            each.forget()
    for name in {each.name for each in lost.values()}:
        _take(registry / f".{name}.{OURS}old", lost)
    for each in lost.values():
        each.forget()


def _take(folder: Path, lost: dict[str, KeptDataset]) -> bool:
    """Move a folder to the lost record of its manifest. False if there is none."""
    kept = lost.pop(manifest_sha256(folder), None)
    if kept is None:
        return False
    folder.rename(kept.folder)
    return True


def _records(registry: Path) -> Iterator[KeptDataset]:
    """Yield what the records name, whole or not. `ContentError` for a damaged record."""
    folder = registry / KEPT
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in sorted(folder.glob("*@*.json")):
        if not path.is_file() or path.is_symlink():
            continue
        content: dict[str, Any] = read_object(path)
        name, time, manifest, entries = (
            content.get(key) for key in ("dataset", "time", "manifest", "entries")
        )
        if not isinstance(name, str) or not isinstance(time, str) or path.name != f"{name}@{time}.json":
            raise wrong_value(path, [name, time], _("the dataset and the time in the file's name"))
        if not isinstance(manifest, str) or not isinstance(entries, dict) or not names_folder(name):
            raise wrong_value(path, content, _("the record of a kept dataset"))
        if not all(isinstance(entry, dict) for entry in entries.values()):
            raise wrong_value(path, entries, _("registry entries"))
        replaced_at = path.stat().st_mtime_ns
        yield KeptDataset(name, time, path.with_suffix(""), entries, manifest, replaced_at)
