"""Download from the Hugging Face Hub, and what its errors mean."""

from pathlib import Path
from typing import Any

from tuneyard.core.errors import RequestError
from tuneyard.core.files import no_folder
from tuneyard.core.language.message import _


def from_hub(reference: str, fix: str, **options: Any) -> Path:
    """Download a repository of the hub with these options of `snapshot_download`. Result: the cached folder.

    `RequestError` with the `fix` if the repository is missing or the hub cannot be reached.
    """
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(reference, **options))
    except (OSError, HfHubHTTPError, HFValidationError, httpx.HTTPError, ValueError) as error:
        hub = _(
            "not found on, or cannot reach, the Hugging Face Hub: {reason}; {fix}",
            reason=hub_problem(error),
            fix=fix,
        )
        raise RequestError(no_folder(reference, hub)) from error


def hub_problem(error: Exception) -> str:
    """An error of the hub's library in our words. Its own have newlines, links and hints to its arguments."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    if isinstance(error, HFValidationError):
        return _("a name there is OWNER/NAME of letters, digits and . - _")
    if isinstance(error, GatedRepoError):
        return _("its licence must be accepted on its page there, by the account of `hf auth login`")
    if isinstance(error, RepositoryNotFoundError):
        return _("no public repository of this name (for a private one: `hf auth login`)")
    if constants.HF_HUB_OFFLINE:
        return _("HF_HUB_OFFLINE is set, and the cache does not have it")
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return _("it answers HTTP {status}", status=error.response.status_code)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _("no connection ({error})", error=type(error.__cause__ or error).__name__)
