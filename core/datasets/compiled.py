"""What a compile leaves next to the records, for `data verify`, recipes, exports and scoring.

manifest.json has the inputs, counts, files and registry entries of the compile, which writes it last.

`train.examples.npy` is the row index of `train.json`: fingerprints of its examples, and their clusters. It is
a numpy array of as many rows with the field `xxh3`, named after the hash of its fingerprints. A second field
has the name of the cluster column, if there is one. Records cannot have these fields: their format fixes
their keys. The index of a file with the rows of all splits has the fields `trained` and `split` instead.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, NamedTuple

from xxhash import xxh3_64_intdigest

from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import ContentError
from tuneyard.core.files import Fields, JsonObject, atomic, read_json, read_object, write_json
from tuneyard.core.files.bounded_reading import open_regular
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import Message, _

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANIFEST = "manifest.json"
NUMPY = b"\x93NUMPY"
FINGERPRINT, TRAINED, SPLIT = "xxh3", "trained", "split"
ROW_INDEX = ".examples.npy"
"""The end of a row index's name."""
SEPARATOR = "\x1e"
_SCHEMA = ROOT / "core/schemas/manifest.json"
Entry = Fields
"""An entry of dataset_info.json."""
Entries = dict[str, Entry]
"""Entries by the name of their dataset."""


@dataclass(frozen=True, slots=True)
class CompiledFile:
    """A file that a compile wrote."""

    rows: int
    sha256: str


CompiledFiles = dict[str, CompiledFile]
"""The files of a compile by their name."""


class CompiledSource(NamedTuple):
    """A file that a compile read for a split, by its path or by its address.

    A local file has a hash. A remote one has a version, unless its address has the commit. `names` are those
    of its members or sheets that were read, "" for the whole file.
    """

    split: str
    path: str
    sha256: str
    version: str = ""
    names: str = ""

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
    counts: JsonObject = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)
    first_problems: list[Any] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_used: JsonObject = field(default_factory=dict)
    ignored: JsonObject = field(default_factory=dict)
    fit: JsonObject = field(default_factory=dict)
    cluster: str | None = None
    files: CompiledFiles = field(default_factory=dict)
    entries: Entries = field(default_factory=dict)
    made_from: JsonObject = field(default_factory=dict)
    tuneyard: Mapping[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> str:
        """The name or the path of the spec, "" if it is unknown."""
        return str(self.made_from.get("spec", ""))

    @property
    def definition(self) -> JsonObject:
        """The spec as it was read, with its keys."""
        definition: JsonObject = self.made_from.get("definition", {})
        return definition

    @property
    def sources(self) -> list[CompiledSource]:
        """The files that were compiled."""
        return sources_of(self.made_from)

    @property
    def media_folders(self) -> list[Path]:
        """Folders below which the compile found images, videos and audios, if rows have any."""
        source = self.definition.get("source")
        folders = [Path(each.path).parent for each in self.sources if each.is_local]
        if isinstance(source, dict) and source.get("media_dir"):
            folders.insert(0, Path(source["media_dir"]))
        return folders

    @property
    def records(self) -> dict[str, int]:
        """The number of records by dataset."""
        records: dict[str, int] = self.counts.get("records", {})
        return records

    def file_of(self, dataset: str) -> str:
        """The name of the file of a registered dataset."""
        return Path(str(self.entries[dataset].get("file_name"))).name


def sources_of(made_from: JsonObject) -> list[CompiledSource]:
    """The files in the identity of a compile, as its manifest has it."""
    keys = CompiledSource._fields
    sources = made_from.get("sources", ())
    return [CompiledSource(**{key: source.get(key, "") for key in keys}) for source in sources]


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder, None without one. `ContentError` if it is damaged.

    None also for a file of this name that another tool wrote (next to images, say).
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    content = read_json(path)
    made_from = content.get("made_from") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(made_from, dict) or "sources" not in made_from:
        return None
    schema, validator = _schema()
    if not validator.is_valid(content):
        check_file(path, schema, content)
    values = {each.name: content[each.name] for each in fields(Manifest) if each.name in content}
    files = content.get("files", {})
    values["files"] = {name: CompiledFile(file["rows"], file["sha256"]) for name, file in files.items()}
    return Manifest(**values)


@cache
def _schema() -> tuple[Fields, Any]:
    """The schema of a manifest, and its validator: one of another shape was damaged or edited."""
    import jsonschema_rs

    schema = read_object(_SCHEMA)
    return schema, jsonschema_rs.validator_for(schema)


EMPTY = Manifest()
Manifests = dict[str, Manifest]
"""Manifests by the name of their folder."""


def read_manifests(folder: Path) -> Manifests:
    """Read the manifests of the compiled datasets in a folder, by name; `ContentError` if one is broken."""
    manifests: Manifests = {}
    for path in sorted(folder.glob(f"[!.]*/{MANIFEST}")):
        manifest = read_manifest(path.parent)
        if manifest is not None:
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


class RowIndex(NamedTuple):
    """Fingerprints (uint64) of a dataset's examples and its clusters by column (uint32), in its row order.

    Of a file with the rows of all splits it tells instead what became of each row:

    - `trained`: its fingerprint in the dataset of its split, which may word the prompt otherwise.
    - `splits`: the number of its split: 0 for `train`, then in the order of the spec.
    """

    fingerprints: "NDArray[np.uint64]"
    clusters: "dict[str, NDArray[np.uint32]]"
    trained: "NDArray[np.uint64] | None" = None
    splits: "NDArray[np.uint8] | None" = None


def row_index_file(records: Path) -> Path:
    """File next to a dataset's records: `train.json` → `train.examples.npy`."""
    stem = records.name.removesuffix(".jsonl").removesuffix(".json")
    return records.with_name(f"{stem}{ROW_INDEX}")


def fingerprints(joined: Sequence[str]) -> "array[int]":
    """XXH3 (64 bits) of the prompts of examples: the texts of the messages before the last answer.

    The texts of each prompt are joined by `SEPARATOR`. The system text is left out, since it does not make
    another example. Two other prompts have the same fingerprint with probability 2^-64, unless somebody makes
    them so: XXH3 is fast, not cryptographic.
    """
    return array("Q", list(map(xxh3_64_intdigest, map(str.encode, joined))))


def write_row_index(
    path: Path,
    fingerprints: "array[int] | memoryview[int]",
    others: "Mapping[str, array[int] | memoryview[int]]",
) -> None:
    """Write fingerprints and other columns of all rows. `ValueError` if their lengths differ.

    The others are the numbers of clusters (`I`), or `TRAINED` (`Q`) and `SPLIT` (`B`).

    The file has numpy's format 3.0, in which names of columns may be in any language.
    """
    import numpy as np

    columns = {FINGERPRINT: memoryview(fingerprints)}
    for name, numbers in others.items():
        columns[name] = memoryview(numbers)
    fields = [(name, f"<u{column.itemsize}") for name, column in columns.items()]
    rows = np.empty(len(fingerprints), dtype=fields)
    for name, column in columns.items():
        if len(column) != len(rows):
            raise ValueError(
                _(
                    "{name}: found {column} numbers, expected {rows}",
                    name=name,
                    column=len(column),
                    rows=len(rows),
                )
            )
        rows[name] = column
    with atomic(path) as file:
        np.lib.format.write_array(file, rows, version=(3, 0), allow_pickle=False)


def read_row_index(records: Path) -> RowIndex | None:
    """Read the row index of a dataset's records, None if it has none. `ContentError` for a broken file."""
    path = row_index_file(records)
    if not path.is_file():
        return None
    rows = read_numbers(path, _("compile the dataset again"))
    names = rows.dtype.names or ()
    if names[1:] == (TRAINED, SPLIT):
        return RowIndex(rows[FINGERPRINT], {}, rows[TRAINED], rows[SPLIT])
    return RowIndex(rows[FINGERPRINT], {name: rows[name] for name in names[1:]})


def read_numbers(path: Path, fix: Message) -> "NDArray[np.void]":
    """The rows of a file in the format of a row index. The field `FINGERPRINT` is its first one.

    `ContentError` for a broken file, which names the `fix`.
    """
    import numpy as np

    with open_regular(path) as file:
        begin = file.read(len(NUMPY))
    if begin != NUMPY:  # numpy would open a zip archive or a pickle, too
        raise ContentError(_("{path}: broken row index: not a numpy array; {fix}", path=path, fix=fix))
    try:
        # Mapped, so that neither more rows than the file has nor a sparse file takes memory.
        rows = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError, SyntaxError, TokenError, OverflowError, OSError) as error:
        raise ContentError(
            _("{path}: broken row index: {reason}; {fix}", path=path, reason=error, fix=fix)
        ) from error
    names = rows.dtype.names or ("",)
    are_numbers = all(rows.dtype[name].kind == "u" for name in rows.dtype.names or ())
    if rows.ndim != 1 or names[0] != FINGERPRINT or not are_numbers:
        raise ContentError(
            _(
                "{path}: found {dtype}, expected a field {fingerprint!r}; {fix}",
                path=path,
                dtype=rows.dtype,
                fingerprint=FINGERPRINT,
                fix=fix,
            )
        )
    return rows
