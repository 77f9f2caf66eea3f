"""Datasets of the hub: fetched into its cache, or with `stream: true` read in place, only as far as needed.

The hub is huggingface.co, or what HF_ENDPOINT names (a mirror speaks the same API). It keeps a Parquet copy
of public datasets in the branch `refs/convert/parquet`, as CONFIG/SPLIT/0000.parquet … (`partial-SPLIT` of
those above 5 GB), so that no dataset's own code is run. Where there is no such branch, the dataset's own data
files are read, each put into the split whose name its path holds.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from compiler.read import SUFFIXES
from compiler.read.stream import suffix
from core.errors import RequestError, nearest

COPY = "refs/convert/parquet"
BLOCK = 1 << 20
Homes = Mapping[str, str]  # the hub's name of a split: ours


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of the hub that is read in place; `sha256` is its content's hash there, `ways` the ways out."""

    repo: str
    revision: str
    path: str
    sha256: str
    ways: str

    @property
    def name(self) -> str:
        """The file's name without its folders."""
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        return f"hf://datasets/{self.repo}@{self.revision}/{self.path}"

    def open(self, mode: Literal["rb"], buffering: Literal[0]) -> io.RawIOBase:
        """Return the file's bytes as a stream that asks the hub only for those that are read."""
        from huggingface_hub import HfFileSystem

        del mode, buffering  # as a Path is opened, and there is no other way
        with _said(self.repo, self.ways):
            path = f"datasets/{self.repo}/{self.path}"
            blocks = {"block_size": BLOCK, "cache_type": "blockcache"}  # 32 of them are kept
            return _Remote(self, HfFileSystem().open(path, "rb", revision=self.revision, **blocks))


class _Remote(io.RawIOBase):
    """A file of the hub, whose failures are told as the hub's."""

    def __init__(self, file: HubFile, stream: Any) -> None:
        self._file, self._stream = file, stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def readinto(self, buffer: Any) -> int:
        with _said(self._file.repo, self._file.ways):
            return int(self._stream.readinto(buffer))


def find(hub: Mapping[str, object], homes: Homes, ways: str) -> list[tuple[str, Path | HubFile]]:
    """Return (split, file) for a hub id; `homes` gives our split for each name of one.

    Files are local ones, fetched unless they are in the cache, or with `stream: true` files of the hub.
    `RequestError` where the hub cannot be reached (`ways` are the ways out) or has no such dataset,
    configuration or split.
    """
    repo = str(hub["path"])
    with _said(repo, ways):
        from huggingface_hub import hf_hub_download

        revision, files = _listed(repo, [str(hub["revision"])] if "revision" in hub else [COPY, "main"])
        choose = _of_copy if revision == COPY else _of_own
        chosen = choose(repo, list(files), hub.get("name"), homes)
        if hub.get("stream"):
            return [(split, HubFile(repo, revision, file, files[file], ways)) for split, file in chosen]
        return [
            (split, Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision)))
            for split, file in chosen
        ]


def _listed(repo: str, revisions: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the first of the revisions that is there and its data files, each with its content's hash."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError
    from huggingface_hub.hf_api import RepoFile

    revision, *others = revisions
    try:
        tree = list(HfApi().list_repo_tree(repo, repo_type="dataset", revision=revision, recursive=True))
    except RevisionNotFoundError as error:
        if others:
            return _listed(repo, others)
        raise RequestError(f"the hub has no revision {revision!r} of {repo}") from error
    files = [item for item in tree if isinstance(item, RepoFile) and suffix(Path(item.path)) in SUFFIXES]
    return revision, {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}


@contextlib.contextmanager
def _said(repo: str, ways: str) -> Iterator[None]:
    """Tell failures of the hub as `RequestError` with the ways out."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        yield
    except RepositoryNotFoundError as error:
        raise RequestError(f"the hub has no dataset {repo!r} (or it is private); {ways}") from error
    except (OfflineModeIsEnabled, HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        why = str(error).strip().splitlines()
        raise RequestError(
            f"{repo} cannot be fetched from the hub ({why[0] if why else error!r}); {ways}"
        ) from error


def _of_copy(repo: str, files: Sequence[str], name: object, homes: Homes) -> list[tuple[str, str]]:
    """Return (split, file) for the files of one configuration whose folder is one of the splits' names."""
    parquet = [PurePosixPath(file) for file in files if file.endswith(".parquet")]
    configs = list(dict.fromkeys(file.parts[0] for file in parquet if len(file.parts) == 3))
    config = str(name) if name is not None else "default" if "default" in configs else (configs or [""])[0]
    if config not in configs:
        there = ", ".join(configs) or "none"
        raise RequestError(
            f"{repo} has no configuration {config!r} (there: {there}) {nearest(config, configs)}".rstrip()
        )
    here = [file for file in parquet if file.parts[0] == config]
    named = [(homes.get(file.parts[1].removeprefix("partial-")), str(file)) for file in sorted(here)]
    chosen = [(split, file) for split, file in named if split is not None]
    if not chosen:
        there = ", ".join(dict.fromkeys(file.parts[1] for file in here))
        raise RequestError(f"{repo} {config} has none of the splits {', '.join(homes)} (there: {there})")
    return chosen


def _of_own(repo: str, files: Sequence[str], name: object, homes: Homes) -> list[tuple[str, str]]:
    """Return (split, file) for a dataset's own files, under the folder `name` where it has one.

    A file goes to the split that its path names; where no file names any and only `train` is looked for,
    all files are of it.
    """
    here = [file for file in sorted(files) if name is None or str(name) in PurePosixPath(file).parts[:-1]]
    named = [(_named(file, homes), file) for file in here]
    chosen = [(split, file) for split, file in named if split is not None]
    if not chosen and "train" in homes and len(set(homes.values())) == 1:
        chosen = [(homes["train"], file) for file in here]
    if not chosen:
        there = ", ".join(files[:10]) or "none"
        where = "" if name is None else f" in a folder {str(name)!r}"
        raise RequestError(f"{repo} has no data file for {', '.join(homes)}{where} (data files: {there})")
    return chosen


def _named(file: str, homes: Homes) -> str | None:
    """Return the split that a path names in one of its parts; the longest name wins."""
    found = [called for called in homes if re.search(rf"(?:^|[^a-z]){re.escape(called)}(?:[^a-z]|$)", file)]
    return homes[max(found, key=len)] if found else None
