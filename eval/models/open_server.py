"""Open a server's model: check its address, find the model, and find out what the server offers."""

import re
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _
from tuneyard.core.plugins import bundled_with
from tuneyard.eval.models.connection import RESUMED, TIMEOUT, Connection, RefusedError, UnreadableError
from tuneyard.eval.models.openai import OpenAi
from tuneyard.eval.models.served import ServedModel, choose_model, get, read_models
from tuneyard.eval.models.server import QUESTION, SAMPLE, NoLogProbabilitiesError, Server

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_OFFERED = (404, 405, 501)


def check_url(url: str) -> str:
    """Remove the slash at the end of a server's address.

    `RequestError` if it is not an http(s) address, has a query, or is that of a single request.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        has_password = "@" in parts.netloc
    except ValueError:  # a port that is no number, brackets that do not close
        fits = False
        has_password = "@" in url
    if has_password:
        raise RequestError(
            _(
                "--url contains a user name or password, which the results would record. Leave it "
                "out: the key of a server goes into OPENAI_API_KEY"
            )
        )
    if not fits or not re.fullmatch("[!-~]+", url):
        raise RequestError(_("--url {url!r}: expected an address such as http://localhost:8000/v1", url=url))
    before, *rest = re.split("[?#]", url)
    if rest:
        raise RequestError(
            _(
                "--url {url!r}: found a query or a fragment, expected an address that ends before "
                "it: {before}",
                url=url,
                before=before,
            )
        )
    address = url.rstrip("/")
    for path in ("/chat/completions", "/completions", "/models"):
        if address.endswith(path):
            raise RequestError(
                _(
                    "--url {url!r}: expected the address before {path}: {address}",
                    url=url,
                    path=path,
                    address=address.removesuffix(path),
                )
            )
    return address


def connect(
    url: str, served_model: str | None, model: str, timeout: float | None, again: str = RESUMED
) -> Server:
    """Open the model `served_model` of a server, otherwise `model`, or its only one.

    `again` tells the user how to continue after an error.
    """
    connection = Connection(check_url(url), timeout or TIMEOUT, again)
    name = served_model or model
    return open_server(read_models(connection, name), name, bool(served_model))


def open_server(offers: Sequence[ServedModel], name: str, is_exact_name: bool) -> Server:
    """Find a model on a server. `RequestError` if the server lists models without it.

    `name` is the model's name there. Unless `is_exact_name`, the server's only model may have another name.
    """
    model = choose_model(offers, name, is_exact_name)
    for dialect in bundled_with("tuneyard.eval.models", type):
        if issubclass(dialect, Server) and model.engine == dialect.ENGINE:
            server: Server = dialect(model, offers)
            return server
    return OpenAi(model, offers)


def open_served(
    offers: Sequence[ServedModel],
    name: str,
    is_exact_name: bool,
    tokenizer: "PreTrainedTokenizerBase",
    ends: Sequence[int],
) -> Server:
    """Open a server, and find the parts that it lacks.

    `RequestError` if it has no such model, or another tokenizer.
    """
    missing: dict[str, str] = {}
    server = replace(open_server(offers, name, is_exact_name), tokenizer=tokenizer, ends=ends)
    if server.model.number is not None:
        raise RequestError(
            _(
                "--served-model {name}: an adapter of {url}; leave --served-model out: each adapter "
                "there is compared with the --adapter of its name",
                name=name,
                url=server.url,
            )
        )
    try:
        server = server.with_labels(tokenizer, ends)
    except NoLogProbabilitiesError as error:
        missing["labels"] = error.problem
    if server.model.version is None:  # vLLM has it at an address of its own
        version = (get(server.connection, f"{server.connection.root}/version") or {}).get("version")
        if isinstance(version, str):
            server = replace(server, model=replace(server.model, version=version))
    sample = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "prompts": lambda: server.prompt(QUESTION),
        "texts": lambda: server.greedy(sample, 1),
        "chat": lambda: server.chat_with(QUESTION, {"max_tokens": 1}),
    }
    for part, ask in questions.items():
        try:
            server.connection.once(ask)
        except UnreadableError as error:
            if part != "prompts":  # a /tokenize may give texts alone
                raise
            missing[part] = error.problem
        except RefusedError as error:
            if part != "chat" or error.status in NOT_OFFERED:  # a chat that is refused is a difference
                missing[part] = error.problem
    return replace(server, missing=missing)
