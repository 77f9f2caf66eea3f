"""The backend of a server: answers after its own chat template, and labels after our token ids."""

import hashlib
import json
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from tuneyard.core.errors import RequestError
from tuneyard.core.prompt import Encode
from tuneyard.eval.backends import Backend
from tuneyard.eval.backends.connection import Connection, RefusedError, UnreadableError
from tuneyard.eval.backends.dialect import QUESTION, SAMPLE, Dialect, NoLogProbabilitiesError
from tuneyard.eval.backends.llama_cpp import LlamaCpp
from tuneyard.eval.backends.openai import OpenAi
from tuneyard.eval.backends.scorers import (
    Fields,
    Ids,
    Logs,
    Messages,
    Plan,
    Prompts,
    Reading,
    Scorer,
    TooLong,
    chunks,
)
from tuneyard.eval.backends.served import LLAMA_CPP, ServedModel, choose_model, get, read_models

if TYPE_CHECKING:
    import httpx
    from transformers import PreTrainedTokenizerBase

ROWS, TALKS = 32, 8  # rows between two writes of the log, by labels and by answers
NO_LIMIT = 1 << 30  # tokens: the server itself refuses prompts that are too long
NOT_OFFERED = (404, 405, 501)
Item = TypeVar("Item")
Answered = TypeVar("Answered")


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
    """A served model. With `gives_labels` its tokenizer is here, and the server gets our token ids.

    - `offers`: all models and adapters of the server.
    - `missing`: the reasons for what the server does not offer, by the names `prompts`, `labels`, `texts`
      (greedy after our ids) and `chat` (`open_served`).
    """

    dialect: Dialect
    offers: Sequence[ServedModel]
    tokenizer: "PreTrainedTokenizerBase" = None  # without labels nobody reads it
    ends: Sequence[int] = ()
    gives_labels: bool = False
    missing: Mapping[str, str] = field(default_factory=dict)
    device: str = "server"
    dtype: str = "server"
    budget: int = 0
    settings: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.context = NO_LIMIT
        if self.gives_labels:
            self.context = self.model.context or NO_LIMIT
        # the settings of every request choose the adapter; of what is not listed, the address is the identity
        identity = [self.model.identity or f"{self.url} {self.model.model}", self.model.settings]
        self.digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def model(self) -> ServedModel:
        """The model, and what the server reported of it at the beginning of the run."""
        return self.dialect.served

    @property
    def connection(self) -> Connection:
        """The connection to the server."""
        return self.model.connection

    @property
    def url(self) -> str:
        """Address before /chat/completions, e.g. http://localhost:8000/v1."""
        return self.connection.url

    def with_labels(self, tokenizer: "PreTrainedTokenizerBase", ends: Sequence[int]) -> "Server":
        """The same model for labels. `NoLogProbabilitiesError` if the server gives no log-probabilities.

        `RequestError` if it has another tokenizer.
        """
        sample = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
        dialect = self.dialect.checked(sample)
        dialect.check_tokenizer(sample)
        return replace(self, dialect=dialect, tokenizer=tokenizer, ends=ends, gives_labels=True)

    def with_offer(self, offer: ServedModel) -> "Server":
        """Another model of the server. An adapter of llama.cpp goes with the same model: requests name it."""
        if offer.number is None:
            if offer.name == self.model.name:
                return self
            return open_served(self.offers, offer.name, True, self.tokenizer, self.ends)
        return replace(self, dialect=replace(self.dialect, served=offer))

    def reading(
        self,
        prompts: Prompts,
        spellings: Sequence[Ids],
        images: Mapping[int, Sequence[str]] | None = None,  # noqa: ARG002  open_models refuses images
    ) -> Reading:
        """Ask for the log-probabilities of the spellings' tokens, some rows at a time in the data's order."""

        async def read_row(client: "httpx.AsyncClient", row: int) -> Logs:
            try:
                return await self.dialect.logs(client, prompts[row], spellings)
            except RefusedError as error:
                raise RequestError(f"{self.url}: row {row}: {error}") from error

        return chunks(list(prompts), ROWS), lambda batch: self.each(read_row, batch)

    def plan(self, talks: Mapping[int, Messages], encode: Encode, longest: int) -> Plan:  # noqa: ARG002
        """Plan batches of a few conversations in the data's order. The server itself finds the long ones."""
        return chunks(sorted(talks), TALKS), {}

    def chat(
        self,
        talks: Sequence[Messages],
        encode: Encode,  # noqa: ARG002  the server makes the prompt
        longest: int,
    ) -> Sequence[str | TooLong]:
        """Fetch the greedy answers. `RequestError` if the server does not answer, or refuses for another
        reason than the length."""
        scorer = self.chatting(dict(enumerate(talks)), {"max_tokens": longest, "temperature": 0})
        answers: list[str | TooLong] = []
        for fields in scorer.score(range(len(talks))):
            if "refusal" not in fields:
                answers.append(fields["answer"].text)
            elif fields["refusal"].is_too_long:
                answers.append(TooLong(str(fields["refusal"])))
            else:
                raise RequestError(f"{self.url}: {fields['refusal']}")
        return answers

    def prompting(self, talks: Mapping[int, Messages]) -> Scorer:
        """Scorer whose field `prompt` is the ids that the server makes of each row's messages."""
        return self._scorer("prompt", talks, self.dialect.prompt)

    def answering(self, prompts: Mapping[int, Ids], longest: int) -> Scorer:
        """Scorer whose field `answer` is what the server generates greedily after our ids."""
        return self._scorer("answer", prompts, lambda client, ids: self.dialect.greedy(client, ids, longest))

    def chatting(self, talks: Mapping[int, Messages], settings: Mapping[str, object]) -> Scorer:
        """Scorer whose field `answer` is what a client gets who sends the messages with these settings."""
        return self._scorer("answer", talks, lambda client, talk: self.dialect.chat(client, talk, settings))

    def _scorer(
        self,
        name: str,
        items: Mapping[int, Item],
        ask: "Callable[[httpx.AsyncClient, Item], Awaitable[object]]",
    ) -> Scorer:
        """Scorer whose field `name` is the answer. A refused row has `refusal`, a RefusedError, alone."""

        async def score_row(client: "httpx.AsyncClient", row: int) -> Fields:
            try:
                return {name: await ask(client, items[row])}
            except RefusedError as error:
                if error.is_of_all_requests:
                    raise RequestError(f"{self.url}: {error}") from error
                return {"refusal": error}

        return Scorer(chunks(sorted(items), ROWS), {}, lambda batch: self.each(score_row, batch))

    def each(
        self, ask: "Callable[[httpx.AsyncClient, Item], Awaitable[Answered]]", items: Sequence[Item]
    ) -> list[Answered]:
        """Ask for all items, several at once; `RequestError` if the model changed meanwhile."""
        answers = self.connection.each(ask, items)
        self.check_unchanged()
        return answers

    def check_unchanged(self) -> None:
        """`RequestError` if the server has another model than at the beginning."""
        name, before = self.model.model, self.model.identity
        models = read_models(self.connection, name, asks_props=self.model.engine == LLAMA_CPP)
        now: Mapping[str, object] = {}
        for model in models:
            if model.name == name:
                now = model.identity
        if now != before:
            changed = [part for part in {**before, **now} if now.get(part) != before.get(part)]
            raise RequestError(
                f"{self.url}: its model changed during the run ({', '.join(changed)}). Serve the first one; "
                f"{self.connection.again}"
            )


def open_server(offers: Sequence[ServedModel], name: str, is_exact_name: bool) -> Server:
    """Find a model on a server. `RequestError` if the server lists models without it.

    `name` is the model's name there. Unless `is_exact_name`, the server's only model may have another name.
    """
    model = choose_model(offers, name, is_exact_name)
    return Server(LlamaCpp(model) if model.engine == LLAMA_CPP else OpenAi(model), offers)


def open_served(
    offers: Sequence[ServedModel],
    name: str,
    is_exact_name: bool,
    tokenizer: "PreTrainedTokenizerBase",
    ends: Sequence[int],
) -> Server:
    """Find out what a server offers. `RequestError` if it has no such model, or another tokenizer."""
    missing: dict[str, str] = {}
    server = replace(open_server(offers, name, is_exact_name), tokenizer=tokenizer, ends=ends)
    if server.model.number is not None:
        raise RequestError(
            f"--served-model {name}: an adapter of {server.url}; leave --served-model out: each adapter "
            "there is compared with the --adapter of its name"
        )
    try:
        server = server.with_labels(tokenizer, ends)
    except NoLogProbabilitiesError as error:
        missing["labels"] = str(error).removeprefix(f"{server.url}: ")
    dialect = server.dialect
    if server.model.version is None:  # vLLM has it at an address of its own
        version = (get(server.connection, f"{server.connection.root}/version") or {}).get("version")
        if isinstance(version, str):
            dialect = replace(dialect, served=replace(server.model, version=version))
    sample = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    questions: dict[str, Callable[[httpx.AsyncClient], Awaitable[object]]] = {
        "prompts": lambda client: dialect.prompt(client, QUESTION),
        "texts": lambda client: dialect.greedy(client, sample, 1),
        "chat": lambda client: dialect.chat(client, QUESTION, {"max_tokens": 1}),
    }
    for part, ask in questions.items():
        try:
            server.connection.once(ask)
        except UnreadableError as error:
            if part != "prompts":  # a /tokenize may give texts alone
                raise
            missing[part] = error.problem
        except RefusedError as error:
            if error.is_of_all_requests:
                raise RequestError(f"{server.url}: {error}") from error
            if part != "chat" or error.status in NOT_OFFERED:  # a chat that is refused is a difference
                missing[part] = str(error)
    return replace(server, dialect=dialect, missing=missing)
