"""The backend of a server: answers after its own chat template, and labels after our token ids."""

import hashlib
import json
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuneyard.core.errors import RequestError
from tuneyard.core.prompt import Encode, openai_messages
from tuneyard.eval.backends import Backend
from tuneyard.eval.backends.choice_server import (
    NO_LIMIT,
    ChoiceServer,
    Completions,
    LabelSource,
    LlamaCpp,
    check_identity,
)
from tuneyard.eval.backends.connection import Connection, RefusedError
from tuneyard.eval.backends.endpoint import find_endpoint, read_report, writable
from tuneyard.eval.backends.generate import Generated
from tuneyard.eval.backends.scorers import Messages, Plan, Prompts, Scorer, TooLong

if TYPE_CHECKING:
    import httpx

AT_ONCE = 8  # rows between two writes of the log


def check_url(url: str) -> str:
    """Remove the slash at the end of a server's address.

    `RequestError` if it is not an http(s) address, has a query, or is that of a single request.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        has_password = "@" in parts.netloc
    except ValueError:  # a port that is no number, brackets that do not close
        fits, has_password = False, "@" in url
    if has_password:
        raise RequestError(
            "--url contains a user name or password, which the results would record. Leave it out: the key "
            "of a server goes into OPENAI_API_KEY"
        )
    if not fits or not re.fullmatch("[!-~]+", url):
        raise RequestError(f"--url {url!r}: expected an address such as http://localhost:8000/v1")
    before, *rest = re.split("[?#]", url)
    if rest:
        raise RequestError(
            f"--url {url!r}: found a query or a fragment, expected an address that ends before it: {before}"
        )
    address = url.rstrip("/")
    if address.endswith("/v1/v1"):
        raise RequestError(f"--url {url!r}: /v1 twice, expected {address.removesuffix('/v1')}")
    for path in ("/chat/completions", "/completions", "/models"):
        if address.endswith(path):
            raise RequestError(
                f"--url {url!r}: expected the address before {path}: {address.removesuffix(path)}"
            )
    return address


@dataclass(eq=False)
class Server(Backend):
    """A served model. `facts` is its identity at the beginning of the run."""

    source: LabelSource
    facts: Mapping[str, object]
    choice: ChoiceServer | None = None
    """With --mode choice: the same model, for log-probabilities of labels."""
    device: str = "server"
    dtype: str = "server"
    budget: int = 0
    context: int = NO_LIMIT
    settings: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.choice:
            self.tokenizer, self.context = self.choice.tokenizer, self.choice.context
        # the settings of every request choose the adapter; without a report, the address is the identity
        identity = [self.facts or f"{self.url} {self.name}", self.source.endpoint.settings]
        self.digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def connection(self) -> Connection:
        """The connection to the server."""
        return self.source.endpoint.connection

    @property
    def name(self) -> str:
        """The model's name in requests."""
        return self.source.endpoint.model

    @property
    def url(self) -> str:
        """Address before /chat/completions, e.g. http://localhost:8000/v1."""
        return self.connection.url

    def choosing(
        self,
        prompts: Prompts,
        spellings: Mapping[str, Sequence[str]],
        images: Mapping[int, Sequence[str]] | None = None,  # noqa: ARG002  open_models refuses images
    ) -> Scorer:
        """Scorer that compares labels after each prompt."""
        if self.choice is None:
            raise RequestError(
                "--backend openai: this command only generates over a server; leave --backend out"
            )
        return self.choice.choosing(prompts, spellings)

    def plan(self, talks: Mapping[int, Messages], encode: Encode, longest: int) -> Plan:  # noqa: ARG002
        """Plan batches of a few conversations in the data's order. The server itself finds the long ones."""
        rows = sorted(talks)
        return [rows[i : i + AT_ONCE] for i in range(0, len(rows), AT_ONCE)], {}

    def chat(self, talks: Sequence[Messages], encode: Encode, longest: int) -> Sequence[str | TooLong]:  # noqa: ARG002
        """Fetch the greedy answers. `RequestError` if the server does not answer, or refuses for another
        reason than the length."""
        return self._answers(talks, {"max_tokens": longest, "temperature": 0})

    def answer(self, talk: Messages, settings: Mapping[str, object]) -> str:
        """Fetch an answer with these settings, such as `temperature`. `RequestError` if there is none."""
        (answer,) = self._answers([talk], settings)
        if isinstance(answer, TooLong):
            raise RequestError(f"{self.url}: {answer.reason}")
        return answer

    def _answers(self, talks: Sequence[Messages], settings: Mapping[str, object]) -> Sequence[str | TooLong]:
        async def answer(client: "httpx.AsyncClient", talk: Messages) -> str | TooLong:
            body = {**chat_request(talk), **settings}
            address = f"{self.url}/chat/completions"
            place = repr(talk[-1]["content"][:40])
            try:
                completion = await self.source.endpoint.post(
                    client, address, body, chat_answer, "chat completion", place
                )
            except RefusedError as error:
                if error.is_too_long:
                    return TooLong(str(error))
                raise RequestError(f"{self.url}: {error}") from error
            return completion.text

        answers = self.connection.each(answer, talks)
        check_identity(self.source, self.facts)
        return answers


def open_server(connection: Connection, name: str, is_exact_name: bool) -> Server:
    """Find a model on a server. `RequestError` if the server lists models without it.

    `name` is the model's name there. Unless `is_exact_name`, the server's only model may have another name.
    """
    report = read_report(connection)
    endpoint = find_endpoint(report, name, is_exact_name)
    source: LabelSource = Completions(endpoint, "")
    if report.props is not None:
        source = LlamaCpp(endpoint)
    return Server(source, source.identity(report))


def chat_request(talk: Messages) -> dict[str, object]:
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


def chat_answer(answer: Any) -> Generated:
    """Read a chat completion, with thoughts in <think> before the text and tool calls after it.

    The errors of reading mean that it is none.
    """
    choice = answer["choices"][0]
    message = choice["message"]
    thought = message.get("reasoning_content")
    text: str = message["content"] or ""
    if thought:
        text = "<think>" + thought + "</think>" + text
    for call in message.get("tool_calls") or ():
        name, arguments = json.dumps(call["function"]["name"]), call["function"]["arguments"]
        if not isinstance(arguments, str):  # some servers send an object
            arguments = json.dumps(arguments, ensure_ascii=False)
        text += f'\n<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
    return Generated(writable(text), choice.get("finish_reason"))
