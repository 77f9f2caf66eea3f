"""Upload to the Hugging Face hub: files by name, one commit, what has arrived is not sent twice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from adapters.base import INDEX, open_base
from adapters.config import CONFIG
from adapters.export.model_card import make_card
from adapters.export.source import ExportSource
from adapters.output import CARD, TOKENIZER, note
from adapters.store import WEIGHTS_INDEX
from core.errors import RequestError

CARRIED = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
TOKEN_FIX = "export HF_TOKEN=… of an account that may write there, or run `hf auth login`"


def to_hub(source: ExportSource, options: Mapping[str, Any]) -> None:
    """Upload with a card, or print what would be sent."""
    repo = _check_repo(options["repo"])
    card, notes = make_card(source, repo, options["license"], list(options["results"]))
    files, left_out = _chosen(source)
    for text in notes:
        note(text)
    for file in files:
        click.echo(f"{file.stat().st_size:>14,}  {file.name}")
    click.echo(f"{len(card.encode()):>14,}  README.md (the card)")
    if left_out:
        note(f"left out: {', '.join(left_out)}")
    if options["dry_run"]:
        click.echo(f"\n{card}\nnothing sent (--dry-run); would send to {repo}")
    else:
        click.echo(_send(repo, files, card, private=options["private"]))


def _chosen(source: ExportSource) -> tuple[list[Path], list[str]]:
    """Return safetensors, configs, tokenizer and licence texts, and the names of all else in the folder."""
    folder, adapter = source.folder, source.adapter
    weights = [file.name for file in adapter.files] if adapter else list(open_base(folder).shards)
    names = [CONFIG if adapter else "config.json", *weights]
    optional = (WEIGHTS_INDEX,) if adapter else ("generation_config.json", INDEX)
    names += [name for name in (*optional, *TOKENIZER, *CARRIED) if (folder / name).is_file()]
    left_out = {path.name for path in folder.iterdir()} - {*names, CARD}
    return [folder / name for name in names], sorted(left_out)


def _check_repo(repo: str) -> str:
    """Return `repo` where it is OWNER/NAME in the hub's spelling, else raise `RequestError`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise RequestError(f"--repo {repo!r}: expected OWNER/NAME: {error}") from error
    if "/" not in repo:
        raise RequestError(f"--repo {repo!r}: expected OWNER/NAME")
    return repo


def _send(repo: str, files: list[Path], card: str, *, private: bool) -> str:
    """Upload as one commit, so that the repository has the old files or all new ones; return its address.

    `RequestError` without token, network or permission. Files that arrived before are not sent twice.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise RequestError("HF_HUB_OFFLINE is set: unset it to upload; --dry-run shows what would be sent")
    if not get_token():
        raise RequestError(f"no token for the hub: {TOKEN_FIX}; --dry-run shows what would be sent")
    api = HfApi()
    additions = [CommitOperationAdd(file.name, file) for file in files]
    additions.append(CommitOperationAdd(CARD, card.encode()))
    again = "run the command again: what has arrived is not sent twice"
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        message = f"Upload {files[0].parent.name} with Tuneyard"
        return str(api.create_commit(repo, additions, commit_message=message).commit_url)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise RequestError(f"{repo}: the hub refuses the token ({status}): {TOKEN_FIX}") from error
        raise RequestError(f"{repo}: the hub answers {status}: {str(error).strip()}") from error
    except (httpx.TransportError, OSError) as error:
        raise RequestError(f"{api.endpoint}: cannot be reached ({error}); {again}") from error
    except RuntimeError as error:  # one file's upload failed; the cause says why
        raise RequestError(f"{error} ({error.__cause__}); {again}") from error
    except ValueError as error:  # the hub refuses the card's front matter, or a file
        raise RequestError(f"{repo}: the hub refuses it: {error}") from error
