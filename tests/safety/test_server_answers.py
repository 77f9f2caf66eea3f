"""What a server answers takes bounded time and memory, and its key goes to no other host.

SECURITY.md, "Texts".
"""

import gzip
import time
import tracemalloc
from collections.abc import Callable
from http.server import HTTPServer

import pytest

from tests.hostile_server import (
    Hostile,
    Pieces,
    dripping_body,
    dripping_headers,
    endless_headers,
    response,
    serving,
    whole,
)
from tests.messages import raises
from tests.serving import Quiet
from tests.serving import serving as answered
from tuneyard.core.errors import RequestError
from tuneyard.eval.models import connection as connecting
from tuneyard.eval.models.connection import KEY, MOST_BYTES, Connection
from tuneyard.eval.models.served import json_object

TIMEOUT = 1.0  # seconds of a server that drips
SLOWEST = 30.0  # seconds of another one on a busy machine
MOST_MEMORY = 4 * MOST_BYTES


def long_body(_: bytes) -> Pieces:
    """5 GB that the header announces."""
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n"
    for _ in range(5000):
        yield b" " * 1_000_000


def stream_without_a_line_end(_: bytes) -> Pieces:
    """Server-sent events whose first line does not end."""
    yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: "
    for _ in range(5000):
        yield b"x" * 1_000_000


def huge_chunk(_: bytes) -> Pieces:
    """A chunk of 2^60 bytes."""
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000000000000000\r\n"
    for _ in range(5000):
        yield b" " * 1_000_000


def drops(_: bytes) -> Pieces:
    """One byte a second."""
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(1000):
        yield b" "
        yield 1.0


BOMB = gzip.compress(b" " * (1 << 28), 1)


def bomb(_: bytes) -> Pieces:
    """256 MiB in 1 MiB, compressed although the client asked for no compression."""
    yield response(BOMB, "200 OK", "Content-Encoding: gzip")


@pytest.mark.parametrize(
    ("spoil", "fact"),
    [
        (long_body, "16 MiB"),
        (stream_without_a_line_end, "16 MiB"),
        (huge_chunk, "16 MiB"),
        (bomb, "no JSON"),
        (drops, "--timeout"),
        (dripping_body, "--timeout"),
        (dripping_headers, "--timeout"),
        (endless_headers, "RemoteProtocolError"),
        (whole("<html>busy</html>", "200 OK", "Content-Type: text/html"), "<html>busy"),
        (whole("x" * 10_000_000, "500 Internal Server Error"), "HTTP 500"),
        (whole("[" * 10_000_000), "no JSON"),
        (whole('"' + "\\ud800" * 1_000_000), "no JSON"),
        (whole('{"a": ' + "9" * 1_000_000 + "}"), "no JSON"),
    ],
)
def test_an_answer_takes_bounded_time_and_memory(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], Pieces], fact: str
) -> None:
    monkeypatch.setattr(connecting, "WAITS", ())
    hostile = Hostile(lambda *_: {})
    hostile.spoil = spoil
    timeout = TIMEOUT if fact == "--timeout" else SLOWEST
    start = time.monotonic()
    tracemalloc.start()
    try:
        with serving(hostile) as url, raises(RequestError, url, fact):
            connection = Connection(url, timeout, few_tries=1)
            connection.once(lambda: connection.request(f"{url}/completions", {}, json_object, "/completions"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < SLOWEST
    assert most < MOST_MEMORY


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
@pytest.mark.parametrize(
    "place", ["other host", "file:///etc/passwd", "//127.0.0.1:9/x", "javascript:alert(1)"]
)
def test_the_key_follows_no_redirect(monkeypatch: pytest.MonkeyPatch, status: str, place: str) -> None:
    monkeypatch.setenv(KEY, "sk-0123456789abcdefghij")
    monkeypatch.setattr(connecting, "WAITS", ())
    requests: list[str] = []

    class Other(Quiet):
        def parse_request(self) -> bool:
            requests.append(str(self.raw_requestline))
            return super().parse_request()

    hostile = Hostile(lambda *_: {})
    with answered(HTTPServer(("127.0.0.1", 0), Other)) as other, serving(hostile) as url:
        target = other if place == "other host" else place
        hostile.spoil = whole("", status, f"Location: {target}")
        connection = Connection(url, TIMEOUT, few_tries=1)
        with raises(RequestError, url) as caught:
            connection.once(lambda: connection.request(f"{url}/completions", {}, json_object, "/completions"))
    assert requests == []
    assert "sk-0" not in str(caught.value)
