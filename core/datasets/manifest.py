"""manifest.json of a compiled dataset: the inputs, counts, files and registry entries of its compile.

Compiling writes it last. `data verify`, recipes, exports and scoring read it next to the files of a dataset.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from tuneyard.core.files import read_json, write_json

MANIFEST = "manifest.json"
Entry = dict[str, object]
"""An entry of dataset_info.json."""


@dataclass(frozen=True, slots=True)
class CompiledFile:
    """A file that a compile wrote. Both are None if the manifest was damaged."""

    rows: int | None = None
    sha256: str | None = None


class CompiledSource(NamedTuple):
    """A file that a compile read for a split, by its path or by its address.

    A local file has a hash. A remote one has a version, unless its address has the commit.
    """

    split: str
    path: str
    sha256: str
    version: str = ""

    @property
    def is_local(self) -> bool:
        """True for a path on this machine."""
        return "://" not in self.path

    @property
    def is_named(self) -> bool:
        """True if a compile does not find it by itself: `--source` or the spec names it."""
        return self.is_local or bool(self.version)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of one compiled dataset.

    - `about`: the spec's description. `tuneyard`: version and commit that compiled it.
    - `counts`: source rows by their end (`read`, `kept`, …), and `records` by dataset.
    - `problems`: how many of each code, with the `first_problems` of them and `notes` for people.
    - `not_used`, `ignored`: rows by unused source column, and by column that the spec ignores.
    - `fit`: the report of the lint. `cluster`: the column that groups rows, None without one.
    - `files`: the files by name. `entries`: the registered entries by dataset.
    - `made_from`: everything that decides the bytes: spec, sources, options and versions.
    """

    about: str = ""
    counts: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)
    first_problems: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_used: dict[str, Any] = field(default_factory=dict)
    ignored: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    cluster: str | None = None
    files: dict[str, CompiledFile] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    made_from: dict[str, Any] = field(default_factory=dict)
    tuneyard: dict[str, str] = field(default_factory=dict)

    @property
    def is_of_compile(self) -> bool:
        """False for a manifest.json of another tool (next to images, say)."""
        return isinstance(self.made_from.get("sources"), list)

    @property
    def spec(self) -> str:
        """The name of the spec, "" if it is unknown."""
        return str(self.made_from.get("spec", ""))

    @property
    def definition(self) -> dict[str, Any]:
        """The spec as it was read, with its keys."""
        return _object(self.made_from.get("definition"))

    @property
    def sources(self) -> list[CompiledSource]:
        """The files that were compiled."""
        entries = self.made_from.get("sources")
        if not isinstance(entries, list):
            return []
        sources = []
        for entry in entries:
            if isinstance(entry, dict):
                fields = {key: str(entry.get(key, "")) for key in CompiledSource._fields}
                sources.append(CompiledSource(**fields))
        return sources

    @property
    def records(self) -> dict[str, int]:
        """The number of records by dataset."""
        return _object(self.counts.get("records"))

    def file_of(self, dataset: str) -> str:
        """The name of the file of a registered dataset."""
        return Path(str(self.entries[dataset].get("file_name"))).name


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder, None without one. `ContentError` if it is not JSON.

    Values of another type than expected count as missing.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict):
        return None
    values: dict[str, Any] = {}
    for each in fields(Manifest):
        value = content.get(each.name)
        expected_type = type(getattr(EMPTY, each.name))
        if each.name == "cluster":
            expected_type = str
        if isinstance(value, expected_type):
            values[each.name] = value
    values["files"] = _files(_object(values.get("files")))
    entries = _object(values.get("entries"))
    values["entries"] = {name: entry for name, entry in entries.items() if isinstance(entry, dict)}
    return Manifest(**values)


EMPTY = Manifest()


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


def manifest_beside(path: Path) -> tuple[Manifest, CompiledFile] | None:
    """The manifest of the compile that wrote a file, and its entry for the file. None for other files."""
    manifest = read_manifest(path.parent)
    if manifest is None or path.name not in manifest.files:
        return None
    return manifest, manifest.files[path.name]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder, which makes it a compiled dataset."""
    write_json(folder / MANIFEST, asdict(manifest))


def _files(files: Mapping[str, Any]) -> dict[str, CompiledFile]:
    compiled = {}
    for name, about in files.items():
        if isinstance(about, dict):
            rows, digest = about.get("rows"), about.get("sha256")
            if not isinstance(rows, int):
                rows = None
            if not isinstance(digest, str):
                digest = None
            compiled[name] = CompiledFile(rows, digest)
    return compiled


def _object(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {}
