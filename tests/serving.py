"""Servers for tests: one whose answers are known, so that results can be worked out by hand, and programs."""

import contextlib
import json
import os
import random
import socket
import socketserver
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.conftest import ROOT

LOADING = 300  # seconds that a server may take until it answers


class Quiet(BaseHTTPRequestHandler):
    """A handler of requests that says nothing of them on stderr."""

    def log_message(self, *_: object) -> None:
        pass

    def body(self) -> bytes:
        """What was sent with the request."""
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def send(self, data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer the request."""
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[str]:
    """The address of a server that answers in a thread inside the block."""
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def local_server(handler: type[socketserver.BaseRequestHandler]) -> ThreadingHTTPServer:
    """A server on a free port of this machine."""
    return ThreadingHTTPServer(("127.0.0.1", 0), handler)


@contextlib.contextmanager
def answering(answer: Callable[[str], str], heard: list[list[dict]] | None = None) -> Iterator[str]:
    """Serve `answer(the user's last message)` inside the block; yields the server's URL.

    All messages of each request are added to `heard`.
    """

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages = json.loads(self.body())["messages"]
            if heard is not None:
                heard.append(messages)
            message = {"content": answer(messages[-1]["content"])}
            self.send(json.dumps({"choices": [{"message": message}]}).encode())

    with serving(local_server(Handler)) as url:
        yield f"{url}/v1"


@contextlib.contextmanager
def running(
    command: Sequence[str], url: str, log: Path, variables: Mapping[str, str]
) -> Iterator[subprocess.Popen]:
    """Run a server's program inside the block, which begins when the server answers.

    `log` gets what it prints, `variables` are added to the environment.
    """
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **variables}, stdout=output, stderr=output
        ) as server,
    ):
        try:
            deadline = time.monotonic() + LOADING
            while not is_healthy(url):
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-6000:]
                time.sleep(0.1)
            yield server
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(30)
            server.kill()


def is_healthy(url: str) -> bool:
    """True once a server of llama.cpp or vLLM has loaded its model."""
    try:
        with urllib.request.urlopen(url.removesuffix("/v1") + "/health", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    """A port where nobody listens, below those that the kernel gives to others (from 32768 on)."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
