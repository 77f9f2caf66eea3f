"""A client whose requests end: each has one deadline, whatever a server sends, and all can be aborted.

The timeouts of httpx hold for each read. A server that sends a byte now and then would never meet them.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore
import httpx


class _Deadline(threading.local):
    """The end of this thread's request, by the monotonic clock."""

    at = float("inf")


_deadline = _Deadline()


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let the requests of this thread fail with a timeout if they take longer inside the block."""
    _deadline.at = time.monotonic() + seconds
    try:
        yield
    finally:
        _deadline.at = float("inf")


def _remaining(timeout: float | None) -> float | None:
    """The timeout of a read or write, shortened to the deadline."""
    left = _deadline.at - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the answer does not end")
    if timeout is None:
        return None if left == float("inf") else left
    return min(timeout, left)


class _Stream(httpcore.NetworkStream):
    """A connection that reads and writes until the deadline."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _remaining(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _remaining(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _remaining(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    """Opens connections with a deadline, and remembers their sockets."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, _remaining(timeout), local_address, socket_options)
        self._sockets.append(stream.get_extra_info("socket"))
        return _Stream(stream)

    def abort(self) -> None:
        """Let everything that reads or writes fail at once."""
        for each in self._sockets:
            with contextlib.suppress(OSError):  # it was closed before
                each.shutdown(socket.SHUT_RDWR)


class Client(httpx.Client):
    """A client with deadlines. Answers are not compressed, so that a small one cannot become a large one."""

    def __init__(
        self,
        timeout: float,
        connecting: float,
        authorities: ssl.SSLContext,
        proxy: str | None,
        connections: int,
    ) -> None:
        self._backend = _Backend()
        limits = httpx.Limits(max_connections=connections)
        transport = httpx.HTTPTransport(verify=authorities, trust_env=False, proxy=proxy, limits=limits)
        transport._pool._network_backend = self._backend  # httpx takes no backend
        headers = {"Accept-Encoding": "identity"}
        limit = httpx.Timeout(timeout, connect=connecting)
        super().__init__(transport=transport, timeout=limit, trust_env=False, headers=headers)

    def abort(self) -> None:
        """Let all requests of other threads fail at once."""
        self._backend.abort()
