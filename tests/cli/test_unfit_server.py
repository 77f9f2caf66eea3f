"""eval chat and eval nli with a server of another kind, one that sends elsewhere, and one with adapters."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.scoring import call
from tests.hostile_server import Hostile, Pieces, endless_body, response, serving
from tests.json_files import write_json
from tests.messages import message_of, printed_line, raises
from tuneyard.core.errors import RequestError
from tuneyard.eval.chat import cli as chat
from tuneyard.eval.models import connection as connecting
from tuneyard.eval.nli import cli as nli

Answers = Callable[[str], Pieces]
MISSING = response(b"", "404 Not Found")


class Scripted(Hostile):
    """A server that sends the same pieces to every request of a path."""

    def __init__(self, answers: Answers) -> None:
        super().__init__(lambda _path, _body: None)
        self.answers = answers

    def pieces(self, path: str, _body: object) -> Pieces:
        return self.answers(path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "WAITS", (0.0, 0.0))


def models(data: bytes) -> Answers:
    """Answer /models with these bytes, and nothing else."""
    return lambda path: iter([response(data) if path.endswith("/models") else MISSING])


def ask(answers: Answers) -> None:
    """Ask a server one question in a chat."""
    with serving(Scripted(answers)) as url:
        call(chat, "--url", url, "--once", "Is 2 even?")


def test_a_model_whose_name_is_no_text_is_refused_where_it_is_read() -> None:
    entries = {"data": [{"id": "\ud800x\u001b[31m\u0000"}]}
    with raises(RequestError, "/models", "id", "\\ud800x") as caught:
        ask(models(json.dumps(entries).encode()))
    assert message_of(caught.value).isprintable()


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (b"<!DOCTYPE html><title>Hello</title>", ("no JSON", "html")),
        (b"[" * 200_000, ("no JSON",)),
        (b"[1,2]", ("no JSON object",)),
        (b"null", ("no JSON object",)),
        (b'{"data": "\xff\xfe"}', ("no JSON",)),
    ],
    ids=["html", "brackets", "list", "null", "bytes"],
)
def test_what_models_answers_is_shown_if_no_model_is_named(data: bytes, facts: tuple[str, ...]) -> None:
    with raises(RequestError, "/models", "--url", "/chat/completions", *facts) as caught:
        ask(models(data))
    assert "--served-model" not in message_of(caught.value)


def test_an_endless_list_of_models_is_not_read_to_its_end() -> None:
    def answers(path: str) -> Pieces:
        return endless_body(b"") if path.endswith("/models") else iter([MISSING])

    with raises(RequestError, "/models", "16 MiB", "--url"):
        ask(answers)


@pytest.mark.parametrize("data", [b'{"data": []}', b"{}"])
def test_a_server_without_models_needs_a_name(data: bytes) -> None:
    with raises(RequestError, "--served-model"):
        ask(models(data))


@pytest.mark.parametrize("rest", ["/chat/completions", "/completions/", "/models", "?x=1", "#a"])
def test_an_address_ends_after_v1(rest: str) -> None:
    named = rest.rstrip("/")
    with raises(RequestError, "--url", named, "http://localhost:8000/v1"):
        call(chat, "--url", f"http://localhost:8000/v1{rest}", "--once", "Is 2 even?")


@pytest.mark.parametrize("path", ["/props", "/v1/models"])
@pytest.mark.parametrize("host", ["http://127.0.0.1:9", ""])
def test_a_redirect_is_named_and_not_followed(path: str, host: str) -> None:
    def answers(requested: str) -> Pieces:
        if requested != path:
            return iter([MISSING])
        return iter([response(b"", "302 Found", f"Location: {host}{path}?page=1")])

    with raises(RequestError, "HTTP 302", f"{path}?page=1", "--url"):
        ask(answers)


@pytest.fixture
def score_at_server(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Score two rows at a llama.cpp server that applies the adapter `walks`, not `talks`, to all requests."""
    rows = [
        {"instruction": "Is 2 even?", "output": "yes"},
        {"instruction": "Is 3 even?", "output": "no"},
    ]
    write_json(tmp_path / "even.json", rows)
    adapters = [
        {"id": 0, "path": "lora/walks.gguf", "scale": 0.5},
        {"id": 1, "path": "lora/talks.gguf", "scale": 0.0},
    ]
    answers_by_path = {
        "/v1/models": {"data": [{"id": "demo-base"}]},
        "/props": {"default_generation_settings": {"n_ctx": 512}},
        "/lora-adapters": adapters,
        "/v1/chat/completions": {"choices": [{"message": {"content": "yes"}}]},
    }

    def answers(path: str) -> Pieces:
        answer = answers_by_path.get(path)
        return iter([MISSING if answer is None else response(json.dumps(answer).encode())])

    with serving(Scripted(answers)) as url:

        def run(*more: object) -> None:
            server = ["--model", "demo-base", "--backend", "openai", "--url", url, "--mode", "generate"]
            call(nli, *server, "--data", tmp_path / "even.json", "--out", tmp_path / "out", *more)

        yield run


def test_an_adapter_that_every_request_gets_is_named(
    score_at_server: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    score_at_server()
    text = capsys.readouterr().err
    printed_line(text, "warning", '"walks"', "demo-base", "--served-model", "walks")
    assert "talks" not in text


@pytest.mark.parametrize("name", ["walks", "talks"])
def test_of_the_adapter_that_was_asked_for_nothing_is_said(
    score_at_server: Callable[..., None], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    score_at_server("--served-model", name)
    text = capsys.readouterr().err
    assert "warning" not in text and "its only model" not in text
