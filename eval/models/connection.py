"""Requests to a model's server: tries, time limits, and a fixed number of them in flight."""

import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, counted, message_of, with_texts
from tuneyard.core.language.messages import warn_once
from tuneyard.core.text.quoting import one_line
from tuneyard.core.text.secrets import HIDDEN, hide_secrets

if TYPE_CHECKING:
    import httpx

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each new try
TIMEOUT = 300.0  # seconds for an answer
CONNECTING = 20.0  # seconds until a server accepts a connection: an http server may never answer to https
FEW_TRIES = 3  # if an answer does not end, or is not what was asked for
RESUMED = _("what was answered is kept: resume with --resume")
AT_ONCE = 16  # requests in flight, unless the server names its own number
PASSING = {429, *range(500, 1000)} - {501}  # statuses after which another try may succeed
MOST_BYTES = 1 << 24  # of an answer
SHOWN_BYTES = 200  # of the answer to a refused request, and of an address
READ_OF_REFUSED = 1 << 16  # bytes: a key in the part that is shown is whole
OF_EVERY_ROW = {404, 405, 501}
"""Statuses of a path or a method that the server does not have."""
MODERATED = re.compile(r"moderat|content.?(?:filter|policy|management)|\bflagged|\bunsafe", re.I)
"""What routers answer with status 403 to a prompt whose content they do not pass on."""
KEY, NO_KEY = "OPENAI_API_KEY", "none"
TOO_LONG = re.compile(
    r"exceeds the available context size|maximum context length|longer than the maximum model length", re.I
)
"""What llama.cpp and vLLM answer to a prompt that their context does not hold."""

CLIENT: ContextVar["httpx.AsyncClient"] = ContextVar("CLIENT")
"""The open client of the requests that are on their way: `Connection.each` sets it."""
ServerJson = Mapping[str, Any]
"""A JSON object of a server, which may be anything: each value is checked where it is used."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class NoAccessError(RequestError):
    """The server would refuse every request: it sends elsewhere, or wants another key."""


class RefusedError(RequestError):
    """The server answers a request with an HTTP `status`: `problem` is its text."""

    def __init__(self, url: str, status: int, problem: str) -> None:
        super().__init__(_("{url}: {problem}", url=url, problem=problem))
        self.status = status
        self.problem = problem

    @property
    def is_too_long(self) -> bool:
        """True if the prompt and its answer do not fit the server's context."""
        return self.status == HTTPStatus.BAD_REQUEST and bool(TOO_LONG.search(self.problem))

    @property
    def is_of_row(self) -> bool:
        """True if other rows may be answered: the server refuses the content, not its address or its use."""
        return self.status not in OF_EVERY_ROW


class NoAnswerError(Exception):
    """The server sends no answer to a request that it accepts, such as one of a content filter."""


class UnreadableError(RequestError):
    """The server's answer does not have the expected form: `problem` quotes it."""

    def __init__(self, message: str, problem: str) -> None:
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Connection:
    """A server's address, which ends before /chat/completions, and the seconds to wait for an answer.

    `again` tells the user how to continue after an error. An answer that does not end or cannot be read is
    asked for `few_tries` times. `reached` has the methods that it has answered: a server that answered none
    is not waited for.
    """

    url: str
    timeout: float = TIMEOUT
    again: str = RESUMED
    at_once: int = AT_ONCE
    few_tries: int = FEW_TRIES
    reached: set[str] = field(default_factory=set, compare=False)

    @property
    def root(self) -> str:
        """The address without /v1, below which are paths that OpenAI's interface lacks, such as /tokenize."""
        return self.url.removesuffix("/v1")

    def each(self, work: Callable[[Item], Awaitable[Result]], items: Sequence[Item]) -> list[Result]:
        """Do the work for all items, several at once. Results are in the order of the items.

        The first error cancels the others' requests, and so does Ctrl-C.
        """

        import asyncio

        async def work_all() -> list[Result]:
            slots = asyncio.Semaphore(self.at_once)

            async def in_slot(item: Item) -> Result:
                async with slots:
                    return await work(item)

            async with self._client() as client, asyncio.TaskGroup() as group:
                CLIENT.set(client)
                tasks = [group.create_task(in_slot(item)) for item in items]
            return [task.result() for task in tasks]

        try:
            return asyncio.run(work_all())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def once(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do the work of one or several requests, one after the other."""
        (result,) = self.each(lambda _item: work(), [None])
        return result

    def _client(self) -> "httpx.AsyncClient":
        """Open a client with the system's certificate authorities and urllib's proxy for the scheme.

        Answers are not compressed, so that a small one cannot become a large one.
        """
        import ssl
        import urllib.request

        import httpx

        parts = urlsplit(self.url)
        bypassed = urllib.request.proxy_bypass(parts.hostname or "")
        proxy = None if bypassed else urllib.request.getproxies().get(parts.scheme)
        authorities = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if parts.scheme == "https":
            authorities.load_default_certs()
        headers = {"Authorization": f"Bearer {api_key()}", "Accept-Encoding": "identity"}
        limit = httpx.Timeout(None, connect=min(self.timeout, CONNECTING))
        try:
            return httpx.AsyncClient(
                verify=authorities, proxy=proxy, trust_env=False, timeout=limit, headers=headers
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            message = _(
                "{url}: {scheme}_proxy={proxy}: {error}",
                url=self.url,
                scheme=parts.scheme,
                proxy=proxy,
                error=error,
            )
            raise RequestError(with_texts(message, hide_secrets)) from error

    async def request(
        self,
        address: str,
        body: Mapping[str, object] | None,
        read: Callable[[bytes], Result],
        about: str,
    ) -> Result:
        """Post a body (None: get the address) and `read` the answer; a `ValueError` of `read` is tried again.

        `RefusedError` if the server refuses the request, `NoAccessError` if it would refuse every one,
        `UnreadableError` if it answers nonsense, `RequestError` if no try gives an answer.
        """
        import asyncio

        from httpx import ConnectError, ConnectTimeout, HTTPError, InvalidURL

        failure: Exception = ValueError()
        for tries, wait in enumerate((0.0, *WAITS), 1):
            await asyncio.sleep(wait)
            try:
                async with asyncio.timeout(self.timeout):
                    return read(await self._answer(address, body))
            except RefusedError as error:
                if error.status not in PASSING:
                    raise
                failure = error
            except (OSError, HTTPError, InvalidURL, ValueError) as error:
                failure = error
                if tries == 1 and isinstance(error, ConnectError):
                    if not self.reached:
                        break
                    reason = _printable(str(error))
                    warn_once(
                        _(
                            "{url}: {reason}. Trying again for {seconds:.0f} s …",
                            url=self.url,
                            reason=reason,
                            seconds=sum(WAITS),
                        )
                    )
                if tries >= self.few_tries and isinstance(error, TimeoutError | ConnectTimeout | ValueError):
                    break
        problem = with_texts(self._problem(failure), _printable)
        again = self.again
        if not self.reached:
            again = _("start the server (tuneyard adapter serve), or correct --url")
        message = _(
            "{url}: {about}: no answer in {tries} ({problem}); {again}",
            url=self.url,
            about=about,
            tries=counted(tries, "try", "tries"),
            problem=problem,
            again=again,
        )
        if isinstance(failure, ValueError):
            message = _(
                "{problem}. Is --url an OpenAI-compatible server's address before /chat/completions?",
                problem=message,
            )
            raise UnreadableError(message, problem)
        raise RequestError(message)

    def _problem(self, failure: Exception) -> str:
        """Describe why a request got no answer, with what to try."""
        from httpx import ConnectError, ConnectTimeout

        if isinstance(failure, TimeoutError):
            return _("no whole answer within {seconds:g} s, the limit of --timeout", seconds=self.timeout)
        if isinstance(failure, RefusedError):
            return failure.problem
        if isinstance(failure, ValueError):
            return message_of(failure)
        problem = f"{type(failure).__name__}: {failure}"
        if not isinstance(failure, ConnectError | ConnectTimeout):
            return problem
        if self.url.startswith("https:"):
            return _(
                "{problem}; is the server running at this address? Does it speak https? "
                "SSL_CERT_FILE names the certificates of other authorities",
                problem=problem,
            )
        return _("{problem}; is the server running at this address?", problem=problem)

    async def _answer(self, address: str, body: Mapping[str, object] | None) -> bytes:
        """The body of an answer, `RefusedError` for one of another status. `ValueError` if it is too large.

        Redirects are not followed: the key is for the host in --url.
        """
        method = "GET" if body is None else "POST"
        async with CLIENT.get().stream(method, address, json=body) as response:
            self.reached.add(method)
            data = bytearray()
            async for piece in response.aiter_raw():
                data += piece
                if not response.is_success and len(data) > READ_OF_REFUSED:  # it may be endless
                    break
                if len(data) > MOST_BYTES:
                    raise ValueError(_("an answer of more than {size} MiB", size=MOST_BYTES >> 20))
        if response.is_success:
            return without_key(bytes(data))
        # Some proxies return the headers of a request: the key is hidden before the answer is cut.
        beginning = hide_secrets(data.decode(errors="replace"))[:SHOWN_BYTES]
        status = response.status_code
        problem = one_line(f"HTTP {status} {beginning}".strip())
        elsewhere = response.next_request
        if elsewhere:
            other_address = hide_secrets(str(elsewhere.url))[:SHOWN_BYTES]
            problem = _(
                "HTTP {status}: it sends elsewhere, {address!r}", status=status, address=other_address
            )
        if elsewhere or status == HTTPStatus.NOT_FOUND:
            problem = _(
                "{problem} (--url is the address before /chat/completions, such as http://localhost:8000/v1)",
                problem=problem,
            )
        of_content = status == HTTPStatus.FORBIDDEN and MODERATED.search(beginning)
        no_access = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) and not of_content
        if status < HTTPStatus.BAD_REQUEST or no_access:
            raise NoAccessError(_("{url}: {problem}", url=self.url, problem=problem))
        raise RefusedError(self.url, status, problem)


def without_key(data: bytes) -> bytes:
    """An answer without the key: a proxy may return it, and errors quote parts of answers."""
    if api_key() == NO_KEY:
        return data
    return data.replace(api_key().encode(), HIDDEN.encode())


def _printable(text: str) -> str:
    """A text of a server or a library in one line, without secrets."""
    return one_line(hide_secrets(text))


def api_key() -> str:
    """The key for servers. `RequestError`, without the key, if it cannot be sent."""
    key = os.environ.get(KEY, "").strip() or NO_KEY
    if not re.fullmatch("[!-~]+", key):
        raise RequestError(
            _("{name}: expected ASCII letters, digits and signs without spaces; set it again", name=KEY)
        )
    return key
