"""eval nli --mode choice over a real llama.cpp server gives what the same model in this process gives."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.llama_server import llama_server
from tests.tiny import make_tiny
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.core.errors import ResumableError
from tuneyard.eval import nli
from tuneyard.eval.backends import server as serving
from tuneyard.eval.read.results import PREDICTIONS

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow
NATS = 0.02  # f16 weights and states against fp32
ROWS = [
    {
        "instruction": f'Does "{number} men walk" imply that "{number + number % 3} people are outside"?',
        "output": ("yes", "no", "maybe")[number % 3],
        "premise": number // 2,
    }
    for number in range(24)
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, str]]:
    """Model folder, dataset, and the address of the server with the model's GGUF."""
    home = tmp_path_factory.mktemp("llama")
    model = make_tiny(home / "model")
    adapters.main(
        ["export", str(model), "--to", "gguf", "--type", "f16", "--out", str(home / "model.gguf")],
        standalone_mode=False,
    )
    data = home / "walks.json"
    data.write_text(json.dumps(ROWS))
    examples = [{**row, "instruction": row["instruction"].replace("men", "women")} for row in ROWS]
    data.with_name("train.json").write_text(json.dumps(examples))
    with llama_server(home / "model.gguf", slots=1) as url:
        yield model, data, url


def score(served: tuple[Path, Path, str], out: Path, *more: str, server: bool = True) -> Path:
    """Score the rows by choice; the folder of the results."""
    model, data, url = served
    words = ["--model", str(model), "--data", str(data), "--out", str(out), "--cluster", "premise", *more]
    if server:
        words += ["--backend", "openai", "--url", url, "--timeout", "60"]
    nli.cli.main(words, standalone_mode=False)
    return out


def predictions(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "walks" / PREDICTIONS).read_text().splitlines()]


def test_labels_score_as_in_this_process_also_after_shots(served, tmp_path) -> None:
    shots = ("--shots", "2", "--shots-from", str(served[1].with_name("train.json")))
    there = score(served, tmp_path / "there", *shots)
    here = score(served, tmp_path / "here", *shots, "--dtype", "fp32", server=False)
    for of_server, of_process in (("model", "base"), ("model (2 shots)", "base (2 shots)")):
        for line, expected in zip(
            predictions(there / of_server), predictions(here / of_process), strict=True
        ):
            assert line["cluster"] == expected["cluster"]
            assert line["choices"] == pytest.approx(expected["choices"], abs=NATS)
            best, second = sorted(expected["choices"].values())[-1:-3:-1]
            if best - second > 2 * NATS:
                assert line["predicted_output"] == expected["predicted_output"]


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
