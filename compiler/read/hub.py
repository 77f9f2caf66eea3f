"""Datasets of a hub: its own library finds their files, and ours reads these as any other file.

`datasets` resolves revision, configuration, `data_files` and splits of a dataset, asks for access (HF_TOKEN),
and takes the mirror from HF_ENDPOINT; torch is never imported for it. Its own readers are not used: they
alter cells of text files (007 is 7, NA is null) and may abort Python at its end (huggingface/datasets#7467).
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tuneyard.compiler.read.remote import RemoteFile, find_remote
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import HUB_ID
from tuneyard.core.language.message import _, joined
from tuneyard.core.text.secrets import hide_secrets

OPTIONS = ("name", "revision", "data_files")  # of a `source.hub`, beside its path


def find_files(
    hub: Mapping[str, Any], splits: Mapping[str, str], fixes: str
) -> list[tuple[str, Path | RemoteFile]]:
    """(split, file) for each file of a `source.hub`; `splits` maps the names on the hub to the spec's splits.

    Files are downloaded unless they are in the cache. With `stream: true` they stay on the hub.
    `RequestError` if the hub cannot be reached (`fixes` are added then), or lacks the dataset, revision,
    configuration or split.
    """
    # Without torch, which `datasets` would load for its own formats, and without its messages.
    for name, value in (("USE_TORCH", "0"), ("HF_HUB_VERBOSITY", "error"), ("DATASETS_VERBOSITY", "error")):
        os.environ.setdefault(name, value)
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from httpx import HTTPError

    datasets.disable_progress_bars()
    refuse_other_places(hub)
    options = {key: hub[key] for key in OPTIONS if key in hub}
    address = " ".join([hub["path"], *(f"{key} {value}" for key, value in options.items())])
    try:
        files_by_name = datasets.load_dataset_builder(hub["path"], **options).config.data_files or {}
        inputs = [
            (splits[name], _file(file, stream=bool(hub.get("stream"))))
            for name, files in files_by_name.items()
            if name in splits
            for file in files
        ]
    except DatasetNotFoundError as error:
        raise RequestError(_("{error} {hint}", error=error, hint=fixes)) from error
    except (DatasetsError, HTTPError, OSError, ValueError, RuntimeError, ImportError) as error:
        reason = " ".join(hide_secrets(str(error.__cause__ or error)).split())[:200] or repr(error)
        raise RequestError(
            _(
                "{address}: cannot be read from the hub ({reason}); {hint}",
                address=address,
                reason=reason,
                hint=fixes,
            )
        ) from error
    if not inputs:
        listed = joined(files_by_name) if files_by_name else _("none")
        raise RequestError(
            _(
                "{address}: none of the splits {names} (found: {other}); {hint}",
                address=address,
                names=", ".join(splits),
                other=listed,
                hint=fixes,
            )
        )
    return inputs


def refuse_other_places(hub: Mapping[str, Any]) -> None:
    """`ContentError` for a `source.hub` that names no dataset of the hub.

    `datasets` takes the name of a format (json) with addresses of any server, and files of this machine.
    """
    path = hub["path"]
    if not HUB_ID.fullmatch(path):
        raise ContentError(
            _(
                "source.hub: path: found {value}, expected a hub id, which is OWNER/NAME",
                value=show_value(path),
            )
        )
    patterns = hub.get("data_files", ())
    for pattern in texts_in(patterns):
        if "://" in pattern or pattern.startswith(("/", "~")) or ".." in PurePosixPath(pattern).parts:
            raise ContentError(
                _(
                    "source.hub: data_files: found {value}, expected a path in the dataset {name}",
                    value=show_value(pattern),
                    name=path,
                )
            )


def texts_in(patterns: object) -> Iterator[str]:
    """The patterns of `data_files`: one, a list, or such by split."""
    if isinstance(patterns, str):
        yield patterns
    elif isinstance(patterns, Mapping):
        for part in patterns.values():
            yield from texts_in(part)
    elif isinstance(patterns, Iterable):
        for part in patterns:
            yield from texts_in(part)


def _file(address: str, *, stream: bool) -> Path | RemoteFile:
    if "://" not in address:
        return Path(address)
    if stream:
        file_there = find_remote(address)
        if not isinstance(file_there, RemoteFile):
            raise RequestError(_("{address}: is a folder, expected a file", address=address))
        return file_there
    from huggingface_hub import hf_hub_download

    repo, _unused, rest = address.removeprefix("hf://datasets/").partition("@")
    commit, _unused, file = rest.partition("/")
    return Path(hf_hub_download(repo, file, repo_type="dataset", revision=commit))
