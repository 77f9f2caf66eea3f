"""A served model and everything that its server reports of it: prompts, log-probabilities, answers, adapters.

llama.cpp and vLLM offer all of it. Other servers offer some, and `missing` has the reasons for the rest.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from tuneyard.core.errors import RequestError, show_value
from tuneyard.eval.backends.choice_server import (
    BROKEN,
    ROWS,
    SAMPLE,
    ChoiceServer,
    LabelSource,
    LlamaCpp,
    NoLogProbabilitiesError,
    check_identity,
    check_length,
    open_choice_server,
)
from tuneyard.eval.backends.connection import BAD_REQUEST, NOT_FOUND, Connection, RefusedError
from tuneyard.eval.backends.endpoint import (
    OfferedModel,
    ServerReport,
    find_endpoint,
    get,
    writable,
)
from tuneyard.eval.backends.generate import LENGTH, STOP, Generated
from tuneyard.eval.backends.modelfile import ServedModelfile
from tuneyard.eval.backends.scorers import Fields, Ids, Messages, Prompts, Scorer
from tuneyard.eval.backends.server import chat_answer, chat_request

if TYPE_CHECKING:
    import httpx
    from transformers import PreTrainedTokenizerBase

LLAMA_CPP, VLLM, OLLAMA = "llama.cpp", "vLLM", "Ollama"
OWNER_VLLM = "vllm"  # of the models that vLLM lists
FINISHES = {"eos": STOP, "word": STOP, "limit": LENGTH}
"""llama.cpp's reasons for the end of an answer in OpenAI's words."""
NEUTRAL: Mapping[str, object] = {"temperature": 0, "samplers": ["temperature"], "mirostat": 0}
"""Greedy in llama.cpp, without the penalties that a server may set."""
UNSET: Mapping[str, object] = {
    "mirostat": 0, "typical_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
    "dry_multiplier": 0.0, "xtc_probability": 0.0,
}  # fmt: skip
"""Settings that a llama.cpp server may have, and Ollama has not unless a Modelfile sets them."""
NOT_OFFERED = (404, 405, 501)
LARGEST_ID = 1 << 31
QUESTION: Messages = [{"role": "user", "content": SAMPLE}]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server reports of itself. A field is None, or empty, if it does not."""

    url: str
    engine: str
    """`llama.cpp`, `vLLM`, or the name of another server's owner."""
    version: str | None
    model: str
    """Name of the served model in requests."""
    model_path: str | None
    chat_template: str | None
    context: int | None
    """Tokens of a request. llama.cpp has it for each of its `slots`."""
    slots: int | None
    sampling: Mapping[str, object]
    """Settings for requests that name none (llama.cpp): temperature, repeat_penalty and others."""
    bos: str | None
    eos: str | None
    file_type: str | None
    """Type of the weights in a GGUF, e.g. `Q8_0`."""
    bits: float | None
    """Bits a weight of a GGUF."""
    offers: Sequence[OfferedModel]

    @property
    def adapters(self) -> list[OfferedModel]:
        """The adapters that it offers."""
        return [offer for offer in self.offers if offer.is_adapter]

    @property
    def title(self) -> str:
        """Address, engine and version, e.g. `http://localhost:8000/v1 (vLLM 0.26.0)`."""
        return f"{self.url} ({' '.join(filter(None, (self.engine, self.version)))})"


@dataclass(frozen=True, slots=True)
class ServedPrompt:
    """A prompt that a server made of messages: its ids, and its text before a tokenizer adds BOS."""

    ids: Ids
    text: str


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of a server. Its scorers ask row by row, several rows at once, and check the model's identity.

    A row that the server refuses has the field `refusal` alone, with the reason.

    `choice` scores labels. `missing` has the reasons for what the server does not offer, by the names
    `prompts`, `labels`, `texts` (greedy after our ids) and `chat`.
    """

    facts: ServerFacts
    source: LabelSource
    tokenizer: "PreTrainedTokenizerBase"
    choice: ChoiceServer | None
    missing: Mapping[str, str]
    ends: Sequence[int]
    report: ServerReport
    identity: Mapping[str, object] = field(default_factory=dict)
    modelfile: ServedModelfile | None = None
    """Its TEMPLATE, SYSTEM and PARAMETERs make prompts and chat answers, as in Ollama."""

    @property
    def name(self) -> str:
        """The model's name in requests."""
        return self.source.endpoint.model

    @property
    def connection(self) -> Connection:
        """The connection to the server."""
        return self.source.endpoint.connection

    def with_adapter(self, adapter: OfferedModel) -> "ServedModel":
        """The same llama.cpp server with one of its adapters at scale 1, and no other one."""
        if not isinstance(self.source, LlamaCpp):
            return self
        endpoint = self.source.endpoint
        settings = {**endpoint.settings, **adapter.settings}
        source = replace(self.source, endpoint=replace(endpoint, settings=settings))
        choice = self.choice
        if choice is not None:
            choice = replace(choice, engine=source)
        return replace(self, source=source, choice=choice)

    def with_modelfile(self, modelfile: ServedModelfile) -> "ServedModel":
        """The same llama.cpp server, asked as Ollama asks its own with this Modelfile."""
        facts = replace(
            self.facts,
            engine=OLLAMA,
            sampling={**UNSET, **modelfile.llama_cpp_request()},
            context=modelfile.context or self.facts.context,
            chat_template=None,
        )
        return replace(self, facts=facts, choice=None, missing={}, modelfile=modelfile)

    def labels(self, prompts: Prompts, spellings: Mapping[str, Sequence[str]]) -> Scorer:
        """Scorer of labels after our ids. `RequestError` if the server gives no log-probabilities."""
        if self.choice is None:
            raise RequestError(self.missing["labels"])
        return self.choice.choosing(prompts, spellings)

    def prompting(self, talks: Mapping[int, Messages]) -> Scorer:
        """Scorer whose field `prompt` is the ServedPrompt of each row's messages."""
        return self._scorer("prompt", talks, self.prompt)

    def answering(self, prompts: Prompts, max_new_tokens: int) -> Scorer:
        """Scorer whose field `answer` is what the server generates greedily after our ids."""
        return self._scorer("answer", prompts, lambda client, ids: self.greedy(client, ids, max_new_tokens))

    def chatting(
        self, talks: Mapping[int, Messages], max_new_tokens: int, more: Mapping[str, object] | None = None
    ) -> Scorer:
        """Scorer whose field `answer` is what a client gets who sends the messages alone, or with `more`."""

        def ask(client: "httpx.AsyncClient", talk: Messages) -> Awaitable[Generated]:
            return self.chat(client, talk, max_new_tokens, more or {})

        return self._scorer("answer", talks, ask)

    async def prompt(self, client: "httpx.AsyncClient", talk: Messages) -> ServedPrompt:
        """Prompt of some messages, as the server's chat makes it."""
        root, endpoint = self.connection.root, self.source.endpoint
        tokenizing = f"{root}/tokenize"
        if not isinstance(self.source, LlamaCpp):
            request = {**chat_request(talk), "add_generation_prompt": True}
            ids = await endpoint.post(client, tokenizing, request, _read_ids, "token ids")
            return ServedPrompt(ids, self.tokenizer.decode(ids))
        if self.modelfile is not None:
            text = self.modelfile.render(talk)
        else:
            asking = chat_request(talk)
            text = await endpoint.post(client, f"{root}/apply-template", asking, _read_prompt, "prompt")
        request = {"content": text, "add_special": True, "parse_special": True}
        ids = await endpoint.post(client, tokenizing, request, _read_ids, "token ids")
        return ServedPrompt(ids, text)

    async def greedy(self, client: "httpx.AsyncClient", ids: Ids, max_new_tokens: int) -> Generated:
        """Most likely answer after our ids, without sampling and penalties."""
        endpoint = self.source.endpoint
        if isinstance(self.source, LlamaCpp):
            return await self._complete(client, ids, {"n_predict": max_new_tokens, **NEUTRAL})

        def read(answer: dict[str, Any]) -> Generated:
            usage = answer.get("usage")
            if isinstance(usage, dict):
                check_length(endpoint, usage.get("prompt_tokens", len(ids)), len(ids))
            choice = answer["choices"][0]
            return Generated(writable(choice["text"]), choice.get("finish_reason"))

        body = {"prompt": list(ids), "max_tokens": max_new_tokens, "temperature": 0}
        if self.facts.engine == VLLM:  # it takes penalties from generation_config.json
            body["repetition_penalty"] = 1.0
        return await endpoint.post(client, f"{self.connection.url}/completions", body, read, "completion")

    async def chat(
        self, client: "httpx.AsyncClient", talk: Messages, max_new_tokens: int, more: Mapping[str, object]
    ) -> Generated:
        """Answer of a client's request: the messages, a length, and `more` settings."""
        if self.modelfile is not None:
            return await self._chat_as_ollama(client, self.modelfile, talk, max_new_tokens, more)
        body = {**chat_request(talk), "max_tokens": max_new_tokens, **more}
        address = f"{self.connection.url}/chat/completions"
        return await self.source.endpoint.post(client, address, body, chat_answer, "chat completion")

    async def _chat_as_ollama(
        self,
        client: "httpx.AsyncClient",
        modelfile: ServedModelfile,
        talk: Messages,
        max_new_tokens: int,
        more: Mapping[str, object],
    ) -> Generated:
        """Answer with the Modelfile's parameters. `RefusedError` for a prompt that num_ctx would cut."""
        ids = (await self.prompt(client, talk)).ids
        longest = max_new_tokens
        if modelfile.context is not None:
            longest = min(longest, modelfile.context - len(ids))
        if longest <= 0:
            raise RefusedError(
                BAD_REQUEST,
                f"a prompt of {len(ids)} tokens exceeds the available context size, num_ctx "
                f"{modelfile.context}",
            )
        settings = {**self.facts.sampling, **more}
        predicted = settings.get("n_predict")
        if isinstance(predicted, int) and predicted >= 0:  # below 0: no limit
            longest = min(longest, predicted)
        return await self._complete(client, ids, {**settings, "n_predict": longest})

    async def _complete(
        self, client: "httpx.AsyncClient", ids: Ids, settings: Mapping[str, object]
    ) -> Generated:
        """Answer of llama.cpp's /completion after our ids."""
        endpoint = self.source.endpoint

        def read(answer: dict[str, Any]) -> Generated:
            check_length(endpoint, answer.get("tokens_evaluated", len(ids)), len(ids))
            finish = FINISHES.get(answer.get("stop_type", ""))
            return Generated(writable(answer["content"]), finish)

        body = {"prompt": list(ids), **settings}
        return await endpoint.post(client, f"{self.connection.root}/completion", body, read, "completion")

    def _scorer(
        self,
        name: str,
        items: Mapping[int, Item],
        ask: "Callable[[httpx.AsyncClient, Item], Awaitable[object]]",
    ) -> Scorer:
        rows = sorted(items)

        def score(batch: Sequence[int]) -> list[Fields]:
            async def score_row(client: "httpx.AsyncClient", row: int) -> Fields:
                try:
                    return {name: await ask(client, items[row])}
                except RefusedError as error:
                    if error.is_of_all_requests:
                        raise RequestError(f"{self.connection.url}: {error}") from error
                    return {"refusal": str(error)}

            fields = self.connection.each(score_row, batch)
            check_identity(self.source, self.identity)
            return fields

        return Scorer([rows[i : i + ROWS] for i in range(0, len(rows), ROWS)], {}, score)


def open_served(
    report: ServerReport,
    name: str,
    is_exact_name: bool,
    tokenizer: "PreTrainedTokenizerBase",
    ends: Sequence[int],
) -> ServedModel:
    """Find out what a server offers. `RequestError` if it has no such model, or another tokenizer.

    `name` is the model's name on it. Unless `is_exact_name`, the server's only model may have another name.
    """
    missing: dict[str, str] = {}
    source: LabelSource
    connection = report.connection
    endpoint = find_endpoint(report, name, is_exact_name)
    if "lora" in endpoint.settings:
        raise RequestError(
            f"--served-model {name}: an adapter of {connection.url}; leave --served-model out: each adapter "
            "there is compared with the --adapter of its name"
        )
    try:
        choice = open_choice_server(endpoint, report, tokenizer, ends)
        source = choice.engine
    except NoLogProbabilitiesError as error:
        choice, source = None, error.source
        missing["labels"] = str(error).removeprefix(f"{connection.url}: ")
    facts = read_facts(report, source.endpoint.model)
    identity = source.identity(report)
    served = ServedModel(facts, source, tokenizer, choice, missing, ends, report, identity)
    sample = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    questions: dict[str, Callable[[httpx.AsyncClient], Awaitable[object]]] = {
        "prompts": lambda client: _check_prompts(served, client),
        "texts": lambda client: served.greedy(client, sample, 1),
        "chat": lambda client: served.chat(client, QUESTION, 1, {}),
    }
    for part, ask in questions.items():
        try:
            connection.once(ask)
        except RefusedError as error:
            if error.is_of_all_requests:
                raise RequestError(f"{connection.url}: {error}") from error
            if part != "chat" or error.status in NOT_OFFERED:  # a chat that is refused is a difference
                missing[part] = str(error)
    return served


async def _check_prompts(served: ServedModel, client: "httpx.AsyncClient") -> None:
    """`RefusedError` if the server makes no token ids of messages."""
    if isinstance(served.source, LlamaCpp):
        await served.prompt(client, QUESTION)
        return
    request = {**chat_request(QUESTION), "add_generation_prompt": True}
    address = f"{served.connection.root}/tokenize"
    answer = await served.source.endpoint.post(client, address, request, lambda answer: answer, "token ids")
    try:
        _read_ids(answer)
    except BROKEN as error:
        raise RefusedError(NOT_FOUND, "/tokenize makes no token ids of messages") from error


def read_facts(report: ServerReport, model: str) -> ServerFacts:
    """Name the server, and sort what it reports. vLLM is asked for its version."""
    connection, props, entry = report.connection, report.props or {}, report.entry(model)
    sampling = report.settings.get("params")
    if not isinstance(sampling, dict):
        sampling = {}
    if report.props is not None:
        engine, version = LLAMA_CPP, props.get("build_info")
    else:
        owner = entry.get("owned_by")
        engine = VLLM if owner == OWNER_VLLM else str(owner or "OpenAI-compatible server")
        version = (get(connection, f"{connection.root}/version") or {}).get("version")
    meta = entry.get("meta")
    if not isinstance(meta, dict):
        meta = {}
    return ServerFacts(
        url=connection.url,
        engine=engine,
        version=_text(version),
        model=model,
        model_path=_text(props.get("model_path")) or _text(entry.get("root")),
        chat_template=_text(props.get("chat_template")),
        context=report.context(model),
        slots=report.slots,
        sampling=sampling,
        bos=_text(props.get("bos_token")),
        eos=_text(props.get("eos_token")),
        file_type=_text(props.get("model_ftype")) or _text(meta.get("ftype")),
        bits=_bits(meta),
        offers=[*_offered_models(report.models), *report.adapters],
    )


def _offered_models(entries: Sequence[Mapping[str, Any]]) -> list[OfferedModel]:
    """The models of /models. vLLM names the parent of each adapter."""
    offers = []
    for entry in entries:
        if isinstance(entry.get("id"), str):
            is_adapter = isinstance(entry.get("parent"), str)
            offers.append(OfferedModel(entry["id"], _text(entry.get("root")), is_adapter))
    return offers


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


def _bits(meta: Mapping[str, Any]) -> float | None:
    """Bits a weight, from llama.cpp's size in bytes and number of parameters."""
    size, parameters = meta.get("size"), meta.get("n_params")
    if type(size) is int and type(parameters) is int and parameters > 0:
        return 8 * size / parameters
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
