"""eval nli --backend openai --mode choice gives what the same model in this process gives."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.scoring import call
from tests.json_files import read_json, read_lines, write_json
from tests.label_server import StandIn, started
from tests.messages import raises
from tests.model_server import ServedStandIn
from tuneyard.core.errors import RequestError
from tuneyard.eval import nli
from tuneyard.eval.models import connection as connecting
from tuneyard.eval.models import server as serving
from tuneyard.eval.models.load import load_model
from tuneyard.eval.runs.results import PREDICTIONS, RESULTS
from tuneyard.eval.suite import cli as suite

ROWS = [
    {
        "instruction": f'Does "{number} men walk" imply "{number * 2} walk"?',
        "output": ("yes", "no", "maybe")[number % 3],
        "premise": number // 2,
    }
    for number in range(12)
]
Score = Callable[..., Path]


@pytest.fixture(scope="module")
def stand_in(tiny_model: Path) -> Iterator[tuple[StandIn, str]]:
    """A stand-in for vLLM with the tiny model's own log-probabilities, and its address."""
    server = ServedStandIn("vllm", {"model": load_model(tiny_model, "fp32")})
    with started(server) as url:
        yield server, url


@pytest.fixture
def score_walks(
    tiny_model: Path, tmp_path: Path, stand_in: tuple[StandIn, str], monkeypatch: pytest.MonkeyPatch
) -> Score:
    """Score the rows, through the stand-in by default; the folder of the results."""
    monkeypatch.setattr(connecting, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(serving, "ROWS", 8)
    data = tmp_path / "walks.json"
    write_json(data, ROWS)

    def run(out: str, *more: str, server: bool = True) -> Path:
        words = ["--model", tiny_model, "--data", data, "--out", tmp_path / out]
        if server:
            words += ["--backend", "openai", "--url", stand_in[1]]
        call(nli.cli, *words, "--cluster", "premise", *more)
        return tmp_path / out / ("model" if server else "base") / "walks"

    return run


def lines(folder: Path) -> list[dict]:
    return read_lines(folder / PREDICTIONS)


def test_labels_score_as_in_this_process(score_walks: Score) -> None:
    folder, local = score_walks("there"), score_walks("here", "--dtype", "fp32", server=False)
    for line, expected in zip(lines(folder), lines(local), strict=True):
        assert line["choices"] == pytest.approx(expected["choices"], abs=2e-4)
        assert (line["cluster"], line["predicted_output"]) == (
            expected["cluster"],
            expected["predicted_output"],
        )
    results = read_json(folder / RESULTS)
    assert (results["mode"], results["device"], results["clusters"]) == ("choice", "server", 6)
    assert results["prompt"] == read_json(local / RESULTS)["prompt"]


def test_a_server_that_dies_stops_the_run_which_resumes_to_the_same_bytes(
    score_walks: Score, stand_in: tuple[StandIn, str]
) -> None:
    server = stand_in[0]
    server.requests.clear()
    whole = score_walks("whole")
    server.plan = [(200, 0.0)] * (len(server.requests) * 3 // 4) + [(500, 0.0)] * 1000
    with raises(RequestError, "3 tries", "--resume"):
        score_walks("torn")
    server.plan = []
    torn = whole.parents[2] / "torn/model/walks"
    assert 0 < len(lines(torn)) < len(ROWS)
    score_walks("torn", "--resume")
    assert (torn / PREDICTIONS).read_bytes() == (whole / PREDICTIONS).read_bytes()


def test_labels_of_a_server_are_checked_by_generated_answers(
    score_walks: Score, stand_in: tuple[StandIn, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, post = stand_in[0], stand_in[0].post

    def answer(path: str, body: dict) -> object:
        if path.endswith("/chat/completions"):
            return {"model": server.model, "choices": [{"message": {"content": "yes"}}]}
        return post(path, body)

    monkeypatch.setattr(server, "post", answer)
    folder = score_walks("checked", "--check-generate", "4")
    check = read_json(folder / RESULTS)["check_generate"]
    chosen = [line["predicted_output"] for line in lines(folder)]
    assert check["n"] == 4
    assert check["agree"] == [chosen[row] for row in (0, 3, 6, 9)].count("yes")


def test_a_suite_scores_labels_and_generates_over_a_server(
    score_walks: Score,
    stand_in: tuple[StandIn, str],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, url = stand_in
    post = server.post

    def answer(path: str, body: dict) -> object:
        if path.endswith("/chat/completions"):
            return {"model": server.model, "choices": [{"message": {"content": "yes"}}]}
        return post(path, body)

    monkeypatch.setattr(server, "post", answer)
    alone = score_walks("alone")
    step = {"command": "nli", "data": "walks.json", "cluster": "premise"}
    suite_file = tmp_path / "suite.yaml"
    write_json(suite_file, {"labels": step, "words": {**step, "mode": "generate"}})
    words = [suite_file, "--model", tiny_model, "--backend", "openai", "--url", url, "--out", tmp_path / "s"]
    call(suite, *words)
    chosen = tmp_path / "s/labels/model/walks" / PREDICTIONS
    assert chosen.read_bytes() == (alone / PREDICTIONS).read_bytes()
    generated = lines(tmp_path / "s/words/model/walks")
    assert {line["model_output"] for line in generated} == {"yes"}


def test_another_model_is_not_resumed(score_walks: Score, stand_in: tuple[StandIn, str]) -> None:
    folder = score_walks("run")
    (folder / RESULTS).unlink()
    stand_in[0].context -= 1
    with raises(RequestError, "--resume"):
        score_walks("run", "--resume")


def test_a_server_that_lists_no_models_is_known_by_its_address(
    score_walks: Score, stand_in: tuple[StandIn, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = stand_in
    monkeypatch.setattr(server, "get", lambda _: None)
    folder = score_walks("run", "--served-model", "model")
    (folder / RESULTS).unlink()
    with started(server) as other, raises(RequestError, "--resume"):
        score_walks("run", "--served-model", "model", "--resume", "--url", other)


def test_a_row_whose_labels_the_server_refuses_counts_as_unanswered(
    score_walks: Score, stand_in: tuple[StandIn, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = itertools.count()

    def spoil(answer: dict) -> dict:
        return {**answer, "choices": []} if next(answers) == 5 else answer

    monkeypatch.setattr(stand_in[0], "spoil", spoil)
    folder = score_walks("filtered", "--max-refused", "1")
    refused = [line for line in lines(folder) if "refused" in line]
    assert [line["predicted_output"] for line in refused] == ["unknown"]
    assert (read_json(folder / RESULTS)["refused"], read_json(folder / RESULTS)["unparsed"]) == (1, 1)
    answers = itertools.count()
    with raises(RequestError, "--max-refused", "1"):
        score_walks("stopped")
