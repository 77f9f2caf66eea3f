"""eval.nli --backend openai against a local server that answers, stumbles, stays away, and comes back."""

import json
import shutil
import socket
import ssl
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.cli import scoring
from tests.cli.scoring import even_rows, predictions
from tests.json_files import read_json, read_lines, write_json
from tests.messages import raises
from tests.serving import Quiet, local_server, serving
from tuneyard.core.errors import RequestError
from tuneyard.eval.models import connection
from tuneyard.eval.nli import cli
from tuneyard.eval.qa.__main__ import cli as qa

ROWS = even_rows(20)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch):
    """A server that answers rightly; `plan` says what (status, body) a question's number gets first."""
    monkeypatch.setattr(connection, "WAITS", (0.01, 0.01))
    plan: dict[int, list[tuple[int, str]]] = {}
    seen: list[dict] = []

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.body())
            seen.append({**body, "path": self.path, "key": self.headers["Authorization"]})
            number = int(body["messages"][-1]["content"].split()[1])
            status, text = plan[number].pop(0) if plan.get(number) else (200, answer(number))
            self.send(text.encode(), status, {"Location": text} if 300 <= status < 400 else None)

    def answer(number: int) -> str:
        return json.dumps({"choices": [{"message": {"content": ROWS[number]["output"].upper() + "."}}]})

    with serving(local_server(Handler)) as url:
        yield f"{url}/v1/", plan, seen


@pytest.fixture
def ask(tmp_path: Path, served):
    write_json(tmp_path / "even.json", ROWS)

    def call(*arguments: str, url: str = served[0]) -> Path:
        given = ["--model", "org/big", "--backend", "openai", "--url", url, "--mode", "generate"]
        files = ["--data", tmp_path / "even.json", "--out", tmp_path / "out"]
        scoring.call(cli, *given, *files, *arguments)
        return tmp_path / "out/big/even"

    return call


def test_a_server_is_asked_greedily_and_its_answers_parsed(ask, served, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-9f8e7d6c")
    folder = ask("--max-new-tokens", "9")
    results = read_json(folder / "results.json")
    assert (results["accuracy"], results["n"], results["dtype"]) == (1.0, 20, "server")
    assert "sk-9f8e7d6c" not in (folder / "results.json").read_text()
    first = min(served[2], key=lambda body: int(body["messages"][0]["content"].split()[1]))
    assert first == {
        "model": "org/big", "messages": [{"role": "user", "content": "Is 0 even?"}], "max_tokens": 9,
        "temperature": 0, "path": "/v1/chat/completions", "key": "Bearer sk-9f8e7d6c",
    }  # fmt: skip


def test_a_server_samples_as_the_options_say(served, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tuneyard.eval.qa.__main__.PROMPTS", ("Is 0 even?",))
    write_json(tmp_path / "even.json", ROWS)
    given = [
        "--model",
        "org/big",
        "--backend",
        "openai",
        "--url",
        served[0],
        "--data",
        tmp_path / "even.json",
    ]
    scoring.call(qa, *given, "--temperature", 0.7, "--top-p", 0.9, "--seed", 3, "--out", tmp_path / "warm")
    scoring.call(qa, *given, "--temperature", 1.5, "--out", tmp_path / "hot")
    sent = [
        {name: body.get(name) for name in ("temperature", "top_p", "top_k", "seed")} for body in served[2]
    ]
    warm = {"temperature": 0.7, "top_p": 0.9, "top_k": None, "seed": 3}
    hot = {"temperature": 1.5, "top_p": None, "top_k": None, "seed": None}
    assert [sent.count(warm), sent.count(hot), len(sent)] == [21, 21, 42]


def test_stumbles_are_tried_again(ask, served) -> None:
    served[1].update({3: [(500, "boom")], 4: [(200, "")], 5: [(429, "slow down"), (200, "{}")]})
    results = read_json(ask() / "results.json")
    assert results["accuracy"] == 1.0
    assert len(served[2]) == 24


@pytest.mark.parametrize("body", ["[1]", '{"choices": {}}', '{"choices": [{"message": ["yes"]}]}'])
def test_what_is_no_chat_completion_is_shown(ask, served, body) -> None:
    served[1][11] = [(200, body)] * 3
    with raises(RequestError, "3", "--resume"):
        ask()


@pytest.mark.parametrize("value", [0, []])
@pytest.mark.parametrize("field", ["content", "reasoning_content", "model", "finish_reason"])
def test_a_field_that_is_no_text_is_named(ask, served, field, value) -> None:
    message = {"content": "no"}
    choice = {"message": message}
    answer = {"choices": [choice]}
    {"model": answer, "finish_reason": choice}.get(field, message)[field] = value
    served[1][11] = [(200, json.dumps(answer))] * 3
    with raises(RequestError, field, json.dumps(value), "--resume"):
        ask()


def test_half_a_character_in_an_answer_is_replaced(ask, served) -> None:
    served[1][3] = [(200, '{"choices": [{"message": {"content": "no \\ud83d"}}]}')]
    assert predictions(ask())[3]["model_output"] == "no ?"


@pytest.mark.parametrize("name", ["..", "/", "org/..", ".hidden"])
def test_a_name_that_would_leave_the_results_folder_is_refused(ask, refused, name) -> None:
    with refused(RequestError, "--model"):
        ask("--model", name)


def test_a_server_that_fails_stops_the_run_which_can_be_resumed(ask, served, tmp_path) -> None:
    whole = ask().joinpath("predictions.jsonl").read_bytes()
    served[1][11] = [(503, "full")] * 3
    served[2].clear()
    with raises(RequestError, "11", "3", "HTTP 503", "--resume"):
        ask("--force")
    left = (tmp_path / "out/big/even/predictions.jsonl").read_bytes()
    assert left.count(b"\n") == 8
    served[2].clear()
    folder = ask("--resume")
    assert len(served[2]) == 12
    assert (folder / "predictions.jsonl").read_bytes() == whole
    assert (folder / "results.json").exists()


TOO_LONG = [
    '{"error": {"code": 400, "message": "request (812 tokens) exceeds the available context size (512)"}}',
    '{"error": {"message": "This model\'s maximum context length is 512 tokens. You requested 812"}}',
]


@pytest.mark.parametrize("text", TOO_LONG, ids=["llama.cpp", "vllm"])
def test_a_row_that_the_server_finds_too_long_counts_as_incorrect(ask, served, text, capsys) -> None:
    served[1].update({3: [(400, text)], 17: [(400, text)]})
    folder = ask()
    results = read_json(folder / "results.json")
    assert (results["n"], results["too_long"], results["accuracy"]) == (20, 2, 0.9)
    lines = read_lines(folder / "predictions.jsonl")
    assert [line["row"] for line in lines if "too_long" in line] == [3, 17]
    assert "2 prompts" in capsys.readouterr().err
    whole = (folder / "predictions.jsonl").read_bytes()
    served[1].update({3: [(400, text)], 11: [(503, "full")] * 3, 17: [(400, text)]})
    with raises(RequestError, "HTTP 503"):
        ask("--force")
    served[1][17] = [(400, text)]
    ask("--resume")
    assert (folder / "predictions.jsonl").read_bytes() == whole


@pytest.mark.parametrize("key", ["sk-9f8e7d6c", "sk-9f8e7d6c\r", " sk-9f8e7d6c "])
def test_a_key_with_a_line_end_is_sent_and_never_printed(ask, served, monkeypatch, key) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    served[1][0] = [(403, "Authorization: Bearer sk-9f8e7d6c is not for this model")]
    with raises(RequestError, "HTTP 403", "Bearer (hidden)") as caught:
        ask()
    assert "sk-9f8e7d6c" not in str(caught.value)
    assert {body["key"] for body in served[2] if body["messages"]} == {"Bearer sk-9f8e7d6c"}


@pytest.mark.parametrize("key", ["sec\nret", "gehe\u00efm"])
def test_a_key_that_no_header_can_have_is_refused_and_not_printed(ask, served, monkeypatch, key) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with raises(RequestError, "OPENAI_API_KEY") as caught:
        ask()
    assert "ret" not in str(caught.value).replace("letters", "") and not served[2]


def test_a_password_in_the_address_is_refused_and_not_printed(ask, tmp_path) -> None:
    with raises(RequestError, "--url", "OPENAI_API_KEY") as caught:
        ask(url="http://me:sk-9f8e7d6c@localhost:8000/v1")
    assert "sk-9f8e7d6c" not in str(caught.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("status", [302, 307])
def test_the_key_does_not_follow_a_redirect(ask, served, monkeypatch, status) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-9f8e7d6c")
    heard = []

    class Other(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers["Authorization"])
            self.send(b"")

        def do_POST(self) -> None:
            self.do_GET()

    with serving(local_server(Other)) as url:
        elsewhere = f"{url.replace('127.0.0.1', 'localhost')}/v1/chat/completions"
        served[1][0] = [(status, elsewhere)]
        with raises(RequestError, "HTTP", status, "--url", repr(elsewhere)):
            ask()
    assert heard == []


def test_a_proxy_of_another_scheme_is_left_alone(ask, monkeypatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    assert (ask() / "predictions.jsonl").is_file()


def test_a_proxy_that_cannot_be_used_is_named(ask, monkeypatch) -> None:
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda _: False)
    monkeypatch.setenv("http_proxy", "socks://127.0.0.1:1080")
    with raises(RequestError, "socks://127.0.0.1:1080", "http_proxy"):
        ask()


def test_another_refusal_ends_the_run_and_of_a_long_one_the_beginning_is_told(ask, served) -> None:
    served[1][3] = [(400, "max_tokens must be positive " * 10_000)]
    with raises(RequestError, "HTTP 400", "max_tokens") as caught:
        ask()
    assert str(caught.value).count("max_tokens") < 10


def test_https_at_a_server_that_speaks_http_is_named(ask, served) -> None:
    with raises(RequestError, "SSL", "https"):
        ask(url=served[0].rstrip("/").replace("http", "https"))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_of_an_unknown_authority_is_named(ask, tmp_path) -> None:
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out certificate.pem "
        "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    web = local_server(Quiet)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    with serving(web) as url, raises(RequestError, "CERTIFICATE_VERIFY_FAILED", "SSL_CERT_FILE"):
        ask(url=f"{url.replace('http', 'https')}/v1")


def test_a_server_that_never_answers_to_https_is_not_waited_for_long(ask, monkeypatch) -> None:
    monkeypatch.setattr(connection, "CONNECTING", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}/v1"
        with raises(RequestError, "ConnectTimeout", "https"):
            ask(url=f"https://{address}")


@pytest.mark.parametrize(
    "url",
    ["localhost:8000/v1", "file:///etc", "http://x:abc/v1", "http://[::1", "http://a b/v1", "http:///v1"],
)
def test_what_is_no_address_is_refused_at_once(ask, refused, url) -> None:
    with refused(RequestError, "--url", url):
        ask(url=url)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--adapter", "y=saves/x"], ("--adapter", "--served-model y")),
        (["--url", ""], ("--backend", "--url")),
    ],
)
def test_what_a_server_cannot_do_is_refused(ask, refused, more, words) -> None:
    with refused(RequestError, *words):
        ask(*more)
