"""Generate answers with an OpenAI-compatible server, which applies its own chat template."""

import json
import os
import re
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneyard.core.errors import RequestError
from tuneyard.core.prompt import openai_messages
from tuneyard.eval.backends.scorers import Messages, Plan

if TYPE_CHECKING:
    import httpx

AT_ONCE = 8
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each new try
TIMEOUT = 300
TOO_MANY_REQUESTS = 429


def check_url(url: str) -> str:
    """Remove the slash at the end of a server's address. `RequestError` if it is not an http(s) address."""
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        fits = False
    if not fits or not re.fullmatch("[!-~]+", url):
        raise RequestError(f"--url {url!r}: expected an address such as http://localhost:8000/v1")
    return url.rstrip("/")


@dataclass(frozen=True, slots=True)
class Server:
    """A model's name on a server; `url` ends before /chat/completions, e.g. http://localhost:8000/v1."""

    url: str
    name: str
    device: str = "server"
    dtype: str = "server"

    def plan(self, talks: Mapping[int, Messages], _longest: int) -> Plan:
        """Plan batches of a few conversations in the data's order. The server itself refuses long ones."""
        rows = sorted(talks)
        return [rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE)], {}

    def generate(self, talks: Sequence[Messages], max_new_tokens: int) -> list[str]:
        """Fetch the greedy answers. `RequestError` if the server refuses or does not answer."""
        with self._client() as client, ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda talk: self._answer(client, talk, max_new_tokens), talks))

    def _client(self) -> "httpx.Client":
        """Open a client with the system's certificate authorities and urllib's proxy for the scheme."""
        import httpx

        parts = urllib.parse.urlsplit(self.url)
        bypassed = urllib.request.proxy_bypass(parts.hostname or "")
        proxy = None if bypassed else urllib.request.getproxies().get(parts.scheme)
        authorities = ssl.create_default_context()
        try:
            return httpx.Client(timeout=TIMEOUT, verify=authorities, trust_env=False, proxy=proxy)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            name = f"{parts.scheme}_proxy"
            raise RequestError(
                f"{self.url}: the proxy {proxy!r} ({name} of the environment): {error}"
            ) from error

    def _answer(self, client: "httpx.Client", talk: Messages, max_new_tokens: int) -> str:
        from httpx import HTTPError, InvalidURL

        body = {"model": self.name, **_request(talk), "max_tokens": max_new_tokens, "temperature": 0}
        problem = ""
        for wait in (0.0, *WAITS):
            time.sleep(wait)
            try:
                key = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
                address = f"{self.url}/chat/completions"
                with client.stream("POST", address, json=body, headers=key) as response:
                    if response.is_success:
                        return _content(response.read())
                    problem, code = _http_problem(response), response.status_code
            except (OSError, HTTPError, InvalidURL, ValueError) as error:
                problem, code = f"{type(error).__name__}: {error}", 0
            if 0 < code < 500 and code != TOO_MANY_REQUESTS:
                raise RequestError(f"{self.url}: {problem}")
        raise RequestError(
            f"{self.url}: {talk[-1]['content'][:40]!r}: no answer in {len(WAITS) + 1} tries ({problem}); "
            "what was answered is kept: resume with --resume"
        )


def _http_problem(response: "httpx.Response") -> str:
    """Describe the error answer of a server. Redirects are not followed: the key is for the host in --url."""
    location = response.headers.get("Location")
    if location:
        return f"HTTP {response.status_code}: it sends elsewhere, {location!r}: name that address in --url"
    beginning = next(response.iter_bytes(200), b"").decode(errors="replace")  # the body may be endless
    return f"HTTP {response.status_code} {beginning}".strip()


def _request(talk: Messages) -> dict[str, object]:
    """Messages and tools in OpenAI's form: arguments as JSON text, and ids that join call and result."""
    messages, tools = openai_messages(talk)
    open_calls: list[str] = []
    for number, message in enumerate(messages):
        for place, call in enumerate(message.get("tool_calls", ())):
            call["id"] = f"call_{number}_{place}"
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
            open_calls.append(call["id"])
        if message["role"] == "tool" and open_calls:
            message["tool_call_id"] = open_calls.pop(0)
    request: dict[str, object] = {"messages": messages}
    if tools:
        request["tools"] = tools
    return request


def _content(data: bytes) -> str:
    """Read the answer's text, with thoughts in <think> before it and tool calls after it.

    `ValueError` if the data is not a chat completion.
    """
    try:
        message = json.loads(data)["choices"][0]["message"]
        thought = message.get("reasoning_content")
        text = f"<think>{thought}</think>" * bool(thought) + (message["content"] or "")
        for call in message.get("tool_calls") or ():
            name, arguments = json.dumps(call["function"]["name"]), call["function"]["arguments"]
            text += f'\n<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no chat completion: {data[:60]!r}") from error
    return text.encode(errors="replace").decode()  # JSON can hold half a character, no file can
