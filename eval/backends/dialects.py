"""What servers answer differently: llama.cpp, and OpenAI-compatible ones such as vLLM.

A server gets token ids for labels, so that its chat template has no part in it. llama.cpp lists the most
likely next tokens after each beginning of a spelling. It is made to take a token outside of them, and reports
the true log-probability of what it took. Other servers read prompt and spelling and give the
log-probabilities of what they read (`prompt_logprobs`, `echo`), all spellings of a row in one request.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.errors.warn import warn
from tuneyard.core.prompt import openai_messages
from tuneyard.eval.backends.connection import NOT_FOUND, RefusedError
from tuneyard.eval.backends.endpoint import Endpoint, Result, ServerReport, json_object, writable
from tuneyard.eval.backends.generate import LENGTH, STOP, Generated
from tuneyard.eval.backends.scorers import Ids, Messages, next_tokens, sums_of_tokens

if TYPE_CHECKING:
    import httpx

LISTED = 1000  # next tokens that llama.cpp lists
EVERY = 1 << 20  # the same for its whole vocabulary
FORCING = 1e6  # added to a logit
IMPOSSIBLE = -9000.0  # below it are the numbers for a probability of 0: -9999, the least float
UNDERFLOW = math.log(2.0**-149)  # the value for those: the least probability in fp32
LARGEST_SUM = 1.02  # of probabilities: fp16 rounds each
LARGEST_ID = 1 << 31
SAMPLE = "Is the answer yes or no? It may be."
"""A text to compare tokenizers by."""
QUESTION: Messages = [{"role": "user", "content": SAMPLE}]
BROKEN = (ValueError, LookupError, TypeError, AttributeError)
"""Errors of reading an answer that is not what it should be."""
FINISHES = {"eos": STOP, "word": STOP, "limit": LENGTH}
"""llama.cpp's reasons for the end of an answer in OpenAI's words."""
NEUTRAL: Mapping[str, object] = {"temperature": 0, "samplers": ["temperature"], "mirostat": 0}
"""Greedy in llama.cpp, without the penalties that a server may set."""


def _log(value: object) -> float:
    """Check a log-probability; `ContentError` for nan, which JSON has as null, `ValueError` for nonsense."""
    if value is None:
        raise ContentError(
            "the server gives null as a log-probability: its weights overflow; serve them in bf16 or fp32"
        )
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value < 0.01:
        raise ValueError(f"{show_value(value)} as a log-probability")
    if value < IMPOSSIBLE:
        return UNDERFLOW
    return min(float(value), 0.0)


class NoLogProbabilitiesError(RequestError):
    """A server gives no log-probabilities."""


@dataclass(frozen=True, slots=True)
class Dialect(ABC):
    """A served model, and how its server is asked."""

    endpoint: Endpoint
    has_props: ClassVar[bool]
    """True if the server has llama.cpp's /props."""

    @abstractmethod
    def checked(self, sample: Ids) -> "Dialect":
        """The dialect that gives log-probabilities; `NoLogProbabilitiesError` if the server gives none."""

    @abstractmethod
    async def logs(self, client: "httpx.AsyncClient", prompt: Ids, spellings: Sequence[Ids]) -> list[float]:
        """Log-probability of each spelling after the prompt: the sum over its tokens."""

    @abstractmethod
    async def greedy(self, client: "httpx.AsyncClient", ids: Ids, longest: int) -> Generated:
        """Most likely answer after our ids, without sampling and penalties."""

    @abstractmethod
    async def prompt(self, client: "httpx.AsyncClient", talk: Messages) -> Ids:
        """Token ids of some messages, as the server's chat makes them."""

    @abstractmethod
    def identity(self, report: ServerReport) -> dict[str, object]:
        """The part of a report that must stay the same during a run: the model, its size, its adapters."""

    @abstractmethod
    def tokenizing(self, text: str) -> dict[str, object]:
        """The body of /tokenize for a text."""

    async def makes_prompts(self, client: "httpx.AsyncClient") -> None:
        """`RefusedError` if the server makes no token ids of messages."""
        await self.prompt(client, QUESTION)

    async def chat(
        self, client: "httpx.AsyncClient", talk: Messages, settings: Mapping[str, object], place: str = ""
    ) -> Generated:
        """Answer of a client's request: the messages and these settings. `place` is for errors."""
        body = {**chat_request(talk), **settings}
        address = f"{self.endpoint.connection.url}/chat/completions"
        return await self.endpoint.post(client, address, body, chat_answer, "chat completion", place)

    def check_tokenizer(self, sample: Ids) -> None:
        """`RequestError` if the server's tokenizer gives other ids; a warning if it offers none."""
        connection = self.endpoint.connection
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


@dataclass(frozen=True, slots=True)
class LlamaCpp(Dialect):
    """llama.cpp's own interface, /completion.

    It reports no probabilities with a token that ends within a character (UTF-8 has up to four bytes).
    `whole` is a token of whole characters, which it takes in such a token's place. None: its own choice.
    """

    whole: int | None = None
    has_props = True

    def checked(self, sample: Ids) -> "LlamaCpp":
        """Ask for log-probabilities once."""
        dialect, url = replace(self, whole=sample[0]), self.endpoint.connection.url
        settings = {"n_probs": 1, **dialect.taking_whole}
        try:
            answer = self.endpoint.connection.once(
                lambda client: dialect.post(client, sample, settings, lambda answer: answer)
            )
            self.read_step(answer, len(sample))["top_logprobs"][0]["logprob"]
        except RefusedError as error:
            raise RequestError(f"{url}: {error}") from error
        except BROKEN as error:
            raise NoLogProbabilitiesError(
                f"{url}: /completion with n_probs gives no log-probabilities, which --mode choice needs: "
                "expected completion_probabilities with top_logprobs, as llama.cpp gives since December "
                "2024. Serve it with a newer release"
            ) from error
        return dialect

    async def greedy(self, client: "httpx.AsyncClient", ids: Ids, longest: int) -> Generated:
        """/completion without the server's penalties."""

        def read(answer: dict[str, Any]) -> Generated:
            check_length(self.endpoint, answer.get("tokens_evaluated", len(ids)), len(ids))
            return Generated(writable(answer["content"]), FINISHES.get(answer.get("stop_type", "")))

        body = {"prompt": list(ids), "n_predict": longest, **NEUTRAL}
        address = f"{self.endpoint.connection.root}/completion"
        return await self.endpoint.post(client, address, body, read, "completion")

    async def prompt(self, client: "httpx.AsyncClient", talk: Messages) -> Ids:
        """/apply-template, then /tokenize, which adds BOS."""
        root = self.endpoint.connection.root
        asking = chat_request(talk)
        text = await self.endpoint.post(client, f"{root}/apply-template", asking, _read_prompt, "prompt")
        request = {"content": text, "add_special": True, "parse_special": True}
        return await self.endpoint.post(client, f"{root}/tokenize", request, _read_ids, "token ids")

    def tokenizing(self, text: str) -> dict[str, object]:
        """llama.cpp names the text `content`."""
        return {"content": text, "add_special": False}

    async def logs(self, client: "httpx.AsyncClient", prompt: Ids, spellings: Sequence[Ids]) -> list[float]:
        """One request for each beginning of a spelling, and one for each token that it does not list.

        The whole prompt is read anew. What the server reuses of another row's prompt changes its rounding by
        about 0.002 nats, so that a resumed run would have other bytes. The questions after it reuse this
        prompt.
        """
        logs: dict[tuple[int, ...], float] = {}
        for begin, tokens in next_tokens(spellings):
            ids = [*prompt, *begin]
            listed = await self._listed(client, ids, LISTED, reads_anew=not logs)
            for token in tokens:
                if token not in listed:
                    listed[token] = await self._forced(client, ids, token)
                logs[(*begin, token)] = listed[token]
            total = math.fsum(map(math.exp, listed.values()))
            if total > LARGEST_SUM:
                url = self.endpoint.connection.url
                raise RequestError(f"{url}: it gives probabilities that sum to {total:.3g}")
        return sums_of_tokens(spellings, logs)

    async def _forced(self, client: "httpx.AsyncClient", ids: Ids, token: int) -> float:
        """Log-probability of a token that a bias makes the server take. The bias is for sampling alone."""

        def read(answer: dict[str, Any]) -> float | None:
            if "completion_probabilities" not in answer and "content" in answer:
                return None  # a part of a character
            step = self.read_step(answer, len(ids))
            if step["id"] != token:
                raise ValueError(f"token {step['id']} instead of {token}, which logit_bias forces")
            return _log(step["logprob"])

        value = await self.post(client, ids, {"n_probs": 1, "logit_bias": [[token, FORCING]]}, read)
        if value is None:
            value = (await self._listed(client, ids, EVERY)).get(token, UNDERFLOW)
        return value

    async def _listed(
        self, client: "httpx.AsyncClient", ids: Ids, count: int, *, reads_anew: bool = False
    ) -> dict[int, float]:
        """Log-probabilities of the most likely tokens after the ids, before any sampling."""

        def read(answer: dict[str, Any]) -> dict[int, float]:
            tops: dict[int, float] = {}
            for top in self.read_step(answer, len(ids))["top_logprobs"]:
                token = top["id"]
                if type(token) is not int or token in tops:
                    raise ValueError(f"{show_value(token)} as a token id, or twice")
                tops[token] = _log(top["logprob"])
            return tops

        settings = {"n_probs": count, **self.taking_whole, "cache_prompt": not reads_anew}
        return await self.post(client, ids, settings, read)

    @property
    def taking_whole(self) -> dict[str, object]:
        """Part of a request: take the token of whole characters."""
        if self.whole is None:
            return {}
        return {"logit_bias": [[self.whole, FORCING]]}

    def identity(self, report: ServerReport) -> dict[str, object]:
        """Name and path of the file, build, chat template, sizes, and the scales of adapters.

        Requests can change the scales. A server that starts again can have another template.
        """
        names = ("model_path", "model_alias", "build_info", "chat_template")
        identity = {name: (report.props or {}).get(name) for name in names}
        identity["models"] = [entry.get("meta") for entry in report.models]
        identity["adapters"] = [asdict(adapter) for adapter in report.adapters]
        return identity

    async def post(
        self,
        client: "httpx.AsyncClient",
        ids: Ids,
        more: Mapping[str, object],
        read: Callable[[dict[str, Any]], Result],
    ) -> Result:
        """Generate one token after the ids, with `more` settings."""
        body = {
            "prompt": list(ids), "n_predict": 1, "temperature": 0, "post_sampling_probs": False,
            "cache_prompt": True, **more,
        }  # fmt: skip
        return await self.endpoint.post(client, f"{self.endpoint.connection.root}/completion", body, read)

    def read_step(self, answer: dict[str, Any], tokens: int) -> dict[str, Any]:
        """The probabilities of the only generated token. `RequestError` if the prompt was cut."""
        check_length(self.endpoint, answer.get("tokens_evaluated", tokens), tokens)
        if answer.get("truncated"):
            check_length(self.endpoint, None, tokens)
        (step,) = answer["completion_probabilities"]
        if not isinstance(step, dict):
            raise TypeError("expected an object")
        return step


@dataclass(frozen=True, slots=True)
class OpenAi(Dialect):
    """OpenAI's /completions with what vLLM adds, `prompt_logprobs`, or with `echo`."""

    way: str = ""
    has_props = False

    def checked(self, sample: Ids) -> "OpenAi":
        """Choose a way to get the log-probabilities of a prompt."""
        connection, reasons = self.endpoint.connection, []
        for way in WAYS:
            dialect = replace(self, way=way)
            try:
                answer = connection.once(
                    partial(dialect.ask, prompts=[sample, sample], read=lambda answer: answer)
                )
                dialect.sums(answer, [sample, sample], 1)
            except RefusedError as error:
                if error.is_of_all_requests:
                    raise RequestError(f"{connection.url}: {error}") from error
                reasons.append(f"{way}: {error}")
            except BROKEN as error:
                reasons.append(f"{way}: not in its answer ({type(error).__name__})")
            else:
                return dialect
        raise NoLogProbabilitiesError(
            f"{connection.url}: it gives no log-probabilities of prompts, which --mode choice needs "
            f"({'; '.join(reasons)}). llama.cpp's server and vLLM give them. For this server, add "
            "--mode generate"
        )

    async def greedy(self, client: "httpx.AsyncClient", ids: Ids, longest: int) -> Generated:
        """/completions without penalties, which vLLM takes from generation_config.json."""

        def read(answer: dict[str, Any]) -> Generated:
            usage = answer.get("usage")
            if isinstance(usage, dict):
                check_length(self.endpoint, usage.get("prompt_tokens", len(ids)), len(ids))
            choice = answer["choices"][0]
            return Generated(writable(choice["text"]), choice.get("finish_reason"))

        body = {"prompt": list(ids), "max_tokens": longest, "temperature": 0}
        if self.endpoint.is_vllm:
            body["repetition_penalty"] = 1.0
        address = f"{self.endpoint.connection.url}/completions"
        return await self.endpoint.post(client, address, body, read, "completion")

    async def prompt(self, client: "httpx.AsyncClient", talk: Messages) -> Ids:
        """/tokenize of messages, as vLLM has it."""
        address = f"{self.endpoint.connection.root}/tokenize"
        return await self.endpoint.post(client, address, _prompt_request(talk), _read_ids, "token ids")

    async def makes_prompts(self, client: "httpx.AsyncClient") -> None:
        """Ask once: other servers have a /tokenize of texts alone."""
        address, request = f"{self.endpoint.connection.root}/tokenize", _prompt_request(QUESTION)
        answer = await self.endpoint.post(client, address, request, lambda answer: answer, "token ids")
        try:
            _read_ids(answer)
        except BROKEN as error:
            raise RefusedError(NOT_FOUND, "/tokenize makes no token ids of messages") from error

    def tokenizing(self, text: str) -> dict[str, object]:
        """vLLM names the text `prompt`."""
        return {"model": self.endpoint.model, "prompt": text, "add_special_tokens": False}

    async def logs(self, client: "httpx.AsyncClient", prompt: Ids, spellings: Sequence[Ids]) -> list[float]:
        """One request for all spellings, each after the prompt."""
        prompts = [[*prompt, *spelling] for spelling in spellings]
        return await self.ask(client, prompts, lambda answer: self.sums(answer, prompts, len(prompt)))

    async def ask(
        self, client: "httpx.AsyncClient", prompts: Sequence[Ids], read: Callable[[dict[str, Any]], Result]
    ) -> Result:
        """Request the log-probabilities of prompts."""
        body = {
            "prompt": [list(ids) for ids in prompts], "max_tokens": 1, "temperature": 0, **WAYS[self.way].body
        }  # fmt: skip
        return await self.endpoint.post(client, f"{self.endpoint.connection.url}/completions", body, read)

    def sums(self, answer: dict[str, Any], prompts: Sequence[Ids], after: int) -> list[float]:
        """Sum the log-probabilities of each prompt's ids from place `after` on."""
        usage, sent = answer.get("usage"), sum(map(len, prompts))
        if isinstance(usage, dict):
            check_length(self.endpoint, usage.get("prompt_tokens", sent), sent)
        choices = sorted(answer["choices"], key=lambda choice: choice.get("index", 0))
        if len(choices) != len(prompts):
            raise ValueError(f"{len(choices)} of `choices`, {len(prompts)} prompts were sent")
        pairs = zip(choices, prompts, strict=True)
        return [math.fsum(WAYS[self.way].read(choice, ids, after)) for choice, ids in pairs]

    def identity(self, report: ServerReport) -> dict[str, object]:
        """The model's entry in /models, without what differs from one request to the next."""
        entry = report.entry(self.endpoint.model)
        if not entry:
            return {}
        return {name: entry.get(name) for name in ("id", "root", "parent", "max_model_len", "meta")}


def check_length(endpoint: Endpoint, read: object, sent: int) -> None:
    """`RequestError` unless the server read as many tokens as it was sent."""
    if read != sent:
        count = "fewer" if read is None else show_value(read)
        raise RequestError(
            f"{endpoint.connection.url}: the server read {count} tokens of a prompt of {sent}: it cuts "
            "prompts or adds a BOS. Serve the model with a longer context, and without what changes prompts"
        )


def _read_prompt_logprobs(choice: dict[str, Any], ids: Ids, after: int) -> list[float]:
    """vLLM: for each token of the prompt an object of log-probabilities by token id."""
    by_place = choice["prompt_logprobs"]
    if len(by_place) != len(ids):
        raise ValueError(f"log-probabilities of {len(by_place)} tokens, {len(ids)} were sent")
    return [_log(by_place[place][str(ids[place])]["logprob"]) for place in range(after, len(ids))]


def _read_echo(choice: dict[str, Any], ids: Ids, after: int) -> list[float]:
    """OpenAI's old interface: the log-probabilities of prompt and answer in one list."""
    logs = choice["logprobs"]["token_logprobs"]
    if not len(ids) <= len(logs) <= len(ids) + 1:
        raise ValueError(f"log-probabilities of {len(logs)} tokens, {len(ids)} were sent")
    return [_log(logs[place]) for place in range(after, len(ids))]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to get the log-probabilities of a prompt: a part of the request, and how to read a choice."""

    body: Mapping[str, object]
    read: Callable[[dict[str, Any], Ids, int], list[float]]


WAYS = {
    "prompt_logprobs": Way({"prompt_logprobs": 1}, _read_prompt_logprobs),
    "echo": Way({"echo": True, "logprobs": 1}, _read_echo),
}


def _prompt_request(talk: Messages) -> dict[str, object]:
    """The body of vLLM's /tokenize for messages."""
    return {**chat_request(talk), "add_generation_prompt": True}


def _read_ids(answer: dict[str, Any]) -> list[int]:
    """Read the token ids of /tokenize."""
    tokens = answer["tokens"]
    if not isinstance(tokens, list):
        raise TypeError("expected a list of token ids")
    for token in tokens:
        if type(token) is not int or not 0 <= token < LARGEST_ID:
            raise ValueError(f"{show_value(token)} as a token id")
    return tokens


def _read_prompt(answer: dict[str, Any]) -> str:
    """Read the text of /apply-template."""
    prompt = answer["prompt"]
    if not isinstance(prompt, str):
        raise TypeError("expected a text")
    return prompt


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
