"""Datasets of the hub: the Parquet files that it keeps of every public dataset, fetched into its cache.

The hub is huggingface.co, or what HF_ENDPOINT names (a mirror speaks the same API). Every dataset has a
branch `refs/convert/parquet` with CONFIG/SPLIT/0000.parquet …, so that no dataset's own code is run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from core.errors import RequestError, nearest

REVISION = "refs/convert/parquet"


def fetch(
    hub: Mapping[str, object], splits: Mapping[str, Sequence[str]], ways: str
) -> list[tuple[str, Path]]:
    """Return (split, local file) for a spec's hub id; `splits` gives the names each split goes by.

    `RequestError` where the hub cannot be reached (`ways` are the ways out) or has no such dataset,
    configuration or split. A file that is in the cache is not fetched again.
    """
    try:
        import httpx
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
    except ImportError as error:
        raise RequestError(
            f"the hub needs huggingface_hub (pip install huggingface_hub), or {ways}"
        ) from error
    repo = str(hub["path"])
    try:
        files = HfApi().list_repo_files(repo, repo_type="dataset", revision=REVISION)
        wanted = _chosen(repo, files, hub.get("name"), splits)
        return [
            (split, Path(hf_hub_download(repo, file, repo_type="dataset", revision=REVISION)))
            for split, file in wanted
        ]
    except RepositoryNotFoundError as error:
        raise RequestError(f"the hub has no dataset {repo!r} (or it is private); {ways}") from error
    except (OfflineModeIsEnabled, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        why = str(error).strip().splitlines()
        raise RequestError(
            f"{repo} cannot be fetched from the hub ({why[0] if why else error!r}); {ways}"
        ) from error


def _chosen(
    repo: str, files: Sequence[str], name: object, splits: Mapping[str, Sequence[str]]
) -> list[tuple[str, str]]:
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
    homes = {called: split for split, names in splits.items() for called in (split, *names)}
    chosen = [(homes[file.parts[1]], str(file)) for file in sorted(here) if file.parts[1] in homes]
    if not chosen:
        there = ", ".join(dict.fromkeys(file.parts[1] for file in here))
        raise RequestError(f"{repo} {config} has none of the splits {', '.join(homes)} (there: {there})")
    return chosen
