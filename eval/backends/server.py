"""Prompting a model behind an OpenAI-compatible server: generated answers, the server's own chat template."""

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
    """Return a server's address without a slash at its end; `RequestError` for what is none."""
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
        """Return a handful of conversations at once, in the data's order; the server refuses by itself."""
        rows = sorted(talks)
        return [rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE)], {}

    def generate(self, talks: Sequence[Messages], max_new_tokens: int) -> list[str]:
        """Return the greedy answers; `RequestError` where the server refuses or stays away."""
        with self._client() as client, ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda talk: self._answer(client, talk, max_new_tokens), talks))

    def _client(self) -> "httpx.Client":
        """Trust whom the system trusts; a proxy is that of the address's scheme, as urllib finds it."""
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

        body = {"model": self.name, **_asked(talk), "max_tokens": max_new_tokens, "temperature": 0}
        problem = ""
        for wait in (0.0, *WAITS):
            time.sleep(wait)
            try:
                key = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
                address = f"{self.url}/chat/completions"
                with client.stream("POST", address, json=body, headers=key) as response:
                    if response.is_success:
                        return _content(response.read())
                    problem, code = _refusal(response), response.status_code
            except (OSError, HTTPError, InvalidURL, ValueError) as error:
                problem, code = f"{type(error).__name__}: {error}", 0
            if 0 < code < 500 and code != TOO_MANY_REQUESTS:
                raise RequestError(f"{self.url}: {problem}")
        raise RequestError(
            f"{self.url}: {talk[-1]['content'][:40]!r}: no answer in {len(WAITS) + 1} tries ({problem}); "
            "what was answered is kept: resume with --resume"
        )


def _refusal(response: "httpx.Response") -> str:
    """No redirect is followed: the key is for the host that was named."""
    if to := response.headers.get("Location"):
        return f"HTTP {response.status_code}: it sends elsewhere, {to!r}: name that address in --url"
    said = next(response.iter_bytes(200), b"").decode(errors="replace")  # it may go on without end
    return f"HTTP {response.status_code} {said}".strip()


def _asked(talk: Messages) -> dict[str, object]:
    """Return messages and tools in OpenAI's form: arguments as JSON text, ids that join call and result."""
    messages, tools = openai_messages(talk)
    due: list[str] = []
    for number, message in enumerate(messages):
        for place, call in enumerate(message.get("tool_calls", ())):
            call["id"] = f"call_{number}_{place}"
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
            due.append(call["id"])
        if message["role"] == "tool" and due:
            message["tool_call_id"] = due.pop(0)
    return {"messages": messages, **({"tools": tools} if tools else {})}


def _content(data: bytes) -> str:
    """Return the text, thoughts in <think> before it, calls after it; `ValueError` for no chat completion."""
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
