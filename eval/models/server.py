"""The backend of a server: answers after its own chat template, and labels after our token ids.

A dialect is a class in its own file (llama_cpp.py, openai.py): it makes the requests and reads the
answers. A server gets token ids for labels, so that its chat template has no part in it.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import text_sha256
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import warn, warn_once
from tuneyard.core.llamafactory.prompt import Encode, Messages, openai_messages
from tuneyard.eval.models import NO_LIMIT, Backend
from tuneyard.eval.models.batch_plan import (
    Batches,
    Ids,
    Images,
    Logs,
    Prompts,
    Reading,
    Refused,
    TooLong,
    chunks,
)
from tuneyard.eval.models.connection import (
    Connection,
    Item,
    NoAccessError,
    NoAnswerError,
    RefusedError,
    Result,
    ServerJson,
)
from tuneyard.eval.models.generate import Generated
from tuneyard.eval.models.served import LLAMA_CPP, VLLM, ServedModel, json_object, read_models, writable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS, PROBES = 32, 8  # rows between two writes of the log, by labels and by answers
IMPOSSIBLE = -9000.0  # below it are the numbers for a probability of 0: -9999, the least float
UNDERFLOW = math.log(2.0**-149)  # the value for those: the least probability in fp32
LARGEST = 0.01  # of a log-probability: rounded sums
LARGEST_ID = 1 << 31
REFUSING = {400, 403, 413, 422, 451}
"""Codes of an error in an answer of status 200, by which some routers pass on a refusal of the content."""
CONTENT_FILTER = "content_filter"
"""OpenAI's word for the end of an answer that was taken away or cut."""
SHOWN = 60  # bytes of an answer that is not what it should be
LOG_PROBABILITIES = _("log-probabilities")
"""What an answer should be, unless another thing is asked for."""
SAMPLE = "Is the answer yes or no? It may be."
"""A text to compare tokenizers by."""
QUESTION: Messages = [{"role": "user", "content": SAMPLE}]
ReadAnswer = Callable[[ServerJson], Result]
"""What is read of the JSON that a server answers."""


def log_of(value: object) -> float:
    """Read a log-probability; `ContentError` for nan, which JSON has as null, `ValueError` for nonsense."""
    if value is None:
        raise ContentError(
            _("the server gives null as a log-probability: its weights overflow; serve them in bf16 or fp32")
        )
    if isinstance(value, bool) or not isinstance(value, int | float) or not value < LARGEST:
        raise ValueError(_("{value} as a log-probability", value=show_value(value)))
    if value < IMPOSSIBLE:
        return UNDERFLOW
    return min(float(value), 0.0)


class NoLogProbabilitiesError(RequestError):
    """A server gives no log-probabilities. `problem` is the reason."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(_("{url}: {problem}", url=url, problem=problem))
        self.problem = problem


OPENAI_SAMPLING = ("temperature", "top_p")
"""The settings of sampling that OpenAI's interface has."""


@dataclass(eq=False)
class Server(Backend, ABC):
    """A served model. With `gives_labels` its tokenizer is here, and the server gets our token ids.

    - `model`: what the server reported of it at the beginning of the run.
    - `offers`: all models and adapters of the server.
    - `missing`: the reasons for what the server does not offer, by the names `prompts`, `labels`, `texts`
      (greedy after our ids) and `chat` (`open_served`).
    - `answers_as`: the name of the model in its answers.
    """

    ENGINE: ClassVar[str] = ""
    """The name of the engine, as `model.engine` has it: `owned_by` in /v1/models. "" for OpenAI's dialect."""
    model: ServedModel
    offers: Sequence[ServedModel]
    gives_labels: bool = False
    missing: Mapping[str, str] = field(default_factory=dict)
    answers_as: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.device = self.dtype = "server"
        if self.gives_labels:  # otherwise the server itself refuses prompts that are too long
            self.context = self.model.context or NO_LIMIT
        # the settings of every request choose the adapter; of what is not listed, the address is the identity
        identity = [self.model.identity or f"{self.url} {self.model.model}", self.model.settings]
        self.digest = text_sha256(json.dumps(identity, sort_keys=True))

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
        server = self.checked(sample)
        server.check_tokenizer(sample)
        return replace(server, tokenizer=tokenizer, ends=ends, gives_labels=True)

    def reading(
        self,
        prompts: Prompts,
        spellings: Sequence[Ids],
        images: Images,  # noqa: ARG002  open_models refuses images
    ) -> Reading:
        """Ask for the log-probabilities of the spellings' tokens, some rows at a time in the data's order."""

        async def read_row(row: int) -> Logs | Refused:
            try:
                return await self.logs(prompts[row], spellings)
            except RefusedError as error:
                if error.is_of_row and not error.is_too_long:
                    return Refused(error.problem)
                raise RequestError(
                    _("{url}: row {row}: {problem}", url=self.url, row=row, problem=error.problem)
                ) from error

        return chunks(list(prompts), ROWS), lambda batch: self.each(read_row, batch)

    def batches(self, lengths: Mapping[int, int]) -> Batches:
        """Batches of a few conversations in the data's order."""
        return chunks(sorted(lengths), PROBES)

    def chat(
        self,
        talks: Mapping[int, Messages],
        encode: Encode,  # noqa: ARG002  the server makes the prompt
        longest: int,
    ) -> Sequence[str | TooLong | Refused]:
        """Fetch the answers, greedy or as `sampling` says. The server refuses some, e.g. those too long.

        `RequestError` if the server does not answer, or would refuse every conversation.
        """
        settings: dict[str, object] = {"max_tokens": longest, "temperature": 0}
        if self.draws:
            settings |= {name: self.sampling[name] for name in OPENAI_SAMPLING if name in self.sampling}
        if self.seed is not None:
            settings["seed"] = self.seed
        if self.special_tokens and self.model.engine == VLLM:
            settings["skip_special_tokens"] = False
        answers: list[str | TooLong | Refused] = []
        for answer in self.ask(lambda talk: self.chat_with(talk, settings), [*talks.values()]):
            if isinstance(answer, Generated):
                answers.append(answer.text)
            elif answer.is_too_long:
                answers.append(TooLong(answer.problem))
            elif answer.is_of_row:
                answers.append(Refused(answer.problem))
            else:
                raise answer
        return answers

    def ask(
        self, question: Callable[[Item], Awaitable[Result]], items: Sequence[Item]
    ) -> list[Result | RefusedError]:
        """Ask a question about all items. The answer to a refused one is the refusal."""

        async def ask_one(item: Item) -> Result | RefusedError:
            try:
                return await question(item)
            except RefusedError as error:
                return error

        return self.each(ask_one, items)

    def each(self, ask: Callable[[Item], Awaitable[Result]], items: Sequence[Item]) -> list[Result]:
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
                _(
                    "{url}: its model changed during the run ({changes}). Serve the first one; {hint}",
                    url=self.url,
                    changes=", ".join(changed),
                    hint=self.connection.again,
                )
            )

    @abstractmethod
    def checked(self, sample: Ids) -> "Server":
        """The server that gives log-probabilities; `NoLogProbabilitiesError` if the server gives none."""

    @abstractmethod
    async def logs(self, prompt: Ids, spellings: Sequence[Ids]) -> Logs:
        """Log-probabilities of the spellings' tokens after the prompt."""

    @abstractmethod
    async def greedy(self, ids: Ids, longest: int) -> Generated:
        """Most likely answer after our ids, without sampling and penalties."""

    @abstractmethod
    async def prompt(self, talk: Messages) -> Ids:
        """Token ids of some messages, as the server's chat makes them."""

    @abstractmethod
    def tokenizing(self, text: str) -> dict[str, object]:
        """The body of /tokenize for a text."""

    async def chat_with(self, talk: Messages, settings: Mapping[str, object]) -> Generated:
        """Answer of a client's request: the messages and these settings. Errors quote the last message."""
        body = {**chat_request(talk), **settings}
        address = f"{self.url}/chat/completions"
        return await self.post(
            address, body, chat_answer, _("chat completion"), repr(talk[-1]["content"][:40])
        )

    async def post(
        self,
        address: str,
        body: Mapping[str, object],
        read: ReadAnswer[Result],
        about: str = LOG_PROBABILITIES,
        place: str = "",
    ) -> Result:
        """Post a body and read the JSON of the answer. Errors in `read` mean that the answer is nonsense.

        `about` is what the answer should be, `place` begins the message of an error.
        """

        def parse(data: bytes) -> Result:
            answer = json_object(data)
            self._check_model(text_in(answer.get("model"), "model"))
            try:
                return read(answer)
            except NoAnswerError as error:
                raise RefusedError(self.url, HTTPStatus.OK, _("HTTP 200 {error}", error=error)) from error
            except ContentError as error:
                raise ContentError(_("{url}: {error}", url=self.url, error=error)) from error
            except (LookupError, TypeError, AttributeError, OverflowError) as error:
                beginning = f"{data[:SHOWN]!r}"
                if "error" in answer:
                    beginning = show_value(answer["error"])
                problem = _("no {about}: {beginning}", about=about, beginning=beginning)
                if isinstance(error, KeyError):
                    problem = _(
                        "no {about} ({name} is missing): {beginning}",
                        about=about,
                        name=error,
                        beginning=beginning,
                    )
                raise ValueError(problem) from error

        named = {"model": self.model.model, **body, **self.model.settings}
        return await self.connection.request(address, named, parse, place or about)

    def _check_model(self, name: str) -> None:
        """`RequestError` if an answer names another model than the answers before.

        A warning if the first one names another model than was asked for. A path's last part is enough.
        """
        if name in ("", self.answers_as):
            return
        if self.answers_as:
            raise RequestError(
                _(
                    "{url}: it answers as {one} and {other}: its model changed. Serve the first one; {hint}",
                    url=self.url,
                    one=show_value(self.answers_as),
                    other=show_value(name),
                    hint=self.connection.again,
                )
            )
        self.answers_as = name
        if Path(name).name != Path(self.model.model).name:
            warn_once(
                _(
                    "{url}: asked for {model}, it answers as {name}: check that it serves the right model",
                    url=self.url,
                    model=show_value(self.model.model),
                    name=show_value(name),
                )
            )

    def check_length(self, read: object, sent: int) -> None:
        """`RequestError` unless the server read as many tokens as it was sent."""
        if read != sent:
            count = _("fewer") if read is None else show_value(read)
            raise RequestError(
                _(
                    "{url}: the server read {number} tokens of a prompt of {sent}: it cuts prompts or "
                    "adds a BOS. Serve the model with a longer context, and without what changes prompts",
                    url=self.url,
                    number=count,
                    sent=sent,
                )
            )

    def check_tokenizer(self, sample: Ids) -> None:
        """`RequestError` if the server's tokenizer gives other ids; a warning if it offers none."""
        address, body = f"{self.connection.root}/tokenize", self.tokenizing(SAMPLE)
        try:
            tokens = self.connection.once(lambda: self.post(address, body, read_ids, _("token ids")))
        except (RefusedError, NoAccessError):
            warn(
                _(
                    "{url}: it offers no /tokenize: its tokenizer was not compared with --model's",
                    url=self.url,
                )
            )
            return
        if tokens != list(sample):
            raise RequestError(
                _(
                    "{url}: it makes {tokens} of {sample!r}, --model makes {expected}: another model is "
                    "served, or --model is another one",
                    url=self.url,
                    tokens=show_value(tokens),
                    sample=SAMPLE,
                    expected=list(sample),
                )
            )


def read_ids(answer: ServerJson) -> list[int]:
    """Read the token ids of /tokenize."""
    tokens: list[int] = answer["tokens"]
    is_list = type(tokens) is list
    if not is_list or not all(type(token) is int and 0 <= token < LARGEST_ID for token in tokens):
        raise ValueError(_("{tokens} as token ids", tokens=show_value(tokens)))
    return tokens


def text_in(value: object, name: str) -> str:
    """A text of an answer, "" for null. `ValueError` names the field of any other value."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(_("{name} is {value}, expected a text", name=name, value=show_value(value)))
    return value


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


def choices_of(answer: ServerJson) -> Any:
    """The choices of a completion.

    `NoAnswerError` if there are none, as some content filters leave it, or an error in their place that
    another try would not change.
    """
    error = answer.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    if not answer.get("choices") and isinstance(code, int) and code in REFUSING:
        raise NoAnswerError(show_value(error))
    choices = answer["choices"]
    if choices in ([], None):
        raise NoAnswerError(_("`choices` is empty"))
    return choices


def chat_answer(answer: Any) -> Generated:
    """Read a chat completion, with thoughts in <think> before the text and tool calls after it.

    `NoAnswerError` if a content filter took the answer away. Other errors of reading mean that it is none.
    """
    choice = choices_of(answer)[0]
    finish = choice.get("finish_reason")
    if isinstance(finish, str) and finish.lower().startswith(CONTENT_FILTER):
        raise NoAnswerError(_("finish_reason {finish}", finish=finish))
    message = choice["message"]
    thought = text_in(message.get("reasoning_content"), "reasoning_content")
    text = text_in(message["content"], "content") or text_in(message.get("refusal"), "refusal")
    if thought:
        text = "<think>" + thought + "</think>" + text
    for call in message.get("tool_calls") or ():
        name = json.dumps(call["function"]["name"])
        arguments = call["function"]["arguments"]
        if not isinstance(arguments, str):  # some servers send an object
            arguments = json.dumps(arguments, ensure_ascii=False)
        text += f'\n<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'
    return generated(text, choice)


def generated(text: str, choice: ServerJson) -> Generated:
    """The text of a choice, with the server's reason for its end. `ValueError` if the reason is no text."""
    return Generated(writable(text), text_in(choice.get("finish_reason"), "finish_reason") or None)
