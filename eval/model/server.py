"""Asking a model behind an OpenAI-compatible server: generated answers, the server's own chat template."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from core.errors import RequestError
from core.prompt import Message
from eval.model.ask import Fields

AT_ONCE = 8
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each new try
TIMEOUT = 300


@dataclass(frozen=True, slots=True)
class Server:
    """A model's name on a server; `url` ends before /chat/completions, e.g. http://localhost:8000/v1."""

    url: str
    name: str
    device: str = "server"
    dtype: str = "server"


class Serving:
    """Has the server generate a greedy answer to each conversation and parses it into a label."""

    def __init__(
        self,
        server: Server,
        talks: Mapping[int, list[Message]],
        parse: Callable[[str], str],
        max_new_tokens: int,
    ) -> None:
        """Prepare to ask conversations by row, a handful at once."""
        self.server, self.talks, self.parse, self.max_new_tokens = server, talks, parse, max_new_tokens
        rows = sorted(talks)
        self.batches = [rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE)]
        self.refused: dict[int, str] = {}

    def ask(self, batch: Sequence[int]) -> list[Fields]:
        """Return text and label of each row; `RequestError` where the server refuses or stays away."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            texts = list(pool.map(self._answer, batch))
        return [{"model_output": text, "predicted_output": self.parse(text)} for text in texts]

    def _answer(self, row: int) -> str:
        body = {
            "model": self.server.name,
            "messages": self.talks[row],
            "max_tokens": self.max_new_tokens,
            "temperature": 0,
        }
        problem = ""
        for wait in (0.0, *WAITS):
            time.sleep(wait)
            try:
                return _content(_post(f"{self.server.url}/chat/completions", body))
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code} {error.read(200).decode(errors='replace')}".strip()
                if error.code < 500 and error.code != http.client.TOO_MANY_REQUESTS:
                    raise RequestError(f"{self.server.url}: {problem}") from error
            except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}"
        raise RequestError(
            f"{self.server.url}: row {row}: no answer in {len(WAITS) + 1} tries ({problem}); "
            "what was answered is kept: go on with --resume"
        )


def _post(url: str, body: dict[str, object]) -> bytes:
    key = os.environ.get("OPENAI_API_KEY", "none")
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        data: bytes = response.read()
    return data


def _content(data: bytes) -> str:
    """Return the answer's text, with what the server gives as reasoning in <think> before it."""
    message = json.loads(data)["choices"][0]["message"]
    thought = message.get("reasoning_content")
    return f"<think>{thought}</think>" * bool(thought) + (message["content"] or "")
