"""A model or an adapter of a server: found by its name, and asked with JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.errors.warn import warn_once
from tuneyard.eval.backends.connection import Connection, RefusedError, UnreadableError

if TYPE_CHECKING:
    import httpx

GGUF = ".gguf"
OWNER_VLLM = "vllm"  # of the models that vLLM lists
HTML = (b"<html", b"<!doctype html")
SHOWN = 60  # bytes of an answer that is not what it should be
SHOWN_NAMES = 10
Result = TypeVar("Result")


def json_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object. `ValueError` if the data is none."""
    value = any_json(data)
    if not isinstance(value, dict):
        raise ValueError(f"no JSON object: {data[:60]!r}")
    return value


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model of a server: `model` is its name in requests, `answering` its name in answers.

    Every request has the `settings`, such as the adapters of llama.cpp.
    """

    connection: Connection
    model: str
    settings: Mapping[str, object] = field(default_factory=dict)
    answering: set[object] = field(default_factory=set, compare=False)
    applied: tuple[str, ...] = ()
    """Adapters of llama.cpp that it applies to requests that name none."""
    is_vllm: bool = False

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

        named = {"model": self.model, **body, **self.settings}
        return await self.connection.request(client, address, named, parse, place or about)

    def _check_model(self, name: object) -> None:
        """`RequestError` if an answer comes from another model than the answers before.

        A warning if the first one names another model than was asked for. A path's last part is enough.
        """
        if not isinstance(name, str):
            return
        if not self.answering and Path(name).name != Path(self.model).name:
            warn_once(
                f"{self.connection.url}: asked for {show_value(self.model)}, it answers as "
                f"{show_value(name)}: check that it serves the right model"
            )
        self.answering.add(name)
        if len(self.answering) > 1:
            names = " and ".join(sorted(map(show_value, self.answering)))
            raise RequestError(
                f"{self.connection.url}: it answers as {names}: its model changed. Serve the first one; "
                f"{self.connection.again}"
            )


def any_json(data: bytes) -> Any:
    """Parse JSON of any kind. `ValueError` if the data is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        kind = "no JSON"
        if data.lstrip().lower().startswith(HTML):
            kind += ", but HTML"
        raise ValueError(f"{kind}: {data[:60]!r}") from error


def get(connection: Connection, address: str, read: Callable[[bytes], Any] = json_object) -> Any:
    """Get an address's JSON; None if the server does not offer it. `RequestError` if it wants another key."""
    try:
        return _get_readable(connection, address, read)
    except UnreadableError:  # such as a page of HTML for every address that it does not have
        return None


def _get_readable(connection: Connection, address: str, read: Callable[[bytes], Any]) -> Any:
    """Do the same as `get`. `UnreadableError` if the server answers something else."""
    place = address.removeprefix(connection.root)
    try:
        return connection.once(lambda client: connection.request(client, address, None, read, place))
    except RefusedError as error:
        if error.is_of_all_requests:
            raise RequestError(f"{address}: {error}") from error
        return None


def _models(connection: Connection) -> list[dict[str, Any]]:
    """Entries of the server's list of models. `UnreadableError` if the server answers no JSON object."""
    address = f"{connection.url}/models"
    listed = _get_readable(connection, address, json_object) or {}
    entries = listed.get("data")
    if not isinstance(entries, list):
        return []
    models = [entry for entry in entries if isinstance(entry, dict)]
    for model in models:
        name = model.get("id")
        if isinstance(name, str) and writable(name) != name:
            raise RequestError(
                f"{connection.url}: /models lists an id that is no text: {show_value(name)}. Serve the model "
                "under another name"
            )
    return models


def writable(text: str) -> str:
    """Replace halves of characters: JSON can have them, a file cannot."""
    return text.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model or an adapter that requests can name.

    `scale` and `number` belong to llama.cpp's adapters: the scale for requests that name none, and the id.
    """

    name: str
    path: str | None
    is_adapter: bool
    scale: float | None = None
    number: int | None = None

    @property
    def names(self) -> list[str]:
        """The name, and for a file or folder its own, with and without `.gguf`. The best match is first."""
        file_name = Path(self.name).name
        return [self.name, file_name, file_name.removesuffix(GGUF)]

    @property
    def settings(self) -> dict[str, object]:
        """What a request to llama.cpp needs to get this adapter at scale 1, and no other one."""
        return {"lora": [{"id": self.number, "scale": 1.0}]}


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What a server reports of itself, read once.

    `props` is llama.cpp's, None for other servers. `models` are the entries of /models, and
    `models_problem` is what the server answers instead of such a list. `adapters` are llama.cpp's.
    """

    connection: Connection
    props: Mapping[str, Any] | None
    models: Sequence[Mapping[str, Any]]
    models_problem: str
    adapters: Sequence[OfferedModel]

    @property
    def names(self) -> list[str]:
        """Names of the models in /models."""
        return [entry["id"] for entry in self.models if isinstance(entry.get("id"), str)]

    def entry(self, model: str) -> Mapping[str, Any]:
        """The model's entry in /models, {} if there is none."""
        for entry in self.models:
            if entry.get("id") == model:
                return entry
        return {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """llama.cpp's settings for requests that name none, {} for other servers."""
        settings = (self.props or {}).get("default_generation_settings")
        return settings if isinstance(settings, dict) else {}

    @property
    def slots(self) -> int | None:
        """The requests that llama.cpp answers at the same time."""
        return _positive((self.props or {}).get("total_slots"))

    def context(self, model: str) -> int | None:
        """Tokens of a request. None if the server does not report them."""
        if self.props is not None:
            return _positive(self.settings.get("n_ctx"))
        entry = self.entry(model)
        if isinstance(entry.get("parent"), str):  # vLLM lists the context with an adapter's base alone
            entry = self.entry(entry["parent"])
        return _positive(entry.get("max_model_len"))


def _positive(value: object) -> int | None:
    """A number above 0, None for anything else."""
    return value if type(value) is int and value > 0 else None


def read_report(connection: Connection, *, asks_props: bool = True) -> ServerReport:
    """Ask a server what it is. `asks_props` is for servers that may be llama.cpp. Errors as in `get`."""
    props = get(connection, f"{connection.root}/props") if asks_props else None
    if props is not None and "default_generation_settings" not in props:  # another server's
        props = None
    models_problem = ""
    try:
        models = _models(connection)
    except UnreadableError as error:
        models, models_problem = [], error.problem
    adapters = offered_adapters(connection) if props is not None else []
    return ServerReport(connection, props, models, models_problem, adapters)


def find_endpoint(report: ServerReport, name: str, is_exact_name: bool) -> Endpoint:
    """Find a model on a server, or an adapter of llama.cpp. `RequestError` if there is none of this name.

    Unless `is_exact_name`, the server's only model may have another name. A llama.cpp server that has
    adapters must read every prompt anew: it would reuse states of a prompt that it read with other adapters.
    """
    connection = report.connection
    if report.slots is not None:
        connection = replace(connection, at_once=report.slots)
    if not name and not report.models:
        if report.models_problem:
            raise RequestError(
                f"{connection.url}: /models gives {report.models_problem}. Is --url the server's address "
                "before /chat/completions, such as http://localhost:8000/v1?"
            )
        raise RequestError(f"{connection.url}: it lists no models: name one with --served-model NAME")
    settings: dict[str, object] = {}
    if report.adapters:
        settings["cache_prompt"] = False
    for adapter in report.adapters:
        if is_exact_name and name not in report.names and name in adapter.names:
            model = served_name(report, "", is_exact_name=False)
            return Endpoint(connection, model, {**settings, **adapter.settings})
    model = served_name(report, name, is_exact_name)
    applied = []
    for adapter in report.adapters:
        is_named = is_exact_name and name in adapter.names
        if adapter.scale and not is_named:
            applied.append(adapter.name)
    is_vllm = report.entry(model).get("owned_by") == OWNER_VLLM
    return Endpoint(connection, model, settings, applied=tuple(applied), is_vllm=is_vllm)


def offered_adapters(connection: Connection) -> list[OfferedModel]:
    """The adapters of llama.cpp, each by the name of its file, or by its path if two have the same name."""
    address = f"{connection.root}/lora-adapters"
    listed = get(connection, address, any_json)
    if listed is None:
        return []
    offers = []
    try:
        names = [Path(adapter["path"]).name.removesuffix(GGUF) for adapter in listed]
        for adapter, name in zip(listed, names, strict=True):
            if names.count(name) > 1:
                name = adapter["path"]
            scale, number = float(adapter["scale"]), int(adapter["id"])
            offers.append(OfferedModel(name, adapter["path"], True, scale, number))
    except (LookupError, TypeError, ValueError) as error:
        raise RequestError(f"{address}: expected a list of adapters, found {show_value(listed)}") from error
    return offers


def served_name(report: ServerReport, name: str, is_exact_name: bool) -> str:
    """Name of the model in requests: `name` if the server has it, otherwise its only model."""
    names = report.names
    if name in names or not names:
        return name
    if len(names) == 1 and not is_exact_name:
        return names[0]
    names += [adapter.name for adapter in report.adapters]
    listed = ", ".join(map(show_value, names[:SHOWN_NAMES]))
    if len(names) > SHOWN_NAMES:
        listed += f" and {len(names) - SHOWN_NAMES} more"
    problem = f"no model {name!r}; it" if name else "it"
    fix = "Name one of them in --served-model" if is_exact_name else "Add --served-model NAME"
    raise RequestError(f"{report.connection.url}: {problem} has {listed}. {fix}")
