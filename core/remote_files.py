"""Files at an address (`s3://bucket/key.jsonl`, `gs://…`, `hf://datasets/OWNER/NAME/…`), read by fsspec.

fsspec and the package of each store take keys, regions and endpoints from where the store's own tool has
them (AWS_PROFILE, AWS_ENDPOINT_URL, HF_TOKEN, …) and from the configuration of fsspec. Reads fetch ranges of
bytes. Nothing is copied to the disk, but for what a reader has to jump about in and cannot: a compressed
Parquet file, archive or workbook is unpacked into a temporary file.
"""

import contextlib
import io
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswerError
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.packages import missing

WITHIN = 45.0  # seconds in which a store must answer, so that no command waits for minutes
AT_ONCE = 1 << 21  # bytes that are asked for within that time: 47 kB/s are fast enough
BLOCK = 1 << 20  # bytes of one request where a reader jumps to and fro
KEPT = 128
SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
"""The kinds of addresses, each with the package that fsspec reads it by."""
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 20, "retries": {"max_attempts": 2}}}
}
"""What file systems are made with: botocore alone would wait for five minutes."""
ACCESS = {
    "s3": "keys come from AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and another endpoint "
    "from AWS_ENDPOINT_URL; for a public bucket set FSSPEC_S3_ANON=true",
    "gs": "keys come from `gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS; for a "
    "public bucket set FSSPEC_GS_TOKEN=anon",
    "hf": "a private repository needs `hf auth login` or HF_TOKEN, and a mirror is named by HF_ENDPOINT",
}
"""How a user gets access to a store."""
VERSIONS = ("ETag", "etag", "generation", "blob_id", "md5Hash", "mtime", "LastModified", "created")
"""What stores call the version of a file's content. The first one that a store has counts."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as it was when it was found. A process that finds another `version` there refuses it.

    - `is_pinned`: the address has a commit, so that the content behind it never changes.
    - `fixes`: what helps if it cannot be read, unless it is `ACCESS` of the scheme.
    - `moved`: gets the number of bytes of each read, for a progress bar.
    """

    address: str
    size: int
    version: str
    is_pinned: bool = False
    fixes: str = ""
    moved: Callable[[int], None] | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The file name without its folders."""
        return self.address.rpartition("/")[2]

    def __str__(self) -> str:
        return self.address

    def open(self, _mode: Literal["rb"], _buffering: Literal[0], /) -> "RemoteStream":
        """The bytes as a stream that asks the store only for those that are read."""
        return RemoteStream(self)

    def check(self) -> None:
        """Ask the store again. `RequestError` if it does not answer, `ContentError` if the file changed."""
        if self.is_pinned:
            return
        filesystem = _filesystem(self.address, self.fixes)
        filesystem.invalidate_cache()
        self.compare(_asked(self, filesystem.info, self.address))

    def compare(self, about: dict[str, Any]) -> None:
        """`ContentError` if this is another content than was found first."""
        if _version(about) != self.version:
            raise ContentError(_changed(self, f"was {self.version}, now {_version(about)}"))


class StoreError(RequestError):
    """A store does not answer, or fails. Its other files have to be expected to do the same."""


class RemoteStream(io.RawIOBase):
    """The bytes of a remote file. Errors of the store name the file.

    `in_order`: each read is one request for just these bytes. Otherwise whole blocks are fetched and kept.
    A read gives at most `AT_ONCE` bytes, as raw streams may; `io.BufferedReader` asks for the rest.
    """

    def __init__(self, file: RemoteFile) -> None:
        self.in_order = False
        self._file = file
        self._position = 0
        self._opened: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}
        self._position = max(starts[whence] + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), AT_ONCE, self._file.size - self._position)
        if wanted <= 0:
            return 0
        if self._opened is None:
            self._opened = self._open()
        data = _asked(self._file, self._read, self._position, wanted)
        if len(data) != wanted:
            got = f"{len(data)} bytes came from byte {self._position} on, expected {wanted}"
            raise ContentError(_changed(self._file, got))
        view[:wanted] = data
        self._position += wanted
        if self._file.moved:
            self._file.moved(wanted)
        return wanted

    def _read(self, start: int, size: int) -> bytes:
        self._opened.seek(start)
        return bytes(self._opened.read(size))

    def _open(self) -> Any:
        file = self._file
        filesystem = _filesystem(file.address, file.fixes)
        options: dict[str, Any] = {"block_size": BLOCK, "cache_type": "none"}
        if not self.in_order:
            options |= {"cache_type": "blockcache", "cache_options": {"maxblocks": KEPT}}
        if file.is_pinned:  # what is known of it need not be asked for again
            return _asked(file, lambda: filesystem.open(file.address, "rb", size=file.size, **options))
        opened = _asked(file, lambda: filesystem.open(file.address, "rb", **options))
        file.compare(_asked(file, lambda: getattr(opened, "details", None) or filesystem.info(file.address)))
        return opened


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """The files right below an address, sorted by name."""

    address: str
    files: tuple[RemoteFile, ...]

    @property
    def name(self) -> str:
        """The folder's name without the folders above it."""
        return self.address.rstrip("/").rpartition("/")[2]

    def __str__(self) -> str:
        return self.address


SourceFile = Path | RemoteFile
SourcePath = Path | RemoteFile | RemoteFolder
"""A file or a folder that a user named."""


def is_address(text: str) -> bool:
    """True for `s3://…` and other addresses that can be read, and for none that is a path."""
    match = _SCHEME.match(text)
    return match is not None and match[1] in SCHEMES


def store_of(address: str) -> str:
    """The part of an address that names the store: `s3://bucket` of `s3://bucket/folder/a.jsonl`."""
    return "/".join(address.split("/")[:3])


def find_remote(address: str, fixes: str = "", *, is_pinned: bool = False) -> RemoteFile | RemoteFolder:
    """Ask the store for a file, or for the files of a folder. `RequestError` if it cannot be read."""
    scheme, _, path = address.partition("://")
    if "@" in path.partition("/")[0]:
        raise RequestError(
            f"an address of {scheme}:// contains a user name or password, which manifests would record: "
            f"leave it out; {ACCESS[scheme]}"
        )
    if not _SCHEME.sub("", address, count=1).strip("/"):
        raise RequestError(f"{address}: names no file; expected an address such as s3://BUCKET/KEY.jsonl")
    filesystem = _filesystem(address, fixes)
    probe = RemoteFile(address, 0, "", is_pinned, fixes)
    if not is_pinned:
        filesystem.invalidate_cache()
    about = _asked(probe, filesystem.info, address)
    if about.get("type") != "directory":
        return _file(address, about, fixes, is_pinned)
    inside = _asked(probe, lambda: filesystem.ls(address, detail=True))
    files = [
        _file(filesystem.unstrip_protocol(each["name"]), each, fixes, is_pinned)
        for each in inside
        if each.get("type") != "directory"
    ]
    return RemoteFolder(address, tuple(sorted(files, key=lambda file: file.address)))


def _file(address: str, about: dict[str, Any], fixes: str, is_pinned: bool) -> RemoteFile:
    if about.get("size") is None:
        raise RequestError(f"{address}: the store does not tell its size; download it first")
    return RemoteFile(address, int(about["size"]), _version(about), is_pinned, fixes)


def _version(about: dict[str, Any]) -> str:
    """What identifies the content of a file: its size, and its ETag or the like if the store has one."""
    size = f"{about['size']} bytes"
    for key in VERSIONS:
        if about.get(key):
            return f"{size}, {key} {about[key]}".replace('"', "")
    return size


_filesystems: dict[tuple[int, str], Any] = {}
"""File systems by process and scheme. A fork makes its own, and never ends those of its parent."""


def _filesystem(address: str, fixes: str) -> Any:
    """The file system of an address."""
    scheme = address.partition("://")[0]
    key = (os.getpid(), scheme)
    if key not in _filesystems:
        try:
            _filesystems[key] = _fsspec().filesystem(
                scheme, skip_instance_cache=True, **OPTIONS.get(scheme, {})
            )
        except ImportError as error:
            raise RequestError(f"{address}: {missing(SCHEMES[scheme])}") from error
        except (ValueError, OSError) as error:
            raise RequestError(_not_read(address, error, fixes)) from error
    return _filesystems[key]


@cache
def _fsspec() -> Any:
    """fsspec, whose thread a fork has to start anew: it has the thread's objects, and no thread."""
    import fsspec.asyn

    os.register_at_fork(after_in_child=fsspec.asyn.reset_lock)
    return fsspec


def _asked(file: RemoteFile, function: Callable[..., T], *arguments: object) -> T:
    """Call a function that asks a store, within `WITHIN` seconds. `RequestError` names the file.

    Each store's package has errors of its own. So every error of the function is one of the store.
    """
    answer: Future[T] = Future()

    def keep_error(
        _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if error is not None:
            answer.set_exception(error)
        return True

    def ask() -> None:
        with contextlib.ExitStack() as stack:
            stack.push(keep_error)
            answer.set_result(function(*arguments))

    threading.Thread(target=ask, daemon=True).start()  # a daemon: one that waits on does not hold the exit
    try:
        error = answer.exception(WITHIN)
    except NoAnswerError as late:
        raise StoreError(_not_read(file.address, late, file.fixes)) from late
    if error is None:
        return answer.result()
    if "FileExpired" in type(error).__name__:
        raise ContentError(_changed(file, f"was {file.version}")) from error
    message = _not_read(file.address, error, file.fixes)
    is_refusal = isinstance(error, FileNotFoundError | PermissionError)
    if is_refusal or getattr(error, "response", None) is not None:  # an answer, which is about this file
        raise RequestError(message) from error
    raise StoreError(message) from error


def _changed(file: RemoteFile, difference: str) -> str:
    return (
        f"{file.address}: changed, or was replaced, while it was read ({difference}); nothing was published: "
        "compile again when nothing writes to it"
    )


def _not_read(address: str, error: BaseException, fixes: str) -> str:
    """Message for a file that a store does not give, with the reason and what helps."""
    access = ACCESS.get(address.partition("://")[0], "")
    if isinstance(error, FileNotFoundError):
        return f"{address}: source not found; {fixes or f'check its spelling; {access}'}"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, NoAnswerError):
        reason = f"no answer within {WITHIN:g} seconds"
    return f"{address}: cannot be read: {reason}; {fixes or access}"
