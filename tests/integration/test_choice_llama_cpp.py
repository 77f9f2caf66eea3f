"""eval nli --mode choice over a real llama.cpp server gives what the same model in this process gives."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.llama_server import llama_server
from testing.tiny import make_tiny
from tests.cli.scoring import call, predictions
from tests.vllm_compare import check_labels, write_rows
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.core.errors import ResumableError
from tuneyard.eval import nli
from tuneyard.eval.models import server as serving
from tuneyard.eval.runs.results import PREDICTIONS

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow
NATS = 0.02  # f16 weights and states against fp32


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, str]]:
    """Model folder, dataset, and the address of the server with the model's GGUF."""
    home = tmp_path_factory.mktemp("llama")
    model = make_tiny(home / "model")
    call(adapters, "export", model, "--to", "gguf", "--type", "f16", "--out", home / "model.gguf")
    write_rows(home)
    with llama_server(home / "model.gguf", slots=1) as url:
        yield model, home / "walks.json", url


def score(served: tuple[Path, Path, str], out: Path, *more: str, server: bool = True) -> Path:
    """Score the rows by choice; the folder of the results."""
    model, data, url = served
    words = ["--model", model, "--data", data, "--out", out, "--cluster", "premise", *more]
    if server:
        words += ["--backend", "openai", "--url", url, "--timeout", "60"]
    call(nli.cli, *words)
    return out


def test_labels_score_as_in_this_process_also_after_shots(served, tmp_path) -> None:
    shots = ("--shots", "2", "--shots-from", str(served[1].with_name("train.json")))
    there = score(served, tmp_path / "there", *shots)
    here = score(served, tmp_path / "here", *shots, "--dtype", "fp32", server=False)
    for of_server, of_process in (("model", "base"), ("model (2 shots)", "base (2 shots)")):
        lines = [predictions(folder / "walks") for folder in (there / of_server, here / of_process)]
        check_labels(*lines, NATS)


def test_a_killed_run_resumes_to_the_same_bytes(served, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(serving, "ROWS", 8)
    whole = score(served, tmp_path / "whole") / "model" / "walks" / PREDICTIONS
    check = serving.Server.check_unchanged
    calls = []

    def killed(server: serving.Server) -> None:
        calls.append(server)
        if len(calls) == 2:
            raise KeyboardInterrupt
        check(server)

    monkeypatch.setattr(serving.Server, "check_unchanged", killed)
    with pytest.raises(ResumableError):
        score(served, tmp_path / "killed")
    left = tmp_path / "killed" / "model" / "walks" / PREDICTIONS
    assert left.read_bytes().count(b"\n") == 8
    score(served, tmp_path / "killed", "--resume")
    assert left.read_bytes() == whole.read_bytes()
