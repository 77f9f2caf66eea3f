"""Requests to a model's server: tries, time limits, and as many at once as the server bears."""

import contextlib
import math
import os
import re
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import click

from tuneyard.core.errors import RequestError, one_line

if TYPE_CHECKING:
    import httpx

    from tuneyard.eval.backends.transport import Client

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each new try
LONGEST_WAIT = 60.0  # seconds that a server's Retry-After may ask for
TIMEOUT = 300.0  # seconds for an answer
CONNECTING = 20.0  # seconds until a server accepts a connection: an http server may never answer to https
SILENT_TIMEOUTS = 3  # times the time limit after which a server that answers nobody is given up
UNREADABLE = 3  # answers to one request that are not what they should be
MOST_BYTES = 1 << 24  # of an answer
SOON = 0.5  # seconds for the requests that fail together
SHOWN_BYTES = 200  # of the answer to a refused request
SHOWN_LOCATION = 300  # characters of an address
BAD_REQUEST, UNAUTHORIZED, FORBIDDEN = 400, 401, 403
NOT_FOUND, TOO_MANY_REQUESTS, NOT_IMPLEMENTED, UNAVAILABLE = 404, 429, 501, 503
FIRST_AT_ONCE, MOST_AT_ONCE = 2, 32
KEY, NO_KEY = "OPENAI_API_KEY", "none"
PLAIN_ANSWER = re.compile("WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE")
"""OpenSSL's errors for an answer that is no TLS."""
TOO_LONG = re.compile(
    r"exceeds the available context size|maximum context length|longer than the maximum model length", re.I
)
"""What llama.cpp and vLLM answer to a prompt that their context does not hold."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Throttle:
    """Limit of the requests in flight: starts low, grows with answers, and is halved by an overload.

    It grows by one with each answer until the first overload, then by one with each `limit` answers.
    """

    def __init__(self, most: int = MOST_AT_ONCE) -> None:
        self.most = most
        self.limit = float(min(FIRST_AT_ONCE, most))
        self.in_flight = 0
        self.highest = 0
        self._overloaded = False
        self._is_reached = True
        self._last_answer = -math.inf
        self._failure: RequestError | None = None
        self._changed = threading.Condition()

    def bound(self, most: int) -> None:
        """Lower the largest limit, before any request is in flight."""
        self.most = min(self.most, most)
        self.limit = min(self.limit, float(self.most))

    def stop(self, failure: RequestError | None) -> None:
        """Let requests that wait for a slot or for another try fail with this error. None: no longer."""
        with self._changed:
            self._failure = failure
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Sleep. It raises the error of `stop` at once."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None, seconds)
            if self._failure is not None:
                raise self._failure

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Wait until a request may start. The request is in flight inside the block."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self.in_flight < int(self.limit))
            if self._failure is not None:
                raise self._failure
            self.in_flight += 1
            self.highest = max(self.highest, self.in_flight)
        try:
            yield
        finally:
            with self._changed:
                self.in_flight -= 1
                self._changed.notify_all()

    def answered(self) -> None:
        """Raise the limit after an answer."""
        with self._changed:
            self._last_answer = time.monotonic()
            step = 1 / self.limit if self._overloaded else 1.0
            self.limit = min(self.limit + step, float(self.most))
            self._changed.notify_all()

    def overloaded(self) -> None:
        """Halve the limit after a timeout or a refusal because of too many requests."""
        with self._changed:
            self._overloaded = True
            self.limit = max(self.limit / 2, 1.0)

    def unreached(self) -> bool:
        """Note that nobody listens at the address. True the first time: the user is told once."""
        with self._changed:
            is_news, self._is_reached = self._is_reached, False
        return is_news

    def silence(self, since: float) -> float:
        """Seconds without any answer, from a time of the monotonic clock on."""
        return time.monotonic() - max(since, self._last_answer)


class RefusedError(Exception):
    """The server refuses a request with an HTTP `status` that another try would get again."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

    @property
    def is_of_all_requests(self) -> bool:
        """True if every request would get it: a redirect, an answer in another form, or a wrong key."""
        return self.status < BAD_REQUEST or self.status in (UNAUTHORIZED, FORBIDDEN)

    @property
    def is_too_long(self) -> bool:
        """True if the prompt and its answer do not fit the server's context."""
        return self.status == BAD_REQUEST and bool(TOO_LONG.search(str(self)))


class UnreadableError(RequestError):
    """The server answers, but not what was asked for: `problem` is what it answers."""

    def __init__(self, message: str, problem: str) -> None:
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Connection:
    """A server's address, which ends before /chat/completions, and the seconds to wait for an answer.

    `again` tells the user how to continue after an error.
    """

    url: str
    timeout: float = TIMEOUT
    again: str = "what was answered is kept: resume with --resume"
    throttle: Throttle = field(default_factory=Throttle, compare=False)

    @property
    def root(self) -> str:
        """Address of what is not part of OpenAI's interface, such as /tokenize."""
        return self.url.removesuffix("/v1")

    @property
    def _connecting(self) -> float:
        """Seconds until a server accepts a connection."""
        return min(self.timeout, CONNECTING)

    @property
    def _http_fix(self) -> str:
        """What to try if no https connection can be made."""
        if not self.url.startswith("https:"):
            return ""
        return f"; if the server speaks no https, name {self.url.replace('https', 'http', 1)}"

    def each(self, work: "Callable[[httpx.Client, Item], Result]", items: Sequence[Item]) -> list[Result]:
        """Do the work for all items, several at once. Results are in the order of the items.

        The first error ends the others' requests at once, and so does Ctrl-C.
        """
        with self.client() as client, ThreadPoolExecutor(self.throttle.most) as pool:
            futures = [pool.submit(work, client, item) for item in items]
            is_done = False
            try:
                wait_for_futures(futures, return_when=FIRST_EXCEPTION)
                ended, _ = wait_for_futures(futures, SOON)  # of several errors, the first item's is raised
                for future in futures:
                    if future in ended:
                        future.result()
                is_done = True
            finally:
                if not is_done:
                    pool.shutdown(wait=False, cancel_futures=True)
                    self.throttle.stop(RequestError(f"{self.url}: another request failed"))
                    client.abort()
                    pool.shutdown()
                    self.throttle.stop(None)
        return [future.result() for future in futures]

    def client(self) -> "Client":
        """Open a client with the system's certificate authorities and urllib's proxy for the scheme."""
        import httpx

        from tuneyard.eval.backends.transport import Client

        parts = urllib.parse.urlsplit(self.url)
        bypassed = urllib.request.proxy_bypass(parts.hostname or "")
        proxy = None if bypassed else urllib.request.getproxies().get(parts.scheme)
        authorities = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if parts.scheme == "https":
            authorities.load_default_certs()
        try:
            return Client(self.timeout, self._connecting, authorities, proxy, self.throttle.most)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            name = f"{parts.scheme}_proxy"
            raise RequestError(
                f"{self.url}: the proxy {proxy!r} ({name} of the environment): {error}"
            ) from error

    def request(
        self,
        client: "httpx.Client",
        address: str,
        body: Mapping[str, object] | None,
        read: Callable[[bytes], Result],
        about: str,
    ) -> Result:
        """Post a body (None: get the address) and `read` the answer; a `ValueError` of `read` is tried again.

        `RefusedError` if the server refuses the request, `UnreadableError` if it answers nonsense,
        `RequestError` if no try gives an answer.
        """
        from httpx import ConnectError, ConnectTimeout, HTTPError, InvalidURL, TimeoutException

        from tuneyard.eval.backends.transport import within

        headers = {"Authorization": f"Bearer {api_key()}"}
        method = "GET" if body is None else "POST"
        began = time.monotonic()
        problem, asked_wait, unreadable, tries = "", 0.0, 0, 0
        for wait in (0.0, *WAITS):
            self.throttle.pause(max(wait, asked_wait))
            asked_wait = 0.0
            status = 0
            tries += 1
            with self.throttle.slot(), within(self.timeout):
                try:
                    with client.stream(method, address, json=body, headers=headers) as response:
                        if response.is_success:
                            answer = read(_body(response))
                            self.throttle.answered()
                            return answer
                        problem, status = self._http_problem(response, address), response.status_code
                        asked_wait = _retry_after(response)
                except TimeoutException as error:
                    problem = (
                        f"{type(error).__name__}: no whole answer within {self.timeout:g} s, the limit of "
                        "--timeout"
                    )
                    if isinstance(error, ConnectTimeout):
                        problem = f"ConnectTimeout: no connection in {self._connecting:g} s{self._http_fix}"
                    self.throttle.overloaded()
                    if self.throttle.silence(began) >= SILENT_TIMEOUTS * self.timeout:
                        break
                except ConnectError as error:
                    if PLAIN_ANSWER.search(str(error)):  # another try would get it again
                        problem = f"{error}{self._http_fix}"
                        break
                    if "CERTIFICATE_VERIFY_FAILED" in str(error):
                        problem = f"{error}; name the certificate of its authority in SSL_CERT_FILE"
                        break
                    problem = f"{type(error).__name__}: {error}; is the server running at this address?"
                    if self.throttle.unreached():
                        click.echo(
                            f"{self.url}: {one_line(problem)} Trying again for {sum(WAITS):.0f} s …", err=True
                        )
                except (OSError, HTTPError, InvalidURL) as error:
                    problem = f"{type(error).__name__}: {error}"
                except ValueError as error:
                    problem = f"{error}"
                    unreadable += 1
                    if unreadable == UNREADABLE:
                        break
            if status in (TOO_MANY_REQUESTS, UNAVAILABLE):
                self.throttle.overloaded()
            elif 0 < status < 500 or status == NOT_IMPLEMENTED:
                raise RefusedError(status, problem)
        count = "1 try" if tries == 1 else f"{tries} tries"
        message = f"{self.url}: {about}: no answer in {count} ({one_line(problem)}"
        if unreadable == UNREADABLE:
            expected = "; --url must be an OpenAI-compatible server's address before /chat/completions"
            raise UnreadableError(f"{message}{expected}); {self.again}", one_line(problem))
        raise RequestError(f"{message}); {self.again}")

    def _http_problem(self, response: "httpx.Response", address: str) -> str:
        """Describe the error answer of a server to a request to this address.

        Redirects are not followed: the key is for the host in --url.
        """
        location = response.headers.get("Location")
        if location:
            return f"HTTP {response.status_code}: {self._redirect_problem(location, address)}"
        beginning = next(response.iter_raw(SHOWN_BYTES), b"").decode(errors="replace")  # it may be endless
        key = api_key()
        if key != NO_KEY:
            beginning = beginning.replace(key, "(the key)")  # some proxies return the headers of a request
        problem = one_line(f"HTTP {response.status_code} {beginning}".strip())
        if response.status_code == NOT_FOUND:
            problem += " (--url is the address before /chat/completions, such as http://localhost:8000/v1)"
        return problem

    def _redirect_problem(self, location: str, address: str) -> str:
        """Describe a redirect of a request to this address, with the --url that avoids it."""
        try:
            target = urllib.parse.urldefrag(urllib.parse.urljoin(address, location)).url
        except ValueError:  # brackets that do not close
            target = location
        target = target.partition("?")[0].rstrip("/")
        shown = repr(target[:SHOWN_LOCATION])
        if address.startswith(f"{self.url}/"):
            path = address.removeprefix(self.url)
            end = ""
        else:
            path = address.removeprefix(self.root)
            end = self.url.removeprefix(self.root)
        if target == address:
            return f"it sends back to the same address, {shown}: a loop. Mend the server or its proxy"
        if target.endswith(path):
            base = target.removesuffix(path) + end
            return f"it sends elsewhere: name {base[:SHOWN_LOCATION]!r} in --url"
        return (
            f"it sends elsewhere, {shown}: --url must be an OpenAI-compatible server's address before "
            "/chat/completions"
        )


def api_key() -> str:
    """The key for servers. `RequestError`, without the key, if it cannot be sent."""
    key = os.environ.get(KEY, "").strip() or NO_KEY
    if not re.fullmatch("[!-~]+", key):
        raise RequestError(f"{KEY}: expected ASCII letters, digits and signs without spaces; set it again")
    return key


def _body(response: "httpx.Response") -> bytes:
    """Read an answer. `ValueError` if it is too large, `RefusedError` if it is compressed."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise RefusedError(
            response.status_code,
            f"its answer is compressed ({one_line(encoding[:SHOWN_BYTES])}), which was not asked for: turn "
            "compression off in the server or its proxy",
        )
    data = bytearray()
    for piece in response.iter_raw():
        data += piece
        if len(data) > MOST_BYTES:
            raise ValueError(f"an answer of more than {MOST_BYTES >> 20} MiB")
    return bytes(data)


def _retry_after(response: "httpx.Response") -> float:
    """Seconds that the server asks to wait, 0 if it names none."""
    text = response.headers.get("Retry-After", "")
    if not text.isdecimal():
        return 0.0
    return min(float(text), LONGEST_WAIT)
