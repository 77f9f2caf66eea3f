"""Atomic writes, staged folders and hashes.

Files and folders are written as temporaries (`temporaries`). `publish` exchanges a staged folder with
its target (RENAME_EXCHANGE, renameat2(2)). On a file system that cannot, it renames twice, and
`.NAME.tuneyard-new` is the journal that `recovered` finishes.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from tuneyard.core.errors import ContentError, RequestError, dangling, nearest_name, show_value, wrong_value
from tuneyard.core.files.bounded_reading import open_regular, read_regular
from tuneyard.core.files.links import refuse_special_file, refuse_written_link
from tuneyard.core.files.temporaries import (
    AT_ONCE,
    OURS,
    TEMPORARY,
    locked,
    remove_folder,
    sweep,
    temporary_file,
    temporary_folder,
    temporary_prefix,
)
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.text.quoting import one_line

Fields = dict[str, object]
"""The fields of an object: a row as read, a message in it, an entry, a configuration."""
JsonObject = dict[str, Any]
"""An object of a JSON document that was checked, or that is written."""
Moved = Callable[[int], object]
"""Takes the number of bytes that were read, for a progress bar."""
SHOWN_NAMES = 8
MODELS = Path("models")
"""Where the documents put base models: a bare name may mean one of them."""
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)  # owner/name
RECOVERABLE = re.compile(rf"{TEMPORARY.pattern}|\..+\.{OURS}(fusing|new|old)", re.DOTALL)
"""The hidden names that `recovered` removes: it holds the lock of the folder that they are in."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_HASHES: dict[tuple[int, ...], str] = {}
"""The hash of each file that this process has read, by what changes if its content does (`file_sha256`)."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK = (*DISK_FULL, errno.EFBIG, errno.EIO)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents. `RequestError` for a dangling link among them, or if the OS refuses."""
    for part in (folder, *folder.parents):
        if part.is_symlink() and not part.exists():
            raise RequestError(
                _("{path}: {link}; make that folder, or name another one", path=part, link=dangling(part))
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError):  # its parent takes no folders (/proc), or a file is there
        raise RequestError(
            _("{folder}: no folder can be made there; name one that is yours", folder=folder)
        ) from None


@contextlib.contextmanager
def atomic(path: Path, *, follows_link: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` on success. It is synced first.

    Temporaries of killed commands in its folder are removed. `RequestError` for a link, unless the user named
    this very path: then `follows_link` replaces its target.
    """
    if not follows_link:
        refuse_written_link(path)
    elif path.is_symlink():
        path = Path(os.path.realpath(path))  # Path.resolve fails at a loop of links
    refuse_special_file(path)
    make_folder(path.parent)
    sweep(path.parent)
    with named(path), temporary_file(path) as (temporary, file):
        yield file
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(path)
    sync(path.parent)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Put `path` into errors that name no file (a full disk) or a temporary file next to `path`.

    A copy that fills the disk names its source first, and the file that it writes second.
    """
    try:
        yield
    except OSError as error:
        file = error.filename
        if error.errno in _DISK and error.errno != errno.EIO:  # which may be of the source, too
            file = error.filename2 or error.filename
        final_path = None
        if isinstance(file, str):
            final_path = _final_path(file, path)
        elif file is None and error.errno in _DISK:
            final_path = path
        if final_path is None:
            raise
        raise OSError(error.errno, error.strerror, str(final_path)) from error


def _final_path(file: str, target: Path) -> Path | None:
    """Where a temporary `file` goes when `target` is published; None if it has another path.

    A temporary path is `.NAME.…` next to the target NAME, or a file inside a folder of that name.
    """
    temporary, folder = Path(file).absolute(), target.parent.absolute()
    if not temporary.is_relative_to(folder) or temporary == folder:
        return None
    name, *inside = temporary.relative_to(folder).parts
    return target.joinpath(*inside) if name.startswith(temporary_prefix(target)) else None


def write_bytes(path: Path, content: bytes, *, follows_link: bool = False) -> None:
    """Write `content`, atomically; into a link as `atomic`."""
    with atomic(path, follows_link=follows_link) as file:
        file.write(content)


def append_bytes(path: Path, content: bytes) -> None:
    """Append to a file in a single write, so that several processes can append to it. Not into a link."""
    refuse_written_link(path)
    with path.open("ab") as file:
        file.write(content)


def write_text(path: Path, text: str, *, follows_link: bool = False) -> None:
    """Write `text` as UTF-8, atomically; into a link as `atomic`."""
    write_bytes(path, text.encode(), follows_link=follows_link)


def write_json(path: Path, value: object, *, ascii_only: bool = False, follows_link: bool = False) -> None:
    """Write `value` as indented JSON with a last newline, atomically; into a link as `atomic`."""
    write_bytes(path, json_text(value, ascii_only=ascii_only).encode(), follows_link=follows_link)


def json_text(value: object, *, ascii_only: bool = False) -> str:
    """`value` as indented JSON with a last newline."""
    return json.dumps(value, ensure_ascii=ascii_only, indent=2, allow_nan=False) + "\n"


def read_json(path: Path) -> object:
    """Read a JSON file as `parse_json` does."""
    return parse_json(read_regular(path), path)


def parse_json(
    text: bytes | str, place: object, line: int = 1, *, column: int = 0, unique_keys: bool = False
) -> object:
    """Parse JSON text (UTF-8) that begins at `line` of the file `place`, after so many characters of it.

    `ContentError` names the place.

    `unique_keys`, for files that are written back, refuses duplicate keys, of which Python's parser keeps
    only the last.
    """
    try:
        if isinstance(text, bytes):  # json.loads would guess UTF-16 and UTF-32
            text = text.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=unique if unique_keys else None)
    except json.JSONDecodeError as error:
        fix = _("correct it there, or make the file again")
        if error.doc[: error.pos].rstrip().endswith(",") and error.doc.startswith(("]", "}"), error.pos):
            fix = _("remove the comma before it")
        in_line = error.colno + (column if error.lineno == 1 else 0)
        raise ContentError(
            _(
                "{place}: not JSON: {reason} (column {column}); {fix}",
                place=f"{relative(place)}:{line + error.lineno - 1}",
                reason=error.msg,
                column=in_line,
                fix=fix,
            )
        ) from error
    except DuplicateKeyError as error:
        raise ContentError(
            _("{path}: duplicate key {key!r}: keep one", path=relative(place), key=error.key)
        ) from error
    except UnicodeDecodeError as error:
        where = relative(place)
        if line > 1:
            where = f"{where}:{line}"
        raise ContentError(
            _("{place}: not UTF-8 at byte {byte}: save it as UTF-8", place=where, byte=error.start)
        ) from error
    except RecursionError as error:
        where = f"{relative(place)}:{line}"
        raise ContentError(_("{place}: nested too deep to be read", place=where)) from error
    except ValueError as error:  # Python reads whole numbers of 4,300 digits at most
        where = f"{relative(place)}:{line}"
        raise ContentError(_("{place}: a number of too many digits to be read", place=where)) from error


class DuplicateKeyError(ValueError):
    """A JSON object has a key twice."""

    def __init__(self, key: str | None) -> None:
        super().__init__(_("duplicate key {key}", key=show_value(key)))
        self.key = key


def unique(pairs: list[tuple[str, object]]) -> Fields:
    """The pairs of a JSON object as its fields; `DuplicateKeyError` for a key that comes again."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise DuplicateKeyError(first_repeated(key for key, _value in pairs))
    return fields


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that was there before, None if each is there once. A file may have a million."""
    before = set()
    for name in names:
        if name in before:
            return name
        before.add(name)
    return None


def read_object(path: Path, *, unique_keys: bool = False) -> Fields:
    """Read a JSON file that must be an object; `ContentError` otherwise."""
    value = parse_json(read_regular(path), path, unique_keys=unique_keys)
    if not isinstance(value, dict):
        raise wrong_value(path, value, _("a JSON object"))
    return value


def are_texts(values: Iterable[object]) -> bool:
    """True if each value is a text, also for no values."""
    return all(isinstance(value, str) for value in values)


def strings(value: object) -> dict[str, str]:
    """Keep the text values of an object; {} for any other value."""
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}


def check_characters(text: str, place: object) -> None:
    """`ContentError` for half a character (a lone surrogate): JSON can have it, no file or tokenizer can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ContentError(
            _(
                "{place}: half a character ({half!r}): correct the text",
                place=relative(place),
                half=half,
            )
        ) from error


def bundled(path: Path) -> Path:
    """Fall back to the bundled file of this name if `path` does not exist. A name may be too long for one."""
    bundled_path = ROOT / path
    if not os.path.exists(path) and is_file(bundled_path):  # noqa: PTH110
        return bundled_path
    return path


def require(path: Path, description: str) -> Path:
    """Check that a path exists. `RequestError` names it, the `description` of its content, and a near one."""
    if not path.exists():
        raise RequestError(
            _(
                "{path}: {description} not found; {near_name}",
                path=path,
                description=description,
                near_name=near_name(path),
            )
        )
    return path


def near_name(path: Path) -> str:
    """What to name in place of a missing path: a near name in its folder, or what the folder has.

    A dangling link is called one. Of a folder with many names it is the command that lists them.
    """
    if path.is_symlink():
        return _("it is {link}: remove it, or bring back what it leads to", link=dangling(path))
    folder = existing(path)
    if not folder.is_dir():
        if folder.parent == Path():
            return _("{path} is a file, expected a folder", path=folder)
        return _(
            '{path} is a file, expected a folder: did you mean "{near}"?', path=folder, near=folder.parent
        )
    names = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    near = nearest_name(path.name, names) if path.parent.is_dir() and not path.exists() else ""
    if nearest_name(path.stem, [Path(near).stem]):  # names with an ending alone in common are not near
        return _('did you mean "{name}"?', name=one_line(relative(path.with_name(near))))
    is_current = folder == Path.cwd()
    if not names:
        return _("this folder is empty") if is_current else _("{folder} is empty", folder=folder)
    if len(names) > SHOWN_NAMES:
        return _("name one that is there: ls {folder}", folder=shlex.quote(relative(folder)))
    listed_names = joined(map(one_line, names))
    if is_current:
        return _("this folder has {names}", names=listed_names)
    return _("in {folder}: {names}", folder=one_line(relative(folder)), names=listed_names)


def is_file(path: Path) -> bool:
    """True for a file. `Path.is_file` raises for a name that is too long, such as a picture in base64."""
    return os.path.isfile(path)  # noqa: PTH113


_HALVES = re.compile("[\ud800-\udfff]")
LONGEST_FOLDER = 200
"""Bytes of a folder's name. File systems take 255, and hidden files beside it have longer names."""


def names_folder(name: str) -> bool:
    """True if a name can be that of a folder: one part of a path, visible, no option (`-rf`), not too long.

    A name in JSON may have a NUL, which no path has, a line break, or half a character.
    """
    if not name or name.startswith((".", "-")) or "\t" in name or one_line(name) != name:
        return False
    size = len(name.encode(errors="surrogatepass"))
    return Path(name).name == name and size <= LONGEST_FOLDER and not _HALVES.search(name)


def is_path(value: object) -> TypeGuard[str]:
    """True for a text that can be a path: in JSON it may have a NUL, or half a character."""
    return isinstance(value, str) and "\0" not in value and not _HALVES.search(value)


def existing(path: Path) -> Path:
    """Nearest existing path: itself, or the first of its parents that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def check_writable(out: Path) -> None:
    """Raise `RequestError` unless OUT, or the nearest of its parents that exists, is a folder for files."""
    folder = existing(out)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise RequestError(
            _(
                "--out {path}: {folder} is no folder that can be written to; name another folder",
                path=out,
                folder=folder,
            )
        )


def no_folder(reference: str, otherwise: str) -> str:
    """Message `REFERENCE: no such folder; did you mean …?`.

    A bare name may be one of models/. Without a similar folder it names those beside it, and `otherwise`.
    """
    paths = [Path(reference)]
    if paths[0].parent == Path():
        paths.append(MODELS / reference)
    for path in paths:
        near = ""
        if path.is_dir():
            near = _('did you mean "{name}"?', name=path)
        elif path.parent.is_dir():
            near = near_name(path)
        if near.endswith("?"):
            return _("{folder}: no such folder; {fix}", folder=relative(reference), fix=near)
    if near:
        otherwise = _("{near_name}; {fix}", near_name=near, fix=otherwise)
    return _("{folder}: no such folder; {fix}", folder=relative(reference), fix=otherwise)


def sha256(*paths: Path) -> str:
    """SHA-256 of a file's bytes as hex, of several as if they were one file.

    `ContentError` for a pipe or a device, whose bytes may never end.
    """
    digest = hashlib.sha256()
    for path in paths:
        with open_regular(path) as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes as hex, which a process reads once while the file stays as it is.

    The weights of a base are asked for by several checks of one command, and by each run of a sweep.
    """
    status = path.stat()
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if identity not in _HASHES:
        _HASHES[identity] = sha256(path)
    return _HASHES[identity]


def files_sha256(paths: Iterable[Path]) -> str:
    """One hash over the names and bytes of files, each read as by `file_sha256`."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return total.hexdigest()


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files of a folder in the order of their names."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file())


def versions(*packages: str) -> dict[str, str]:
    """Versions of the distributions that are installed, without importing them."""
    from importlib import metadata  # 30 ms that most commands do not need

    installed = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return installed


def sync(path: Path) -> None:
    """Make a file that was written, or the renames inside a folder, durable (fsync(2))."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class HeldError(RequestError):
    """Another process works in the same folder."""


@contextlib.contextmanager
def reserved(folder: Path) -> Iterator[int]:
    """Lock a folder, made if it is missing, for what one process writes there; yields its descriptor.

    A child may inherit that. `HeldError` if another process has the lock.
    """
    make_folder(folder)
    with contextlib.ExitStack() as stack:
        try:
            handle = stack.enter_context(locked(folder, how=AT_ONCE))
        except BlockingIOError as error:
            raise HeldError(
                _(
                    "{folder}: another command is writing there; wait for it, or name another folder",
                    folder=folder,
                )
            ) from error
        sweep(folder)
        yield handle


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Yield a new locked folder next to `target` to write into. It is removed unless published.

    Parents that were made for it are removed as well, and before, what killed commands left beside it.
    """
    made = [folder for folder in target.parents if not folder.exists()]
    with named(target), contextlib.ExitStack() as stack:
        if made:
            stack.callback(_drop_empty, made)
        make_folder(target.parent)
        sweep(target.parent)
        yield stack.enter_context(temporary_folder(target))


def _drop_empty(folders: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):  # not empty
        for folder in folders:
            folder.rmdir()


def publish(staged: Path, target: Path, kept: Path | None = None) -> None:
    """Replace `target` by a staged folder or file, synced. The caller holds `locked(target.parent)`.

    What was there is removed; with `kept` it is moved to this path, which is on the same file system and
    free. A kill before the exchange leaves the staged folder there.
    """
    paths = [staged, *staged.rglob("*")]
    for path in reversed(paths):  # a folder after what is in it
        if path.exists():
            with named(path):
                sync(path)
    if staged.is_file() or not target.exists():
        staged.replace(target)
        sync(target.parent)
        return
    if kept is not None:
        staged.rename(kept)
        staged = kept
    exchange(staged, target)
    if kept is None:
        remove_folder(staged)


def exchange(one: Path, target: Path) -> None:
    """Put a folder into the place of `target`, and `target` into its place. Durable."""
    if not _exchange(one, target):
        journal = target.with_name(f".{target.name}.{OURS}new")
        one.rename(journal)
        target.rename(one)
        journal.rename(target)
    sync(target.parent)


@contextlib.contextmanager
def recovered(parent: Path, rescue: Callable[[], None] | None = None) -> Iterator[dict[str, int]]:
    """Lock a folder and finish its interrupted publications. A missing folder has none.

    Yields what killed commands left there and is removed now, as {name: bytes}. `rescue` is called before
    that: what it moves away stays.
    """
    if not parent.is_dir():
        yield {}
        return
    with locked(parent):
        for journal in parent.glob(f".*.{OURS}new"):
            if journal.is_dir() and not journal.is_symlink():
                _finish(journal)
        if rescue is not None:
            rescue()
        yield sweep(parent, RECOVERABLE)


def _finish(journal: Path) -> None:
    target = journal.with_name(journal.name.removeprefix(".").removesuffix(f".{OURS}new"))
    old = journal.with_name(f".{target.name}.{OURS}old")
    if target.exists():
        target.rename(old)
    journal.rename(target)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths atomically. False if kernel or file system lacks RENAME_EXCHANGE."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def free_path(path: Path) -> Path:
    """Choose a name for a new file or folder: `path`, or if it exists, its name with -2, -3 and so on."""
    number = 1
    free = path
    suffix = "" if path.is_dir() else path.suffix
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name.removesuffix(suffix)}-{number}{suffix}")
    return free
