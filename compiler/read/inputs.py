"""Which files a compile reads, and into which split each goes."""

import contextlib
import glob
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tuneyard.compiler.read import F, is_no_data, known_suffixes, readers, without_texts
from tuneyard.compiler.read.hub import find_files
from tuneyard.compiler.read.placement import (
    members_of_split,
    names_of_splits,
    note_on_name,
    placements,
    placements_in_split,
    refuse_other_splits,
    with_given_splits,
)
from tuneyard.compiler.read.remote import (
    CHANGED,
    STORES,
    RemoteFile,
    RemoteFolder,
    SourceFile,
    SourcePath,
    find_remote,
)
from tuneyard.compiler.read.saved import ABOUT_SAVED, saved_files
from tuneyard.compiler.read.split_names import split_of_folder, splits_named_in
from tuneyard.compiler.read.stream import suffix
from tuneyard.compiler.spec.file import find_spec
from tuneyard.compiler.spec.model import Spec
from tuneyard.compiler.spec.paths import ADDRESS, matches, no_match, refuse_path_of_shell
from tuneyard.core.datasets import REGISTRY, TRAIN_SPLIT
from tuneyard.core.errors import ContentError, RequestError, nearest
from tuneyard.core.files import HUB_ID, near_name, sha256
from tuneyard.core.files.links import own_file
from tuneyard.core.language.message import PathText, _, marked
from tuneyard.core.text.quoting import shell

RAW = Path("data/raw")
SQLITE = (".db", ".sqlite", ".sqlite3")
HUB = "hub:"
_HUB = re.compile(
    r"hub:(?P<path>[^@:]+)"
    r"(?:@(?P<revision>[^:]+))?(?::(?P<name>[^:]*)(?::(?P<split>[^:]+))?)?"
)
_NO_ROWS = {
    "adapter_config.json": marked("{path}: expected rows, found an adapter: tuneyard adapter show {folder}"),
    "tokenizer_config.json": marked(
        "{path}: expected rows, found a model, which other commands take: --model {folder}"
    ),
    "run.json": marked(
        "{path}: expected rows, found scored answers: tuneyard eval compare --out DIR {folder}"
    ),
    REGISTRY: marked("{path}: expected rows, found the list of datasets: tuneyard data list --out {folder}"),
}
"""Files without rows, and the error with the command that takes their folder. One shows what a folder is."""
_HUB_PAGE = re.compile(r"https?://.*/datasets/([\w.-]+/[\w.-]+)")


class Input(NamedTuple):
    """One file to read, and the input that it is of: a split, or a source of a mixture.

    - `input_name`: that of the split or source (`Spec.input_names`). `path`: as the user gave it.
    - `folder`: the folder, or the file itself, that the user gave; None for a file of a hub.
    - `names`: the members of an archive, or the sheets of a workbook, that have these rows; () for all.
    - `note`: what its name says about its split, unless the spec's own names decide; "" for nothing.
    """

    input_name: str
    path: SourceFile
    folder: SourcePath | None = None
    names: tuple[str, ...] = ()
    note: str = ""

    @property
    def display_path(self) -> PathText:
        """The path in messages; bytes that are not text are escaped."""
        return PathText(os.fsencode(str(self.path)).decode(errors="backslashreplace"))

    @property
    def location_of_rows(self) -> PathText:
        """The path, with the first member or sheet if not all are read."""
        if not self.names:
            return self.display_path
        if suffix(self.path) == ".zip":
            return PathText(f"{self.display_path}/{self.names[0]}")
        return PathText(f"{self.display_path}, sheet {self.names[0]}")

    def identity(self) -> dict[str, str]:
        """The file in `sources` of a manifest: split (or source of a mixture), path and hash.

        A remote file has "" and its version: hashing it would mean fetching it. A commit in its address
        is version enough.
        """
        source = {"split": self.input_name, "path": self.display_path, "sha256": ""}
        if self.names:
            source["names"] = ", ".join(self.names)
        if isinstance(self.path, Path):
            source["sha256"] = sha256(*files_with_rows(self.path))
        elif not self.path.is_pinned:
            source["version"] = self.path.version
        return source

    def stamp(self) -> tuple[int, ...]:
        """Identity of a local file's content: (device, inode, size, ctime), () if deleted.

        The time is ctime: a writer can set mtime back, as copies that keep times do. The log of a database
        follows with its mtime, since a reader changes its ctime.
        """
        if not isinstance(self.path, Path):
            return ()
        stamp: tuple[int, ...] = ()
        with contextlib.suppress(FileNotFoundError):
            about = self.path.stat()
            stamp = (about.st_dev, about.st_ino, about.st_size, about.st_ctime_ns)
            for log in files_with_rows(self.path)[1:]:
                about = log.stat()
                stamp += (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
        return stamp


def files_with_rows(path: Path) -> list[Path]:
    """A source file, and for a database in use SQLite's log next to it, which has its newest rows."""
    log = path.with_name(f"{path.name}-wal")
    if path.suffix.lower() in SQLITE and log.is_file() and log.stat().st_size:
        return [path, log]
    return [path]


def find_inputs(spec: Spec, sources: Sequence[str]) -> list[Input]:
    """The files to read: those of `--source`, or of the spec, or of data/raw/NAME. `RequestError` if none.

    Each source of a mixture needs files or a hub. `--source` and the spec may each name some of them.
    The splits are those of the spec that `spec_with_inputs` returns.
    """
    raw_folder = RAW / spec.name
    with_splits = with_given_splits(spec)
    inputs = []
    for source in sources:
        inputs += _inputs_of_option(with_splits, source)
    if spec.mix or not inputs:
        filled_inputs = {item.input_name for item in inputs}
        for input_name, paths in spec.source.files.items():
            if input_name not in filled_inputs:
                for path in paths:
                    for file_or_folder in _paths_of_spec(spec, path):
                        inputs += _inputs(spec, input_name, file_or_folder)
    if spec.mix:
        filled_inputs = {item.input_name for item in inputs}
        hubs = {name: each.source.hub for name, each in spec.mix.sources.items() if name not in filled_inputs}
        missing = [name for name, hub in hubs.items() if not hub]
        if missing:
            fix = _("give it with --source {split}=PATH", split=missing[0])
            raise RequestError(
                _(
                    "no source for {missing} of {name}: {fix}",
                    missing=", ".join(missing),
                    name=spec.name,
                    fix=fix,
                )
            )
        for name, hub in hubs.items():
            inputs += _from_hub(spec, hub, {TRAIN_SPLIT: name})
    elif not inputs and raw_folder.is_dir():
        inputs = _by_name(with_splits, raw_folder)
    elif not inputs and spec.source.hub:
        inputs = _from_hub(spec, spec.source.hub, names_of_splits(spec))
    if not inputs:
        fix = _("give one with --source PATH, or put its files into {folder}/", folder=raw_folder)
        raise RequestError(_("no source for {name}: {fix}", name=spec.name, fix=fix))
    return sorted(inputs, key=lambda item: with_splits.input_names.index(item.input_name))


def spec_with_inputs(spec: Spec, sources: Sequence[str]) -> tuple[Spec, list[Input]]:
    """The spec with which the files are read, and the files. Files of held-out rows replace its draw.

    A row of a mixture goes to the first of its sources whose keywords it has.
    """
    inputs = find_inputs(spec, sources)
    if spec.split and any(item.input_name != TRAIN_SPLIT for item in inputs):
        spec = with_given_splits(spec)
    return _with_earlier_keywords(spec, inputs), inputs


def _paths_of_spec(spec: Spec, path: str) -> list[SourcePath]:
    """The files and folders of a path or pattern that the spec names. `RequestError` if there are none."""
    if _is_address(path):
        return [find_remote(path)]
    paths = matches(path)
    if not paths:
        refuse_path_of_shell(find_spec(spec.given_as).parent, path)
        if glob.has_magic(path):
            raise RequestError(no_match(path))
        raise RequestError(
            _(
                "{path}: source not found; the spec {spec} names it; {hint}",
                path=path,
                spec=spec.given_as,
                hint=near_name(Path(path)),
            )
        )
    return list(paths)


def refuse_changed(inputs: Sequence[Input], stamps: Sequence[tuple[int, ...]]) -> None:
    """`ContentError` if a file has changed since its stamp: its hash may be of other bytes than were read."""
    for item, stamp in zip(inputs, stamps, strict=True):
        if isinstance(item.path, RemoteFile):
            item.path.check()
        elif item.stamp() != stamp:
            raise ContentError(_("{path}: {change}", path=item.display_path, change=CHANGED))


def _is_address(text: str) -> bool:
    """True for `s3://…` and other addresses that can be read, and for none that is a path."""
    scheme, sign, _unused = text.partition("://")
    return bool(sign) and scheme in STORES


def _from_hub(spec: Spec, hub: Mapping[str, object], splits: Mapping[str, str]) -> list[Input]:
    option: str = _("--source PATH, or put its files into {folder}/", folder=RAW / spec.name)
    if spec.mix:
        option = f"--source {next(iter(splits.values()))}=PATH"
    fixes = _(
        "without the hub: give files with {option}; with it: a network, or a mirror in HF_ENDPOINT",
        option=option,
    )
    return [Input(split, path) for split, path in find_files(hub, splits, fixes)]


def _named_on_hub(spec: Spec, split: str, source: str) -> list[Input]:
    """The files of a hub's dataset, for a split or a source of a mixture, or for all splits ("")."""
    match = _HUB.fullmatch(source)
    if match is None or not HUB_ID.fullmatch(match["path"]):
        raise RequestError(
            _("--source {source}: expected hub:owner/name[@revision][:config][:split]", source=source)
        )
    hub = {"stream": spec.of_input(split).source.hub.get("stream", False)}
    hub |= {key: match[key] for key in ("path", "revision", "name") if match[key]}
    name = match["split"]
    splits = {TRAIN_SPLIT: split}
    if name:
        if not split:
            split = names_of_splits(spec).get(name, TRAIN_SPLIT)
            if spec.source.splits:
                split = _split_called(spec, name)
        splits = {name: split}
    elif not spec.mix:
        splits = names_of_splits(spec, split)
    note = note_on_name(TRAIN_SPLIT if spec.mix else split, name) if name else ""
    if name and not note and split in spec.source.held_out:
        note = _("named like {name}, read as {split}", name=split, split=split)
    return [item._replace(note=note) for item in _from_hub(spec, hub, splits)]


def _inputs_of_option(spec: Spec, option: str) -> list[Input]:
    """The files of one `--source`."""
    name, path = _split_and_path(option)
    if not path:
        raise RequestError(_("--source {option!r}: empty path, expected PATH or SPLIT=PATH", option=option))
    if spec.mix and not name:
        names = ", ".join(spec.input_names)
        raise RequestError(
            _("--source {option}: name its part: PART=PATH (parts: {names})", option=option, names=names)
        )
    split = _split_called(spec, name) if name else ""
    if path.startswith(HUB):
        return _named_on_hub(spec, split, path)
    inputs = []
    for source in _sources_matching(path):
        if name:
            inputs += _saved_inputs(spec, source, split) or _inputs(spec, split, source)
        else:
            inputs += _by_name(spec, source)
    return inputs


def _sources_matching(text: str) -> list[SourcePath]:
    """The sources of a path or pattern as a user typed it. `RequestError` if there are none."""
    if not glob.has_magic(text) or ADDRESS in text:
        return [existing_source(text)]
    paths = matches(text)
    if not paths:
        raise RequestError(no_match(text))
    return list(paths)


def _split_and_path(source: str) -> tuple[str, str]:
    """The split that a source names ("" if none), and its path."""
    name, sign, path = source.partition("=")
    if sign and not Path(source).exists() and "/" not in name:
        return name, path
    return "", source


def _split_called(spec: Spec, name: str) -> str:
    """The split that accepts a name, otherwise the one that its words name: `Validation`, `验证集`."""
    split = names_of_splits(spec).get(name)
    usual_splits = () if spec.mix else splits_named_in(name)
    if split is None and len(usual_splits) == 1:
        split = next((other for other in spec.input_names if splits_named_in(other) == usual_splits), None)
    if split is None:
        message = _(
            "{spec} has no split {name!r} (splits: {splits})",
            spec=spec.name,
            name=name,
            splits=", ".join(spec.input_names),
        )
        hint = nearest(name, spec.input_names)
        raise RequestError(_("{error}; {hint}", error=message, hint=hint) if hint else message)
    return split


def _by_name(spec: Spec, path: SourcePath) -> list[Input]:
    """Put each file into the split that it is named like, and a file with the rows of several into each."""
    if spec.source.splits or spec.source.held_out:
        saved = _saved_inputs(spec, path)
        if saved:
            return saved
    files = [file for folder in _folders_of_splits(path) for file in data_files(folder)]
    splits_in_file = [split for split in spec.source.rows if split in spec.splits]
    if splits_in_file:
        return [Input(split, file, path) for file in files for split in splits_in_file]
    inputs = []
    for file in files:
        for split, names, note in placements(spec, file, has_folder=path != RAW / spec.name):
            inputs.append(Input(split, file, path, names, note))
    return inputs


def _folders_of_splits(path: SourcePath) -> Sequence[SourcePath]:
    """The folders in a folder that are named like splits if it has no data itself, otherwise the path."""
    if not isinstance(path, Path) or not path.is_dir() or saved_files(path):
        return [path]
    entries = sorted(path.iterdir())
    folders = [entry for entry in entries if entry.is_dir() and split_of_folder(entry.name)]
    if readable(entry for entry in entries if not entry.is_dir()):
        return [path]
    return [own_file(folder) for folder in folders if readable(folder.iterdir())] or [path]


def _saved_inputs(spec: Spec, path: SourcePath, only_split: str = "") -> list[Input]:
    """The files of a folder that names its splits: those of the spec's splits, or of the `only_split` one.

    If none is called train, the only one without a split's name is to train on: `all` next to `holdout`.
    """
    accepted = names_of_splits(spec, only_split)
    inputs = []
    files_by_split = saved_files(path) if isinstance(path, Path) else {}
    for name, files in files_by_split.items():
        if name in accepted:
            split = accepted[name]
            note = ""
            if split in spec.source.held_out and not only_split:
                note = _("named like {name}, read as {split}", name=split, split=split)
            inputs += [Input(split, file, path, note=note) for file in files]
    has_rows_to_train_on = any(item.input_name == TRAIN_SPLIT for item in inputs)
    if only_split not in ("", TRAIN_SPLIT) or TRAIN_SPLIT not in spec.input_names or has_rows_to_train_on:
        return inputs
    unnamed = [name for name in files_by_split if name not in accepted and not splits_named_in(name)]
    if len(unnamed) == 1:
        inputs += [Input(TRAIN_SPLIT, file, path) for file in files_by_split[unnamed[0]]]
    return inputs


def _inputs(spec: Spec, split: str, path: SourcePath) -> list[Input]:
    """The inputs of a split that the user or the spec gives to a file, or to a folder with its files.

    Of a folder whose files, or folders, are named like splits those of this split are read, and those without
    a split's name. `RequestError` if all are of other splits.
    """
    inputs = []
    files = _files_of_split(spec, split, path)
    for file, is_named in files.items():
        for _unused, names, note in placements_in_split(spec, split, file, is_named=is_named):
            inputs.append(Input(split, file, path, names, note))
    return inputs


def _files_of_split(spec: Spec, split: str, path: SourcePath) -> dict[SourceFile, bool]:
    """The files of a source that belong to a split, and if the name of one in a folder says so."""
    files_by_split = saved_files(path) if isinstance(path, Path) else {}
    if isinstance(path, RemoteFile) or (isinstance(path, Path) and not path.is_dir()):
        return dict.fromkeys(data_files(path), False)
    if TRAIN_SPLIT in files_by_split or (files_by_split and len(files_by_split) != 1):
        return dict.fromkeys(data_files(path), False)
    files: list[SourceFile] = []
    names: list[tuple[str, bool]] = []
    for folder in _folders_of_splits(path):
        for file in data_files(folder):
            files.append(file)
            names.append((str(folder).rpartition("/")[2], True) if folder != path else (file.name, False))
    if files_by_split:
        names = [(name, False) for name in files_by_split for _unused in files]
    is_of_split = members_of_split(spec, split, names)
    if set(is_of_split) == {False}:
        members = list(dict.fromkeys(name for name, _unused in names))
        refuse_other_splits(split, str(path), members)
    return {
        file: bool(is_its) for file, is_its in zip(files, is_of_split, strict=True) if is_its is not False
    }


def data_files(path: SourcePath) -> Sequence[SourceFile]:
    """A file, or the data files of a folder; `RequestError` if there are none.

    If the files of a folder name splits, the files of `train` are read, or the files of the only split.
    """
    if isinstance(path, RemoteFile):
        return [path]
    if isinstance(path, RemoteFolder):
        return _data_files_among(path, [file for file in path.files if file.name not in ABOUT_SAVED])
    for name, template in _NO_ROWS.items():
        if path.name == name or (name != REGISTRY and (path / name).is_file()):
            folder = path.parent if path.name == name else path
            raise RequestError(_(template, path=path, folder=shlex.quote(str(folder))))
    if path.is_dir():
        return _files_of_folder(path)
    if not path.is_file():
        raise RequestError(_("{path}: not a file or a folder", path=path))
    return [path]


def _files_of_folder(folder: Path) -> list[Path]:
    """The data files of a folder: as its reader lists them, or all that have a reader."""
    files_by_split = saved_files(folder)
    if not files_by_split:
        # With links that lead nowhere: opening one is an error.
        files = _data_files_among(folder, [entry for entry in sorted(folder.iterdir()) if not entry.is_dir()])
        return [own_file(file) for file in files]
    if TRAIN_SPLIT in files_by_split:
        return files_by_split[TRAIN_SPLIT]
    if len(files_by_split) == 1:
        return next(iter(files_by_split.values()))
    names = list(files_by_split)
    raise RequestError(
        _(
            "{folder}: contains the splits {names}, and none is {split}: name one, --source {path}",
            folder=folder,
            names=", ".join(names),
            split=TRAIN_SPLIT,
            path=folder / names[0],
        )
    )


def _data_files_among(folder: Path | RemoteFolder, files: Sequence[F]) -> list[F]:
    """The files that have a reader. `RequestError` if there are none."""
    data = readable(files)
    if not data:
        fix = _("name the folder or file that has the rows")
        if REGISTRY in [file.name for file in files]:
            fix = _(
                "its datasets are compiled already: tuneyard data list --out {folder}", folder=shell(folder)
            )
        raise RequestError(
            _(
                "{folder}: no data files in this folder (known: {known_suffixes}); {fix}",
                folder=folder,
                known_suffixes=known_suffixes(),
                fix=fix,
            )
        )
    return without_texts(data)


def readable(files: Iterable[F]) -> list[F]:
    """The files that have a reader."""
    return [file for file in files if suffix(file) in readers() and not is_no_data(file.name)]


def existing_source(text: str) -> SourcePath:
    """The path of a source as a user typed it. `RequestError` with ways to read its dataset if it is missing.

    A path that begins with `./`, `../`, `/` or `~` is never taken for the name of a dataset on a hub.
    """
    if _is_address(text):
        return find_remote(text)
    if not text:  # Path("") is the current folder
        raise RequestError(_("the source has no name: expected a file or a folder"))
    path = Path(text)
    if not path.exists():
        raise RequestError(_not_found(text))
    return path


def _not_found(text: str) -> str:
    """Message for a source that does not exist, with the way in which it would be read."""
    page = _HUB_PAGE.match(text)
    dataset = page[1] if page else text.removeprefix(HUB)
    is_near = Path(text).parent.is_dir()
    if HUB_ID.fullmatch(dataset) and not is_near and suffix(Path(text)) not in readers():
        return _(
            "{source}: source not found; a dataset of the Hugging Face Hub is compiled by "
            "`tuneyard data compile SPEC --source hub:{dataset}`",
            source=text,
            dataset=shell(dataset),
        )
    if "://" in text:
        return _(
            "{text}: an address, expected a file, a folder, or an address of s3://, gs:// or "
            "hf://: download it first",
            text=text,
        )
    return _("{path}: source not found; {hint}", path=text, hint=near_name(Path(text)))


def _with_earlier_keywords(spec: Spec, inputs: Sequence[Input]) -> Spec:
    """Give each source of a mixture the keywords of the sources before it that read the same files.

    A row goes to the first source whose keywords it has. Other specs stay.
    """
    if spec.mix is None:
        return spec
    sources = dict(spec.mix.sources)
    earlier: dict[tuple[str, ...], tuple[str, ...]] = {}
    for name, source in sources.items():
        files = tuple(item.display_path for item in inputs if item.input_name == name)
        taken = earlier.get(files, ())
        if source.filter.keywords:
            sources[name] = source._replace(filter=source.filter._replace(taken=taken))
            earlier[files] = taken + source.filter.keywords
    return spec._replace(mix=spec.mix._replace(sources=sources))
