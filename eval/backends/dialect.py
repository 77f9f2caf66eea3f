"""What a dialect of a server does: one class in one file (llama_cpp.py, openai.py).

A server gets token ids for labels, so that its chat template has no part in it.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.errors.warn import warn, warn_once
from tuneyard.core.prompt import openai_messages
from tuneyard.eval.backends.connection import Connection, RefusedError
from tuneyard.eval.backends.generate import Generated
from tuneyard.eval.backends.scorers import Ids, Logs, Messages
from tuneyard.eval.backends.served import ServedModel, json_object, writable

if TYPE_CHECKING:
    import httpx

IMPOSSIBLE = -9000.0  # below it are the numbers for a probability of 0: -9999, the least float
UNDERFLOW = math.log(2.0**-149)  # the value for those: the least probability in fp32
LARGEST = 0.01  # of a log-probability: rounded sums
LARGEST_ID = 1 << 31
SHOWN = 60  # bytes of an answer that is not what it should be
SAMPLE = "Is the answer yes or no? It may be."
"""A text to compare tokenizers by."""
QUESTION: Messages = [{"role": "user", "content": SAMPLE}]
BROKEN = (ValueError, LookupError, TypeError, AttributeError)
"""Errors of reading an answer that is not what it should be."""
Result = TypeVar("Result")


def log_of(value: object) -> float:
    """Read a log-probability; `ContentError` for nan, which JSON has as null, `ValueError` for nonsense."""
    if value is None:
        raise ContentError(
            "the server gives null as a log-probability: its weights overflow; serve them in bf16 or fp32"
        )
    if isinstance(value, bool) or not isinstance(value, int | float) or not value < LARGEST:
        raise ValueError(f"{show_value(value)} as a log-probability")
    if value < IMPOSSIBLE:
        return UNDERFLOW
    return min(float(value), 0.0)


class NoLogProbabilitiesError(RequestError):
    """A server gives no log-probabilities."""


@dataclass(frozen=True, slots=True)
class Dialect(ABC):
    """A served model, and how its server is asked."""

    served: ServedModel

    @property
    def connection(self) -> Connection:
        """The connection to the server."""
        return self.served.connection

    @abstractmethod
    def checked(self, sample: Ids) -> "Dialect":
        """The dialect that gives log-probabilities; `NoLogProbabilitiesError` if the server gives none."""

    @abstractmethod
    async def logs(self, client: "httpx.AsyncClient", prompt: Ids, spellings: Sequence[Ids]) -> Logs:
        """Log-probabilities of the spellings' tokens after the prompt."""

    @abstractmethod
    async def greedy(self, client: "httpx.AsyncClient", ids: Ids, longest: int) -> Generated:
        """Most likely answer after our ids, without sampling and penalties."""

    @abstractmethod
    async def prompt(self, client: "httpx.AsyncClient", talk: Messages) -> Ids:
        """Token ids of some messages, as the server's chat makes them."""

    @abstractmethod
    def tokenizing(self, text: str) -> dict[str, object]:
        """The body of /tokenize for a text."""

    async def chat(
        self, client: "httpx.AsyncClient", talk: Messages, settings: Mapping[str, object]
    ) -> Generated:
        """Answer of a client's request: the messages and these settings. Errors quote the last message."""
        body = {**chat_request(talk), **settings}
        address = f"{self.connection.url}/chat/completions"
        return await self.post(
            client, address, body, chat_answer, "chat completion", repr(talk[-1]["content"][:40])
        )

    async def post(
        self,
        client: "httpx.AsyncClient",
        address: str,
        body: Mapping[str, object],
        read: Callable[[dict[str, Any]], Result],
        about: str = "log-probabilities",
        place: str = "",
    ) -> Result:
        """Post a body and read the JSON of the answer. Errors in `read` mean that the answer is nonsense.

        `about` is what the answer should be, `place` begins the message of an error.
        """

        def parse(data: bytes) -> Result:
            answer = json_object(data)
            self._check_model(answer.get("model"))
            try:
                return read(answer)
            except ContentError as error:
                raise ContentError(f"{self.connection.url}: {error}") from error
            except (LookupError, TypeError, AttributeError, OverflowError) as error:
                beginning = f"{data[:SHOWN]!r}"
                if "error" in answer:
                    beginning = show_value(answer["error"])
                missing = f" ({error} is missing)" if isinstance(error, KeyError) else ""
                raise ValueError(f"no {about}{missing}: {beginning}") from error

        named = {"model": self.served.model, **body, **self.served.settings}
        return await self.connection.request(client, address, named, parse, place or about)

    def _check_model(self, name: object) -> None:
        """`RequestError` if an answer comes from another model than the answers before.

        A warning if the first one names another model than was asked for. A path's last part is enough.
        """
        if not isinstance(name, str):
            return
        url, model, answering = self.connection.url, self.served.model, self.served.answering
        if not answering and Path(name).name != Path(model).name:
            warn_once(
                f"{url}: asked for {show_value(model)}, it answers as {show_value(name)}: check that it "
                "serves the right model"
            )
        answering.add(name)
        if len(answering) > 1:
            names = " and ".join(sorted(map(show_value, answering)))
            raise RequestError(
                f"{url}: it answers as {names}: its model changed. Serve the first one; "
                f"{self.connection.again}"
            )

    def check_length(self, read: object, sent: int) -> None:
        """`RequestError` unless the server read as many tokens as it was sent."""
        if read != sent:
            count = "fewer" if read is None else show_value(read)
            raise RequestError(
                f"{self.connection.url}: the server read {count} tokens of a prompt of {sent}: it cuts "
                "prompts or adds a BOS. Serve the model with a longer context, and without what changes "
                "prompts"
            )

    def check_tokenizer(self, sample: Ids) -> None:
        """`RequestError` if the server's tokenizer gives other ids; a warning if it offers none."""
        connection = self.connection
        address, body = f"{connection.root}/tokenize", self.tokenizing(SAMPLE)
        try:
            answer = connection.once(
                lambda client: connection.request(client, address, body, json_object, "tokenize")
            )
        except RefusedError:
            warn(f"{connection.url}: it offers no /tokenize: its tokenizer was not compared with --model's")
            return
        tokens = answer.get("tokens")
        if tokens != list(sample):
            raise RequestError(
                f"{connection.url}: it makes {show_value(tokens)} of {SAMPLE!r}, --model makes "
                f"{list(sample)}: another model is served, or --model is another one"
            )


def read_ids(answer: dict[str, Any]) -> list[int]:
    """Read the token ids of /tokenize."""
    tokens: list[int] = answer["tokens"]
    are_ids = type(tokens) is list and all(type(token) is int for token in tokens)
    if not are_ids or not all(0 <= token < LARGEST_ID for token in tokens):
        raise ValueError(f"{show_value(tokens)} as token ids")
    return tokens


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
