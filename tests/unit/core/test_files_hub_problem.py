"""An error of the hub's library is told in our words: its own have newlines and links."""

import errno

import httpx
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from tuneyard.core.files.hub import hub_problem

RAW = "Something\nat https://huggingface.co/raw with `repo_type`"


def response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/x/y"))


ERRORS = {
    "OWNER/NAME": HFValidationError(RAW),
    "licence": GatedRepoError(RAW, response=response(403)),
    "no public repository": RepositoryNotFoundError(RAW, response=response(401)),
    "HTTP 502": HfHubHTTPError(RAW, response=response(502)),
    "ConnectError": httpx.ConnectError(RAW),
    "LocalEntryNotFoundError": LocalEntryNotFoundError(RAW),
    "No space left": OSError(errno.ENOSPC, "No space left on device"),
    "ValueError": ValueError(RAW),
}


@pytest.mark.parametrize("fact", ERRORS)
def test_each_error_has_words_of_ours(fact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    problem = hub_problem(ERRORS[fact])
    assert fact in problem and "raw" not in problem and problem.isprintable()
