"""Upload to the Hugging Face hub: files by name, one commit, what has arrived is not sent twice."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.base import INDEX, open_base
from adapters.config import CONFIG
from adapters.export.source import ExportSource
from adapters.output import TOKENIZER
from adapters.store import WEIGHTS_INDEX
from core.errors import RequestError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

CARRIED = ("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
TOKEN_FIX = "export HF_TOKEN=… of an account that may write there, or run `hf auth login`"


@dataclass(frozen=True, slots=True)
class Upload:
    """What goes where: files of the folder, and the card as README.md."""

    repo: str
    files: list[Path]
    left_out: list[str]
    card: str
    private: bool


def plan_upload(source: ExportSource, repo: str, card: str, *, private: bool) -> Upload:
    """Choose the files that users of the hub need: safetensors, configs, tokenizer, licence texts.

    Everything else (optimizer states, pickles, logs) is left out by name.
    """
    adapter = source.adapter
    names = [CONFIG, *(file.name for file in adapter.files)] if adapter else _model_files(source.folder)
    names += [name for name in (WEIGHTS_INDEX, *TOKENIZER, *CARRIED) if (source.folder / name).is_file()]
    present = sorted(path.name for path in source.folder.iterdir())
    left_out = [name for name in present if name not in names and name != "README.md"]
    return Upload(repo, [source.folder / name for name in names], left_out, card, private)


def _model_files(folder: Path) -> list[str]:
    shards = list(open_base(folder).shards)
    return ["config.json", *(n for n in ("generation_config.json", INDEX) if (folder / n).is_file()), *shards]


def check_repo(repo: str | None) -> str:
    """Return `repo` where it is OWNER/NAME in the hub's spelling, else raise `RequestError`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo or "")
    except HFValidationError as error:
        raise RequestError(f"--repo {repo!r}: expected OWNER/NAME: {error}") from error
    if not repo or "/" not in repo:
        raise RequestError(f"--repo {repo!r}: expected OWNER/NAME")
    return repo


def send(upload: Upload) -> str:
    """Upload as one commit, so that the repository has the old files or all new ones; return its address.

    `RequestError` where there is no token, no network or no permission. Run again after an
    interruption: files that arrived are found by their hash and not sent twice.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    _check_ready(constants.HF_HUB_OFFLINE)
    additions = [CommitOperationAdd(file.name, file) for file in upload.files]
    additions.append(CommitOperationAdd("README.md", upload.card.encode()))
    again = "run the command again: what has arrived is not sent twice"
    try:
        return _commit(api, upload, additions)
    except HfHubHTTPError as error:
        raise _refused(error.response.status_code, upload.repo, str(error)) from error
    except (httpx.TransportError, OSError) as error:
        raise RequestError(f"{api.endpoint}: cannot be reached ({error}); {again}") from error
    except RuntimeError as error:  # one file's upload failed; the cause says why
        raise RequestError(f"{error} ({error.__cause__}); {again}") from error
    except ValueError as error:  # the hub refuses the card's front matter, or a file
        raise RequestError(f"{upload.repo}: the hub refuses it: {error}") from error


def _check_ready(offline: bool) -> None:
    from huggingface_hub import get_token

    if offline:
        raise RequestError("HF_HUB_OFFLINE is set: unset it to upload; --dry-run shows what would be sent")
    if not get_token():
        raise RequestError(f"no token for the hub: {TOKEN_FIX}; --dry-run shows what would be sent")


def _commit(api: "HfApi", upload: Upload, additions: "list[CommitOperationAdd]") -> str:
    api.create_repo(upload.repo, private=upload.private, exist_ok=True)
    done = api.create_commit(
        upload.repo, additions, commit_message=f"Upload {upload.files[0].parent.name} with Tuneyard"
    )
    return str(done.commit_url)


def _refused(status: int, repo: str, message: str) -> RequestError:
    if status in (401, 403):
        return RequestError(f"{repo}: the hub refuses the token ({status}): {TOKEN_FIX}")
    return RequestError(f"{repo}: the hub answers {status}: {message.strip()}")
