"""Which files a compile reads, and into which split each goes."""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from tuneyard.compiler.read import known_suffixes, readers
from tuneyard.compiler.read.hub import HubFile, find_files
from tuneyard.compiler.read.stream import suffix
from tuneyard.compiler.spec.model import PART, Spec
from tuneyard.core.checkout import bundled
from tuneyard.core.errors import ContentError, Problem, RequestError, nearest
from tuneyard.core.files import sha256

RAW = Path("data/raw")
HUBS = ("hub:", "modelscope:")
MOST_LEFT = 1000
_HUB = re.compile(
    r"(?P<hub>hub|modelscope):(?P<path>[^@:]+)"
    r"(?:@(?P<revision>[^:]+))?(?::(?P<name>[^:]*)(?::(?P<split>[^:]+))?)?"
)
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/name, as hubs have it
# The text of a Path, which keeps one slash of two.
_ADDRESS = re.compile(r"(https?|ftp|s3|gs|hub|modelscope):/*(.*)")
_HUB_PAGE = re.compile(r"/datasets/([\w.-]+/[\w.-]+)")


@dataclass(frozen=True, slots=True)
class Input:
    """One file to read: the split that its rows go to, and its path as the user gave it."""

    split: str
    path: Path | HubFile

    @property
    def shown(self) -> str:
        """The path as it stands in messages; bytes that are not text are escaped."""
        return os.fsencode(str(self.path)).decode(errors="backslashreplace")

    def stamp(self) -> tuple[int, ...]:
        """Return what changes when the file does: device, inode, size, time of change (none: it is gone).

        That is ctime: who writes can set mtime back, as copies that keep times do.
        """
        if isinstance(self.path, Path):
            with contextlib.suppress(FileNotFoundError):
                about = self.path.stat()
                return about.st_dev, about.st_ino, about.st_size, about.st_ctime_ns
        return ()


def find_inputs(spec: Spec, given: Sequence[str]) -> list[Input]:
    """Return the files to read, by --source, else by the spec, else data/raw/NAME; `RequestError` if none.

    A mixture needs a source for each part; --source and the spec may each give some of them.
    """
    inputs = [found for text in given for found in _given(spec, text)]
    if spec.mix or not inputs:
        for part, texts in spec.source.files.items():
            if not any(found.split == part for found in inputs):
                inputs += [Input(part, path) for text in texts for path in data_files(bundled(Path(text)))]
    if not inputs and not spec.mix and (RAW / spec.name).is_dir():
        inputs = _by_name(spec, RAW / spec.name)
    parts = dict(spec.mix.parts) if spec.mix else {}
    for found in inputs:
        parts.pop(found.split, None)
    hubs = {name: part.source.hub for name, part in parts.items()}
    if missing := [name for name, hub in hubs.items() if not hub]:
        fix = f"give it with --source {missing[0]}=PATH"
        raise RequestError(f"no source for {', '.join(missing)} of {spec.name}: {fix}")
    for name, hub in hubs.items():
        inputs += _from_hub(spec, hub, {PART: name})
    if not inputs and spec.source.hub:
        inputs = _from_hub(spec, spec.source.hub, _names_of_splits(spec))
    if not inputs:
        fix = f"give one with --source PATH, or put its files into {RAW / spec.name}/"
        raise RequestError(f"no source for {spec.name}: {fix}")
    order = {part: number for number, part in enumerate(spec.parts)}
    return sorted(inputs, key=lambda found: order[found.split])


@contextlib.contextmanager
def hashing(inputs: Sequence[Input]) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """Yield what returns the inputs as a manifest has them: split, path, hash ("" of the hub: its commit).

    That raises `ContentError` where a file changed since: its hash may be of other bytes than were read.
    """

    def hashes() -> list[str]:
        return ["" if isinstance(found.path, HubFile) else sha256(found.path) for found in inputs]

    def hashed() -> list[dict[str, str]]:
        digests = pending.result()
        if changed := [one.shown for one, was in zip(inputs, before, strict=True) if one.stamp() != was]:
            why = "changed, or was replaced, while it was read; nothing was published"
            raise ContentError(f"{changed[0]}: {why}: compile again when nothing writes to it")
        pairs = zip(inputs, digests, strict=True)
        return [{"split": one.split, "path": one.shown, "sha256": digest} for one, digest in pairs]

    before = [found.stamp() for found in inputs]
    with ThreadPoolExecutor(1) as thread:  # which needs no interpreter lock
        # and imports nothing: an interrupt can leave an import lock held, for which the thread would wait
        pending = thread.submit(hashes)
        yield hashed


def _names_of_splits(spec: Spec) -> dict[str, str]:
    splits = spec.source.splits or {PART: ()}
    return {called: split for split, names in splits.items() for called in (split, *names)}


def _from_hub(spec: Spec, hub: Mapping[str, object], splits: Mapping[str, str]) -> list[Input]:
    own = f"--source PATH, or put its files into {RAW / spec.name}/"
    option = f"--source {next(iter(splits.values()))}=PATH" if spec.mix else own
    fixes = f"without the hub: give files with {option}; with it: a network, or a mirror in HF_ENDPOINT"
    return [Input(split, path) for split, path in find_files(hub, splits, fixes)]


def _named_on_hub(spec: Spec, split: str, text: str) -> list[Input]:
    """Return the splits of a hub's dataset, for a split or part of the spec, or for all splits ("")."""
    match = _HUB.fullmatch(text)
    if match is None:
        raise RequestError(f"--source {text}: expected hub:owner/name[@revision][:config][:split]")
    own = spec.mix.parts[split] if spec.mix else spec
    hub: dict[str, object] = {"stream": own.source.hub.get("stream", False)}
    hub |= {key: value for key, value in match.groupdict().items() if value}
    hub["from"], name = hub.pop("hub"), hub.pop("split", None)
    if isinstance(name, str):
        splits = {name: split or (_split_called(spec, name) if spec.source.splits else PART)}
    else:
        splits = {PART: split} if spec.mix else _names_of_splits(spec)
        splits = {called: ours for called, ours in splits.items() if split in ("", ours)}
    return _from_hub(spec, hub, splits)


def _given(spec: Spec, text: str) -> list[Input]:
    name, rest = _parted(text)
    if not rest:
        raise RequestError(f"--source {text!r}: empty path, expected PATH or SPLIT=PATH")
    if spec.mix and not name:
        raise RequestError(f"--source {text}: say for which part: PART=PATH (parts: {', '.join(spec.parts)})")
    split = _split_called(spec, name) if name else ""
    if rest.startswith(HUBS):
        return _named_on_hub(spec, split, rest)
    return [Input(split, path) for path in data_files(Path(rest))] if name else _by_name(spec, Path(rest))


def _parted(text: str) -> tuple[str, str]:
    """Return the split that a source names, "" for none, and its path."""
    name, sign, rest = text.partition("=")
    return (name, rest) if sign and not Path(text).exists() and "/" not in name else ("", text)


def _split_called(spec: Spec, name: str) -> str:
    for split in spec.parts:
        if name == split or name in spec.source.splits.get(split, ()):
            return split
    hint = nearest(name, spec.parts)
    raise RequestError(f"{spec.name} has no split {name!r} (splits: {', '.join(spec.parts)}) {hint}".rstrip())


def _by_name(spec: Spec, path: Path) -> list[Input]:
    """Put each file into the split that its name holds, or where a file holds rows of several, into each."""
    files = data_files(path)
    if not spec.source.splits:
        return [Input(PART, file) for file in files]
    if held := [part for part in spec.source.rows if part in spec.splits]:
        return [Input(part, file) for file in files for part in held]
    inputs = [Input(_split_in(spec, file), file) for file in files]
    if strange := [found.path for found in inputs if not found.split]:
        wrong = f"its name tells no split of {spec.name} (splits: {', '.join(spec.splits)})"
        raise RequestError(f"{strange[0]}: {wrong}; say --source SPLIT={strange[0]}")
    return inputs


def _split_in(spec: Spec, path: Path) -> str:
    """Return the split that a file's name holds a name of, the longest one; "" for none."""
    stem = path.name.split(".")[0].lower()
    names = _names_of_splits(spec)
    held = [name for name in names if re.search(rf"(?:^|[-_ ]){re.escape(name.lower())}(?:$|[-_ \d])", stem)]
    return names[max(held, key=len)] if held else ""


def data_files(path: Path) -> list[Path]:
    """Return a file, or the data files of a folder; `RequestError` where there are none."""
    try:
        path.stat()
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.is_file() and suffix(file) in readers())
            found = [file for file in found if suffix(file) != ".txt"] or found  # a licence, a readme
            if not found:
                raise RequestError(f"{path}: no data files in this folder (known: {known_suffixes()})")
            return found
        if not path.is_file():
            raise RequestError(f"{path}: not a file or a folder")
    except FileNotFoundError as error:
        raise RequestError(_not_found(path)) from error
    except OSError as error:  # a loop of links, a name too long, no permission
        raise RequestError(f"{path}: {error.strerror}") from error
    return [path]


def _not_found(path: Path) -> str:
    """Return why a source is not there; an address gets the ways to read what it names."""
    address = _ADDRESS.fullmatch(str(path))
    if address is None:
        hint = ""
        if _REPOSITORY.fullmatch(str(path)) and suffix(path) not in (*readers(), ".zip"):
            hint = (
                "; a dataset of the Hugging Face Hub is compiled by "
                f"`tuneyard data compile SPEC --source hub:{path}`"
            )
        return f"{path}: source not found{hint}"
    scheme, rest = address.groups()
    is_hub = scheme in ("hub", "modelscope")
    shown = f"{scheme}:{rest}" if is_hub else f"{scheme}://{rest}"
    page = _HUB_PAGE.search(rest)
    if is_hub:
        source = shown
    elif page:
        source = f"hub:{page[1]}"
    else:
        source = "hub:OWNER/NAME"
    return (
        f"{shown}: an address, expected a file or folder: download it first, or compile a dataset of the "
        f"Hugging Face Hub with `tuneyard data compile SPEC --source {source}`"
    )


def unread(given: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each folder given whose texts, or data files in folders below, are left out."""
    for text in given:
        folder = Path(_parted(text)[1])
        if not folder.is_dir():
            continue
        read = set(data_files(folder))
        below = (file for file in folder.rglob("*") if suffix(file) in readers() and file.is_file())
        kept = (file for file in below if not any(p.startswith(".") for p in file.relative_to(folder).parts))
        if left := sorted(islice((file for file in kept if file not in read), MOST_LEFT)):
            many = f"{len(left)}{'+' if len(left) == MOST_LEFT else ''}"
            yield f"{folder}: {many} data files are not read, {left[0]} first: name them with --source"


def texts_by_line(inputs: Sequence[Input]) -> Iterator[Problem]:
    """Yield a warning for each folder of several .txt files, which may be documents: their lines are rows."""
    texts = [
        (found.path.parent, found.split)
        for found in inputs
        if isinstance(found.path, Path) and suffix(found.path) == ".txt"
    ]
    for (folder, _), files in Counter(texts).items():
        if files > 1:
            message = (
                f"{files} .txt files: each line that is not blank is a row; no file is kept as a document"
            )
            hint = 'for a document a row write .jsonl with one {"text": …} a line (docs/compiler.md)'
            yield Problem("W221", str(folder), message, "", hint)


def with_rivals(spec: Spec, inputs: Sequence[Input]) -> Spec:
    """Return a mixture in which parts that sort the same files by keywords know of each other's."""
    parts = dict(spec.mix.parts) if spec.mix else {}
    sorts = {name: part.filter for name, part in parts.items() if part.filter.keywords}
    reads = {name: [found.shown for found in inputs if found.split == name] for name in sorts}
    for name in sorts:
        rivals = [other for other in sorts if reads[other] == reads[name]]
        fields = tuple(sorts[other].keywords for other in rivals)
        wanted = replace(sorts[name], fields=fields, place=rivals.index(name))
        parts[name] = replace(parts[name], filter=wanted)
    return replace(spec, mix=replace(spec.mix, parts=parts)) if spec.mix else spec
