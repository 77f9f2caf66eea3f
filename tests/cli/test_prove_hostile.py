"""eval prove with a server that spoils its answers: each way is named, and nothing is written."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.proving import Home
from tests.cli.scoring import call
from tests.hostile_server import SPOILED, SPOILED_LOGS, Hostile, Pieces, changed, response, serving
from tests.json_files import read_json
from tests.messages import message_of, printed_line
from tests.model_server import ServedStandIn
from tuneyard.core.errors import ContentError, TuneyardError
from tuneyard.eval.prove.__main__ import cli

Spoil = Callable[[bytes], Pieces]
FIRST_QUESTIONS = 3  # completions before those for rows
TIMEOUT = 15.0
"""Seconds that no answer of the stand-in takes, even on a busy machine: a second try would count, too."""
HANG_TIMEOUT = 0.4
ELSEWHERE = SPOILED["a redirect"]


@pytest.fixture
def hostile(home: Home) -> Iterator[tuple[Hostile, str]]:
    """llama.cpp with the adapter `one`, and its address."""
    stand_in = ServedStandIn("llama.cpp", {"one": home.models["one"]})
    server = Hostile(lambda path, body: stand_in.get(path) if body is None else stand_in.post(path, body))
    with serving(server) as url:
        yield server, url


def prove(home: Home, url: str, out: Path, timeout: float = TIMEOUT) -> None:
    adapter = f"one={home.adapters['one']}"
    words = ["--model", home.base, "--adapter", adapter, "--data", home.folder / "rows.json"]
    call(cli, *words, "--max-new-tokens", 3, "--timeout", timeout, "--url", url, "--out", out)


def of_logs(spoil: Spoil) -> Spoil:
    """Spoil log-probabilities alone."""
    return lambda data: spoil(data) if b"completion_probabilities" in data else iter([response(data)])


AT_ROWS = ("an error", "a hang", "another model")
LOGS = {
    "no log-probabilities": "log-probabilities",
    "a cut prompt": "fewer",
}
"""What the message must contain, whichever of the requests that are in flight fails first."""
CASES: dict[str, tuple[str, int, Spoil, str]] = {
    **{name: ("completion", FIRST_QUESTIONS, *SPOILED[name]) for name in AT_ROWS},
    **{name: ("completion", 16, of_logs(SPOILED_LOGS[name][0]), fact) for name, fact in LOGS.items()},
    "chats sent elsewhere": ("chat/completions", 0, *ELSEWHERE),
    "prompts sent elsewhere": ("apply-template", 1, *ELSEWHERE),
    "ids sent elsewhere": ("tokenize", 1, *ELSEWHERE),
    "a prompt that is null": (
        "apply-template",
        2,
        changed(lambda answer: answer.update(prompt=None)),
        "null",
    ),
    "ids of no token": ("tokenize", 2, changed(lambda answer: answer.update(tokens=[1 << 40])), "token id"),
    "negative ids": ("tokenize", 2, changed(lambda answer: answer.update(tokens=[-5])), "token id"),
    "another file": ("props", 1, changed(lambda answer: answer.update(model_path="o.gguf")), "model_path"),
    "another size": ("models", 1, changed(lambda answer: answer["data"][0].update(meta={})), "models"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_spoiled_answer_is_named_and_nothing_is_written(
    hostile: tuple[Hostile, str],
    home: Home,
    tmp_path: Path,
    case: str,
) -> None:
    server, url = hostile
    server.spoiled_path, server.spoil_from, server.spoil, fact = CASES[case]
    with pytest.raises(TuneyardError) as caught:
        prove(home, url, tmp_path / "proof", HANG_TIMEOUT if case == "a hang" else TIMEOUT)
    message = message_of(caught.value)
    assert fact in message and url.removesuffix("/v1") in message and len(message) < 900
    assert message.isprintable()
    assert caught.value.exit_code == 2 and not isinstance(caught.value, ContentError)
    assert not (tmp_path / "proof").exists()


def test_weights_that_overflow_are_an_error_of_the_content(
    hostile: tuple[Hostile, str],
    home: Home,
    tmp_path: Path,
) -> None:
    server, url = hostile
    server.spoil_from, (spoil, fact) = 16, SPOILED_LOGS["a log-probability that is null"]
    server.spoil = of_logs(spoil)
    with pytest.raises(ContentError, match=fact):
        prove(home, url, tmp_path / "proof")
    assert not (tmp_path / "proof").exists()


def test_a_server_that_answers_as_another_model_from_the_beginning_gets_a_warning(
    hostile: tuple[Hostile, str],
    home: Home,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server, url = hostile
    server.spoil = changed(lambda answer: answer.update(model="/models/other"))
    prove(home, url, tmp_path / "proof")
    printed_line(capsys.readouterr().err, "warning", url, '"one"', '"/models/other"')
    assert read_json(tmp_path / "proof/prove.json")["proved"]


def test_a_server_reports_of_itself_once_before_its_first_rows(
    hostile: tuple[Hostile, str],
    home: Home,
    tmp_path: Path,
) -> None:
    server, url = hostile
    prove(home, url, tmp_path / "proof")
    opening = server.paths[: server.paths.index("/v1/chat/completions")]
    for path in ("/props", "/v1/models", "/lora-adapters"):
        assert opening.count(path) == 1
