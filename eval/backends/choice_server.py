"""Log-probabilities of labels from a server: llama.cpp, vLLM, or another that gives those of a prompt.

The server gets token ids, so that its chat template has no part in it. llama.cpp lists the most likely next
tokens after each beginning of a spelling. It is made to take a token outside of them, and reports the true
log-probability of what it took. Other servers read prompt and spelling and give the log-probabilities of what
they read (`prompt_logprobs`, `echo`), all spellings of a row in one request.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.errors.warn import warn
from tuneyard.eval.backends.connection import Connection, RefusedError
from tuneyard.eval.backends.endpoint import (
    Endpoint,
    Result,
    ServerReport,
    json_object,
    read_report,
)
from tuneyard.eval.backends.scorers import (
    Fields,
    Ids,
    Prompts,
    Scorer,
    label_fields,
    next_tokens,
    prompts_too_long,
    sums_of_tokens,
    tokenise,
)

if TYPE_CHECKING:
    import httpx
    from transformers import PreTrainedTokenizerBase

ROWS = 32  # rows between two writes of the log
LISTED = 1000  # next tokens that llama.cpp lists
EVERY = 1 << 20  # the same for its whole vocabulary
FORCING = 1e6  # added to a logit
IMPOSSIBLE = -9000.0  # below it are the numbers for a probability of 0: -9999, the least float
UNDERFLOW = math.log(2.0**-149)  # the value for those: the least probability in fp32
NO_LIMIT = 1 << 30  # tokens: the server itself refuses prompts that are too long
LARGEST_SUM = 1.02  # of probabilities: fp16 rounds each
SAMPLE = "Is the answer yes or no? It may be."
"""A text to compare tokenizers by."""
BROKEN = (ValueError, LookupError, TypeError, AttributeError)
"""Errors of reading an answer that is not what it should be."""


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
    """A server gives no log-probabilities. `source` still knows its model."""

    def __init__(self, message: str, source: "LabelSource") -> None:
        super().__init__(message)
        self.source = source


class LabelSource(Protocol):
    """A way to get log-probabilities from a server."""

    @property
    def endpoint(self) -> Endpoint:
        """The served model."""

    async def logs(
        self, client: "httpx.AsyncClient", prompt: Ids, spellings: Sequence[Ids], /
    ) -> list[float]:
        """Log-probability of each spelling after the prompt: the sum over its tokens."""

    def identity(self, report: ServerReport, /) -> dict[str, object]:
        """The part of a report that must stay the same during a run: the model, its size, its adapters."""


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """llama.cpp's own interface, /completion.

    It reports no probabilities with a token that ends within a character (UTF-8 has up to four bytes).
    `whole` is a token of whole characters, which it takes in such a token's place. None: its own choice.
    """

    endpoint: Endpoint
    whole: int | None = None

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
class Completions:
    """OpenAI's /completions with what vLLM adds, `prompt_logprobs`, or with `echo`."""

    endpoint: Endpoint
    way: str

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


@dataclass(frozen=True, slots=True)
class ChoiceServer:
    """A served model with its tokenizer here, whose ids the server gets.

    `ends` are the tokens that end an answer, `context` is in tokens. `facts` is the model's identity at the
    beginning of the run.
    """

    connection: Connection
    tokenizer: "PreTrainedTokenizerBase"
    ends: Sequence[int]
    engine: LabelSource
    context: int
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The model's name in requests."""
        return self.engine.endpoint.model

    def choosing(self, prompts: Prompts, spellings: Mapping[str, Sequence[str]]) -> Scorer:
        """Scorer that compares labels after each prompt, each label by all its spellings."""
        columns, tokens = tokenise(self.tokenizer, self.ends, spellings)
        too_long = prompts_too_long(prompts, max(map(len, tokens)), self.context)
        rows = [row for row in prompts if row not in too_long]

        def score(batch: Sequence[int]) -> list[Fields]:
            async def score_row(client: "httpx.AsyncClient", row: int) -> Fields:
                try:
                    return label_fields(row, columns, await self.engine.logs(client, prompts[row], tokens))
                except RefusedError as error:
                    raise RequestError(f"{self.connection.url}: row {row}: {error}") from error

            scored = self.connection.each(score_row, batch)
            self.check_unchanged()
            return scored

        return Scorer([rows[i : i + ROWS] for i in range(0, len(rows), ROWS)], too_long, score)

    def check_unchanged(self) -> None:
        """`RequestError` if the server has another model than at the beginning."""
        check_identity(self.engine, self.facts)


def check_identity(source: LabelSource, facts: Mapping[str, object]) -> None:
    """`RequestError` if the server has another model than the one with these `facts`."""
    connection = source.endpoint.connection
    now = source.identity(read_report(connection, asks_props=isinstance(source, LlamaCpp)))
    if now != facts:
        changed = [name for name in now if now[name] != facts.get(name)]
        raise RequestError(
            f"{connection.url}: its model changed during the run ({', '.join(changed) or 'gone'}). "
            f"Serve the first one; {connection.again}"
        )


def open_choice_server(
    endpoint: Endpoint, report: ServerReport, tokenizer: "PreTrainedTokenizerBase", ends: Sequence[int]
) -> ChoiceServer:
    """Find out how the server gives log-probabilities. `RequestError` with the reason if it gives none."""
    model = endpoint.model
    sample = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    engine: LabelSource
    if report.props is not None:
        if report.slots is not None:
            endpoint = replace(endpoint, connection=replace(endpoint.connection, at_once=report.slots))
        engine = LlamaCpp(endpoint, sample[0])
        tokenizing: dict[str, object] = {"content": SAMPLE, "add_special": False}
        _check_llama_cpp(engine, sample)
    else:
        engine = _completions(endpoint, sample)
        tokenizing = {"model": model, "prompt": SAMPLE, "add_special_tokens": False}
    _check_tokenizer(endpoint, tokenizing, sample)
    context = report.context(model) or NO_LIMIT
    return ChoiceServer(endpoint.connection, tokenizer, ends, engine, context, engine.identity(report))


def _check_llama_cpp(engine: LlamaCpp, sample: Ids) -> None:
    """Ask for log-probabilities once. `RequestError` with the reason if the server gives none."""
    url = engine.endpoint.connection.url
    asking = {"n_probs": 1, **engine.taking_whole}
    try:
        answer = engine.endpoint.connection.once(
            lambda client: engine.post(client, sample, asking, lambda answer: answer)
        )
        engine.read_step(answer, len(sample))["top_logprobs"][0]["logprob"]
    except RefusedError as error:
        raise RequestError(f"{url}: {error}") from error
    except BROKEN as error:
        raise NoLogProbabilitiesError(
            f"{url}: /completion with n_probs gives no log-probabilities, which --mode choice needs: "
            "expected completion_probabilities with top_logprobs, as llama.cpp gives since December "
            "2024. Serve it with a newer release",
            engine,
        ) from error


def _completions(endpoint: Endpoint, sample: Ids) -> Completions:
    """Choose a way to get the log-probabilities of a prompt."""
    url, reasons = endpoint.connection.url, []
    for way in WAYS:
        source = Completions(endpoint, way)
        try:
            answer = endpoint.connection.once(
                partial(source.ask, prompts=[sample, sample], read=lambda answer: answer)
            )
            source.sums(answer, [sample, sample], 1)
        except RefusedError as error:
            if error.is_of_all_requests:
                raise RequestError(f"{url}: {error}") from error
            reasons.append(f"{way}: {error}")
        except BROKEN as error:
            reasons.append(f"{way}: not in its answer ({type(error).__name__})")
        else:
            return source
    raise NoLogProbabilitiesError(
        f"{url}: it gives no log-probabilities of prompts, which --mode choice needs "
        f"({'; '.join(reasons)}). llama.cpp's server and vLLM give them. For this server, add "
        "--mode generate",
        Completions(endpoint, ""),
    )


def _check_tokenizer(endpoint: Endpoint, body: Mapping[str, object], sample: Ids) -> None:
    """`RequestError` if the server's tokenizer gives other ids; a warning if it offers none."""
    connection = endpoint.connection
    address = f"{connection.root}/tokenize"
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
            f"{connection.url}: it makes {show_value(tokens)} of {SAMPLE!r}, --model makes {list(sample)}: "
            "another model is served, or --model is another one"
        )
