"""Files at an address (`s3://bucket/key.jsonl`, `gs://…`, `hf://datasets/OWNER/NAME/…`), read by fsspec.

fsspec and the package of each store take keys, regions and endpoints from where the store's own tool has
them (AWS_PROFILE, AWS_ENDPOINT_URL, HF_TOKEN, …) and from the configuration of fsspec. Nothing is copied to
the disk, but for a file that its reader has to jump about in and cannot, such as a compressed Parquet file.
"""

import contextlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import JsonObject
from tuneyard.core.installation.packages import missing
from tuneyard.core.language.message import _
from tuneyard.core.text.secrets import hide_secrets

BLOCK = 1 << 20  # bytes of one request
KEPT = 128  # blocks of a file that is not read in order: a wide Parquet file needs one for each column


class Store(NamedTuple):
    """A kind of address: its package, the time limits for it, how a user gets access.

    `errors` are those of its package that are no errors of the system.
    """

    package: str
    options: JsonObject
    access: str
    errors: tuple[str, ...] = ()


STORES = {
    "s3": Store(
        "s3fs",
        {"config_kwargs": {"connect_timeout": 60, "read_timeout": 60, "retries": {"max_attempts": 0}}},
        _(
            "keys come from AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and "
            "another endpoint from AWS_ENDPOINT_URL; for a public bucket set FSSPEC_S3_ANON=true"
        ),
        ("botocore.exceptions:BotoCoreError", "botocore.exceptions:ClientError", "aiohttp:ClientError"),
    ),
    "gs": Store(
        "gcsfs",
        {"timeout": 60},
        _(
            "keys come from `gcloud auth application-default login`, or "
            "GOOGLE_APPLICATION_CREDENTIALS; for a public bucket set FSSPEC_GS_TOKEN=anon"
        ),
        ("gcsfs.retry:HttpError", "google.auth.exceptions:GoogleAuthError", "aiohttp:ClientError"),
    ),
    "hf": Store(
        "huggingface_hub",
        {},  # 10 s, or HF_HUB_DOWNLOAD_TIMEOUT
        _("a private repository needs `hf auth login` or HF_TOKEN, and a mirror is named by HF_ENDPOINT"),
        ("httpx:HTTPError", "builtins:NotImplementedError"),  # hf://datasets lists no repositories
    ),
}
VERSIONS = ("ETag", "etag", "generation", "blob_id", "md5Hash", "mtime", "LastModified", "created")
"""What stores call the version of a file's content. The first one that a store has counts."""
CHANGED = _(
    "changed, or was replaced, while it was read; nothing was published: compile again when nothing writes "
    "to it"
)
_COMMIT = re.compile(r"@[0-9a-f]{40}/")


@dataclass(frozen=True, slots=True)
class _Remote:
    """A file or a folder at an address."""

    address: str

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        """The name without the folders above it."""
        return self.address.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class RemoteFile(_Remote):
    """A file at an address, as it was when it was found."""

    size: int
    version: str

    @property
    def is_pinned(self) -> bool:
        """True if the address has a commit, so that the content behind it never changes."""
        return _COMMIT.search(self.address) is not None

    def open(self, *, in_order: bool) -> io.RawIOBase:
        """The bytes. For a reader that jumps to and fro, blocks are fetched once and kept."""
        if in_order:
            return _RemoteStream(self, cache_type="readahead")
        return _RemoteStream(self, cache_type="blockcache", cache_options={"maxblocks": KEPT})

    def check(self) -> None:
        """Ask the store again. `RequestError` if it does not answer, `ContentError` if the file changed."""
        if not self.is_pinned and find_remote(self.address) != self:
            raise ContentError(f"{self.address}: {CHANGED}")


@dataclass(frozen=True, slots=True)
class RemoteFolder(_Remote):
    """The files right below an address, sorted by name."""

    files: list[RemoteFile]


SourceFile = Path | RemoteFile
SourcePath = Path | RemoteFile | RemoteFolder
"""A file or a folder that a user named."""


class _RemoteStream(io.RawIOBase):
    """The bytes of a remote file. Errors of the store name the file."""

    def __init__(self, file: RemoteFile, **options: Any) -> None:
        self._file = file
        with _asking(file.address) as filesystem:
            self._opened: Any = filesystem.open(file.address, "rb", block_size=BLOCK, **options)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._opened.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        left = max(self._file.size - self._opened.tell(), 0)  # fsspec fails beyond the end
        with _asking(self._file.address):
            return int(self._opened.readinto(memoryview(buffer)[:left]))


def find_remote(address: str) -> RemoteFile | RemoteFolder:
    """Ask the store for a file, or for the files of a folder. `RequestError` if it cannot be read."""
    if "@" in address.split("/")[2]:
        raise RequestError(
            _("the address contains a user name or password, which manifests would record: leave it out")
        )
    with _asking(address) as filesystem:
        filesystem.invalidate_cache()
        about = filesystem.info(address)
        if about["type"] != "directory":
            return _remote_file(address, about)
        entries = filesystem.ls(address, detail=True)
        files = [
            _remote_file(filesystem.unstrip_protocol(entry["name"]), entry)
            for entry in sorted(entries, key=lambda entry: entry["name"])
            if entry["type"] != "directory"
        ]
    return RemoteFolder(address, files)


def _remote_file(address: str, about: Mapping[str, Any]) -> RemoteFile:
    """A file with its size, and its version: the size, and the ETag or the like if the store has one."""
    version = f"{about['size']} bytes"
    key = next((key for key in VERSIONS if about.get(key)), "")
    if key:
        version += f", {key} {about[key]}".replace('"', "")
    return RemoteFile(address, about["size"], version)


@contextlib.contextmanager
def _asking(address: str) -> Iterator[Any]:
    """Yield the file system of an address. `RequestError` names the address if the store fails."""
    scheme = address.partition("://")[0]
    package, options, access, errors = STORES[scheme]
    try:
        filesystem = _fsspec().filesystem(scheme, **options)
        filesystem.retries = 1  # s3fs would wait for a store that hangs five times
        yield filesystem
    except ImportError as error:
        raise RequestError(_("{address}: {reason}", address=address, reason=missing(package))) from error
    except FileNotFoundError as error:
        raise RequestError(
            _("{address}: source not found; check its spelling; {hint}", address=address, hint=access)
        ) from error
    except (OSError, ValueError, LookupError, *map(resolve_name, errors)) as error:
        if "FileExpired" in type(error).__name__:  # fsspec asks for the version that it has opened
            raise ContentError(_("{address}: {reason}", address=address, reason=CHANGED)) from error
        reason = " ".join(hide_secrets(str(error)).split())[:200] or type(error).__name__
        raise RequestError(
            _("{address}: cannot be read: {reason}; {hint}", address=address, reason=reason, hint=access)
        ) from error


@cache
def _fsspec() -> Any:
    """fsspec, whose thread a fork has to start anew: it has the thread's objects, and no thread."""
    import fsspec.asyn

    os.register_at_fork(after_in_child=fsspec.asyn.reset_lock)
    return fsspec
