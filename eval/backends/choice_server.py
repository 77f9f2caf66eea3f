"""Log-probabilities of labels from a server: llama.cpp, vLLM, or another that gives those of a prompt.

The server gets token ids, so that its chat template has no part in it. It first gives the most likely next
tokens. A spelling outside of them has a bound: the least likely of them. If the bound could change its
label's log-probability, the spelling is scored exactly: llama.cpp is made to take each of its tokens, one
request a token, and reports the true log-probability of what it took. Other servers read prompt and spelling
and give the log-probabilities of what they read (`prompt_logprobs`, `echo`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
    chosen_fields,
    log_sum,
    prompts_too_long,
    tokenise,
)

if TYPE_CHECKING:
    import httpx
    from transformers import PreTrainedTokenizerBase

ROWS = 32  # rows between two writes of the log
NEGLIGIBLE = 1e-4  # nats by which spellings that have a bound alone may change their label
TOP = 100  # next tokens that llama.cpp lists
TOPS = (20, 5)  # the same for vLLM, which refuses more than its --max-logprobs
FORCING = 1e6  # added to a logit
IMPOSSIBLE = -9000.0  # below it are the numbers for a probability of 0: -9999, the least float
UNDERFLOW = math.log(2.0**-149)  # the bound for those: the least probability in fp32
NO_LIMIT = 1 << 30  # tokens: the server itself refuses prompts that are too long
SLACK = 0.5  # nats by which two requests may differ: one of them may use another batch size
LARGEST_SUM = 1.02  # of probabilities: fp16 rounds each
SAMPLE = "Is the answer yes or no? It may be."
"""A text to compare tokenizers by."""
BROKEN = (ValueError, LookupError, TypeError, AttributeError)
"""Errors of reading an answer that is not what it should be."""
Tops = Mapping[int, float]
"""The most likely next tokens and their log-probabilities."""


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

    async def tops(self, client: "httpx.AsyncClient", ids: Ids, /) -> Tops:
        """The most likely next tokens after the ids, {} if the server cannot list them by id."""

    async def exact(self, client: "httpx.AsyncClient", ids: Ids, after: int, /) -> float:
        """Sum the log-probabilities of the ids from place `after` on."""

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

    async def tops(self, client: "httpx.AsyncClient", ids: Ids) -> Tops:
        """One token is generated; the probabilities are those before any sampling.

        The whole prompt is read anew. What the server reuses of another row's prompt changes its rounding by
        about 0.002 nats, so that a resumed run would have other bytes. The questions after it reuse this
        prompt.
        """
        return await self._listed(client, ids, TOP, {"cache_prompt": False})

    async def exact(self, client: "httpx.AsyncClient", ids: Ids, after: int) -> float:
        """One request for each token, which a bias makes the server take. The bias is for sampling alone."""
        total = 0.0
        for place in range(after, len(ids)):
            total += await self._exact(client, ids[:place], ids[place])
        return total

    async def _exact(self, client: "httpx.AsyncClient", ids: Ids, token: int) -> float:
        """Log-probability of a token after the ids."""

        def read(answer: dict[str, Any]) -> float | None:
            if "completion_probabilities" not in answer and "content" in answer:
                return None
            step = self.read_step(answer, len(ids))
            if step["id"] != token:
                raise ValueError(f"token {step['id']} instead of {token}, which logit_bias forces")
            return _log(step["logprob"])

        value = await self.post(client, ids, {"n_probs": 1, "logit_bias": [[token, FORCING]]}, read)
        count = TOP
        while value is None:  # a part of a character: it is among the most likely tokens, if these are enough
            tops = await self._listed(client, ids, count)
            value = tops.get(token)
            if len(tops) < count:
                break
            count *= 10
        return UNDERFLOW if value is None else value

    async def _listed(
        self, client: "httpx.AsyncClient", ids: Ids, count: int, more: Mapping[str, object] | None = None
    ) -> Tops:
        """The most likely tokens after the ids."""

        def read(answer: dict[str, Any]) -> Tops:
            step = self.read_step(answer, len(ids))
            return _checked_tops([(top["id"], top["logprob"]) for top in step["top_logprobs"]])

        return await self.post(client, ids, {"n_probs": count, **self.taking_whole, **(more or {})}, read)

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
    """OpenAI's /completions with what vLLM adds, `prompt_logprobs`, or with `echo`.

    `top` is the number of next tokens that it lists by id, 0 if it does not.
    """

    endpoint: Endpoint
    way: str
    top: int = 0

    async def tops(self, client: "httpx.AsyncClient", ids: Ids) -> Tops:
        """Keys are ids in the form `token_id:17`."""
        if not self.top:
            return {}
        body = {"prompt": list(ids), "max_tokens": 1, "temperature": 0, **_listing(self.top)}

        def read(answer: dict[str, Any]) -> Tops:
            self._check_usage(answer, len(ids))
            return _tops(answer)

        return await self.endpoint.post(client, self._address, body, read)

    async def exact(self, client: "httpx.AsyncClient", ids: Ids, after: int) -> float:
        """One request for all tokens."""
        body = {"prompt": list(ids), "max_tokens": 1, "temperature": 0, **WAYS[self.way].body}

        def read(answer: dict[str, Any]) -> float:
            self._check_usage(answer, len(ids))
            return math.fsum(WAYS[self.way].read(answer, ids, after))

        return await self.endpoint.post(client, self._address, body, read)

    def identity(self, report: ServerReport) -> dict[str, object]:
        """The model's entry in /models, without what differs from one request to the next."""
        entry = report.entry(self.endpoint.model)
        if not entry:
            return {}
        return {name: entry.get(name) for name in ("id", "root", "parent", "max_model_len", "meta")}

    @property
    def _address(self) -> str:
        return f"{self.endpoint.connection.url}/completions"

    def _check_usage(self, answer: dict[str, Any], tokens: int) -> None:
        usage = answer.get("usage")
        if isinstance(usage, dict):
            check_length(self.endpoint, usage.get("prompt_tokens", tokens), tokens)


def check_length(endpoint: Endpoint, read: object, sent: int) -> None:
    """`RequestError` unless the server read as many tokens as it was sent."""
    if read != sent:
        count = "fewer" if read is None else show_value(read)
        raise RequestError(
            f"{endpoint.connection.url}: the server read {count} tokens of a prompt of {sent}: it cuts "
            "prompts or adds a BOS. Serve the model with a longer context, and without what changes prompts"
        )


def _listing(top: int) -> dict[str, object]:
    """Part of a request: list the most likely next tokens, by id."""
    return {"logprobs": top, "return_tokens_as_token_ids": True}


def _tops(answer: dict[str, Any]) -> dict[int, float]:
    """Read the next tokens of `_listing`."""
    entries = answer["choices"][0]["logprobs"]["top_logprobs"][0]
    return _checked_tops([(int(token.removeprefix("token_id:")), value) for token, value in entries.items()])


def _checked_tops(entries: Sequence[tuple[object, object]]) -> dict[int, float]:
    """Log-probabilities by token id. `ValueError` for an id listed twice, and for a sum of more than 1."""
    tops: dict[int, float] = {}
    for token, value in entries:
        if type(token) is not int:
            raise ValueError(f"{show_value(token)} as a token id")
        if token in tops:
            raise ValueError(f"token {show_value(token)} twice among the most likely ones")
        tops[token] = _log(value)
    total = math.fsum(math.exp(value) for value in tops.values())
    if total > LARGEST_SUM:
        raise ValueError(f"probabilities that sum to {total:.3g}")
    return tops


def _read_prompt_logprobs(answer: dict[str, Any], ids: Ids, after: int) -> list[float]:
    """vLLM: for each token of the prompt an object of log-probabilities by token id."""
    by_place = answer["choices"][0]["prompt_logprobs"]
    if len(by_place) != len(ids):
        raise ValueError(f"log-probabilities of {len(by_place)} tokens, {len(ids)} were sent")
    return [_log(by_place[place][str(ids[place])]["logprob"]) for place in range(after, len(ids))]


def _read_echo(answer: dict[str, Any], ids: Ids, after: int) -> list[float]:
    """OpenAI's old interface: the log-probabilities of prompt and answer in one list."""
    logs = answer["choices"][0]["logprobs"]["token_logprobs"]
    if not len(ids) <= len(logs) <= len(ids) + 1:
        raise ValueError(f"log-probabilities of {len(logs)} tokens, {len(ids)} were sent")
    return [_log(logs[place]) for place in range(after, len(ids))]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to get the log-probabilities of a prompt: a part of the request, and how to read the answer."""

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
        labels = {label: [tokens[place] for place in places] for label, places in columns.items()}

        def score(batch: Sequence[int]) -> list[Fields]:
            async def score_row(client: "httpx.AsyncClient", row: int) -> Fields:
                try:
                    return chosen_fields(await label_scores(self.engine, client, prompts[row], labels))
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


async def label_scores(
    engine: LabelSource, client: "httpx.AsyncClient", prompt: Ids, labels: Mapping[str, Sequence[Ids]]
) -> dict[str, float]:
    """Log-probability of each label after the prompt, the sum over its spellings (none empty).

    Bounds alone make up less than `NEGLIGIBLE` of it.
    """
    tops = await engine.tops(client, prompt)
    least = min(tops.values(), default=0.0)
    scores = {}
    for label, spellings in labels.items():
        exact: list[float] = []
        bounds: list[tuple[float, Ids]] = []
        for spelling in spellings:
            if len(spelling) == 1 and spelling[0] in tops:
                exact.append(tops[spelling[0]])
            else:
                bounds.append((tops.get(spelling[0], least), spelling))
        bounds.sort(key=lambda pair: (-pair[0], tuple(pair[1])))
        while bounds:
            allowed = log_sum(exact) + math.log(NEGLIGIBLE) - math.log(len(bounds))
            bound, spelling = bounds[0]
            if bound <= allowed:
                break
            ids = [*prompt, *spelling]
            if spelling[0] in tops:
                exact.append(bound + await engine.exact(client, ids, len(prompt) + 1))
            else:
                value = await engine.exact(client, ids, len(prompt))
                if tops and value > bound + SLACK:
                    connection = engine.endpoint.connection
                    raise RequestError(
                        f"{connection.url}: its log-probabilities contradict each other: one token has "
                        f"{value:.3f}, and the least of the more likely ones {bound:.3f}; {connection.again}"
                    )
                exact.append(value)
            bounds.pop(0)
        scores[label] = log_sum([*exact, *(bound for bound, _ in bounds)])
    return scores


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
    """Choose a way to get the log-probabilities of a prompt, and the number of listed tokens."""
    url = endpoint.connection.url
    top, way, reasons = 0, "", []

    def ask(more: Mapping[str, object]) -> dict[str, Any]:
        body = {"prompt": list(sample), "max_tokens": 1, "temperature": 0, **more}
        address = f"{url}/completions"
        return endpoint.connection.once(
            lambda client: endpoint.post(client, address, body, lambda answer: answer)
        )

    for name, each in WAYS.items():
        try:
            answer = ask(each.body)
            each.read(answer, sample, 1)
        except RefusedError as error:
            if error.is_of_all_requests:
                raise RequestError(f"{url}: {error}") from error
            reasons.append(f"{name}: {error}")
        except BROKEN as error:
            reasons.append(f"{name}: not in its answer ({type(error).__name__})")
        else:
            way = name
            break
    if not way:
        raise NoLogProbabilitiesError(
            f"{url}: it gives no log-probabilities of a prompt, which --mode choice needs "
            f"({'; '.join(reasons)}). llama.cpp's server and vLLM give them. For this server, add "
            "--mode generate",
            Completions(endpoint, way),
        )
    for count in TOPS:
        try:
            _tops(ask(_listing(count)))
        except (RefusedError, *BROKEN):
            continue
        top = count
        break
    return Completions(endpoint, way, top)


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
