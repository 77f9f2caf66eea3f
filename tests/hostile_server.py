"""A server that answers properly until it spoils its answers, in ways that a test names."""

import gzip
import json
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from tests.serving import serving as answered

Answer = Mapping[str, Any]
Pieces = Iterator[bytes | float]
"""What is sent, piece by piece. A number is a pause in seconds."""
ELSEWHERE = "http://127.0.0.1:9/elsewhere"
FOREVER = 10_000


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def whole(body: str, status: str = "200 OK", *headers: str) -> Callable[[bytes], Pieces]:
    """Send this body instead of the answer."""
    return lambda _: iter([response(body.encode(), status, *headers)])


def changed(change: Callable[[Any], object]) -> Callable[[bytes], Pieces]:
    """Change the JSON of the answer."""

    def send(data: bytes) -> Pieces:
        answer = json.loads(data)
        change(answer)
        yield response(json.dumps(answer).encode())

    return send


def endless_body(_: bytes) -> Pieces:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(FOREVER):
        yield b"10000\r\n" + b" " * 0x10000 + b"\r\n"


def dripping_body(data: bytes) -> Pieces:
    yield f"HTTP/1.1 200 OK\r\nContent-Length: {len(data) + FOREVER}\r\n\r\n".encode()
    for _ in range(FOREVER):
        yield b" "
        yield 0.05


def dripping_headers(_: bytes) -> Pieces:
    yield b"HTTP/1.1 200 OK\r\nX: "
    for _ in range(FOREVER):
        yield b"x"
        yield 0.05


def endless_headers(_: bytes) -> Pieces:
    yield b"HTTP/1.1 200 OK\r\nX: "
    for _ in range(FOREVER):
        yield b"x" * 0x10000


def endless_early_answers(_: bytes) -> Pieces:
    for _ in range(FOREVER):
        yield b"HTTP/1.1 100 Continue\r\n\r\n"
        yield 0.05


def cut_body(data: bytes) -> Pieces:
    yield response(data)[:-1]


def hang(_: bytes) -> Pieces:
    yield 1000.0


def no_answer(_: bytes) -> Pieces:
    yield b""


def not_http(_: bytes) -> Pieces:
    yield b"SSH-2.0-OpenSSH_9.6\r\n"


BOMB = gzip.compress(bytes(1 << 26), 1)


def bomb(_: bytes) -> Pieces:
    yield response(BOMB, "200 OK", "Content-Encoding: gzip")


SPOILED = {
    "a page of HTML": (whole("<html>", "200 OK", "Content-Type: text/html"), "no JSON"),
    "nothing": (whole(""), "no JSON"),
    "null": (whole("null"), "no JSON object"),
    "another object": (whole('{"data": []}'), "data"),
    "an error": (whole('{"error": {"message": "out of memory"}}'), "out of memory"),
    "brackets that stay open": (whole("[" * 100_000), "no JSON"),
    "deep JSON": (whole('{"choices": ' + "[" * 900 + "]" * 900 + "}"), "choices"),
    "NaN": (whole('{"choices": NaN, "completion_probabilities": NaN}'), "NaN"),
    "a huge integer": (whole('{"choices": ' + "9" * 10_000 + "}"), "no JSON"),
    "a redirect": (whole("", "307 Temporary Redirect", f"Location: {ELSEWHERE}"), ELSEWHERE),
    "no such address": (whole("", "404 Not Found"), "HTTP 404"),
    "another key": (whole("wrong key", "401 Unauthorized"), "wrong key"),
    "overload": (whole("full", "503 Service Unavailable"), "HTTP 503"),
    "an endless body": (endless_body, "16 MiB"),
    "a body that drips": (dripping_body, "--timeout"),
    "headers that drip": (dripping_headers, "--timeout"),
    "endless headers": (endless_headers, "RemoteProtocolError"),
    "endless early answers": (endless_early_answers, "--timeout"),
    "a cut body": (cut_body, "RemoteProtocolError"),
    "a hang": (hang, "--timeout"),
    "no answer": (no_answer, "RemoteProtocolError"),
    "another protocol": (not_http, "RemoteProtocolError"),
    "a bomb": (bomb, "no JSON"),
    "another model": (changed(lambda answer: answer.update(model="other")), "changed"),
}
"""Ways to spoil an answer, and what the message must contain."""


def step_of(answer: Any) -> dict[str, Any]:
    """The only step of llama.cpp's log-probabilities."""
    (step,) = answer["completion_probabilities"]
    return step


def set_all(value: object) -> Callable[[Any], None]:
    """Set all log-probabilities to a value."""

    def change(answer: Any) -> None:
        step = step_of(answer)
        step["logprob"] = value
        for top in step["top_logprobs"]:
            top["logprob"] = value

    return change


def two_steps(answer: Any) -> None:
    """List the only step again."""
    answer["completion_probabilities"] *= 2


NO_LOGS = changed(lambda answer: answer.pop("completion_probabilities"))
SPOILED_LOGS = {
    "no log-probabilities": (NO_LOGS, "log-probabilities"),
    "too many steps": (changed(two_steps), "too many values"),
    "a probability above 1": (changed(set_all(2.0)), "2.0"),
    "a log-probability that is null": (changed(set_all(None)), "null"),
    "infinity": (changed(set_all(float("inf"))), "Infinity"),
    "a prompt of another length": (changed(lambda answer: answer.update(tokens_evaluated=10**30)), "tokens"),
    "a cut prompt": (changed(lambda answer: answer.update(truncated=True)), "fewer"),
}
"""The same for log-probabilities of llama.cpp."""


class Hostile:
    """Answers with `proper`; from completion number `spoil_from` on it sends the pieces of `spoil`.

    With another `spoiled_path`, requests whose path contains it are counted and spoiled instead.
    """

    def __init__(self, proper: Callable[[str, Answer | None], object]) -> None:
        self.proper = proper
        self.spoil: Callable[[bytes], Pieces] | None = None
        self.spoil_from = 0
        self.spoiled_path = "completion"
        self.completions = 0
        self.paths: list[str] = []
        self.stopped = threading.Event()
        self.lock = threading.Lock()

    def pieces(self, path: str, body: Answer | None) -> Pieces:
        """The answer to a request."""
        answer = self.proper(path, body)
        data = json.dumps({"error": "unknown"} if answer is None else answer).encode()
        self.paths.append(path)
        if self.spoiled_path in path:
            with self.lock:
                self.completions += 1
                is_spoiled = self.completions > self.spoil_from
            if self.spoil is not None and is_spoiled:
                return self.spoil(data)
        return iter([response(data, "404 Not Found" if answer is None else "200 OK")])


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


@contextmanager
def serving(hostile: Hostile) -> Iterator[str]:
    """Address of the server inside the block."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            _, path, _ = self.rfile.readline().decode().split()
            length = 0
            for line in iter(self.rfile.readline, b"\r\n"):
                name, _, value = line.decode().partition(":")
                if name.lower() == "content-length":
                    length = int(value)
            body = json.loads(self.rfile.read(length)) if length else None
            with suppress(OSError):  # the client had enough
                for piece in hostile.pieces(path, body):
                    if isinstance(piece, float):
                        if hostile.stopped.wait(piece):
                            return
                    else:
                        self.wfile.write(piece)

    with answered(Server(("127.0.0.1", 0), Handler)) as url:
        try:
            yield f"{url}/v1"
        finally:
            hostile.stopped.set()
