"""A server's models, and the adapters of llama.cpp. One record has all that it reports."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuneyard.core.errors import RequestError, show_value
from tuneyard.core.language.message import _
from tuneyard.eval.models.connection import (
    Connection,
    RefusedError,
    ServerJson,
    UnreadableError,
)

GGUF = ".gguf"
LLAMA_CPP, VLLM = "llama.cpp", "vLLM"
OWNER_VLLM = "vllm"  # of the models that vLLM lists
SHOWN_NAMES = 10


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model or an adapter of a server, and what the server reports of it: None or empty if it does not.

    - `model`: the name in requests. An adapter of llama.cpp has its own `name`, and its base's in requests.
    - `settings`: part of every request, such as the adapters of llama.cpp.
    - `number`, `scale`: an adapter of llama.cpp, and its scale for requests that name none.
    - `context`: tokens of a request. llama.cpp has it for each of its `slots`.
    - `sampling`: llama.cpp's settings for requests that name none: temperature, repeat_penalty and others.
    - `file_type`, `bits`: type of the weights in a GGUF, e.g. `Q8_0`, and bits a weight.
    - `identity`: what must stay the same during a run: the model, its size, its adapters. {}: not listed.
    """

    connection: Connection
    engine: str
    name: str
    model: str
    is_adapter: bool = False
    path: str | None = None
    number: int | None = None
    scale: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    version: str | None = None
    model_path: str | None = None
    context: int | None = None
    slots: int | None = None
    sampling: Mapping[str, object] = field(default_factory=dict)
    bos: str | None = None
    eos: str | None = None
    file_type: str | None = None
    bits: float | None = None
    identity: Mapping[str, object] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The name, and for a file or folder its own, with and without `.gguf`. The best match is first."""
        file_name = Path(self.name).name
        return [self.name, file_name, file_name.removesuffix(GGUF)]

    @property
    def offer(self) -> dict[str, object]:
        """How a client may ask for it, as prove.json has it."""
        return {name: getattr(self, name) for name in ("name", "path", "is_adapter", "scale", "number")}


def any_json(data: bytes) -> Any:
    """Parse JSON of any kind. `ValueError` if the data is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(_("no JSON: {data!r}", data=data[:60])) from error


def json_object(data: bytes) -> ServerJson:
    """Parse a JSON object. `ValueError` if the data is none."""
    value = any_json(data)
    if not isinstance(value, dict):
        raise ValueError(_("no JSON object: {data!r}", data=data[:60]))
    return value


def writable(text: str) -> str:
    """Replace halves of characters: JSON can have them, a file cannot."""
    return text.encode(errors="replace").decode()


def get(
    connection: Connection,
    address: str,
    read: Callable[[bytes], Any] = json_object,
    *,
    must_be_readable: bool = False,
) -> Any:
    """Get an address's JSON; None if the server does not offer it.

    `UnreadableError` if the answer `must_be_readable` and is not.
    """
    place = address.removeprefix(connection.root)
    try:
        return connection.once(lambda: connection.request(address, None, read, place))
    except UnreadableError:  # such as a page of HTML for every address that it does not have
        if must_be_readable:
            raise
    except RefusedError:
        pass
    return None


def read_models(connection: Connection, name: str, *, asks_props: bool = True) -> list[ServedModel]:
    """Ask a server for its models, llama.cpp's adapters last. Without a list it has the model `name`.

    `asks_props` is for servers that may be llama.cpp. `RequestError` if there is neither a list nor a name,
    or if the server wants another key.
    """
    props = get(connection, f"{connection.root}/props") if asks_props else None
    entries: list[ServerJson] = _entries(connection, name)
    settings = (props or {}).get("default_generation_settings")
    if props is not None and isinstance(settings, dict):
        return _of_llama_cpp(connection, name, props, settings, entries)
    return [_of_openai(connection, entry, entries) for entry in entries or [{"id": name}]]


def choose_model(models: Sequence[ServedModel], name: str, is_exact_name: bool) -> ServedModel:
    """Find a model or an adapter by its name. `RequestError` if there is none.

    Unless `is_exact_name`, the server's only model may have another name.
    """
    listed = [model for model in models if model.number is None]
    for model in listed:
        if model.name == name:
            return model
    for model in models:
        if is_exact_name and model.number is not None and name in model.names:
            return model
    if len(listed) == 1 and not is_exact_name:
        return listed[0]
    names = ", ".join(show_value(model.name) for model in models[:SHOWN_NAMES])
    url = models[0].connection.url
    problem = _("{url}: it has {names}", url=url, names=names)
    if name:
        problem = _("{url}: no model {name!r}; it has {names}", url=url, name=name, names=names)
    fix = _("Name one of them in --served-model") if is_exact_name else _("Add --served-model NAME")
    raise RequestError(_("{problem}. {fix}", problem=problem, fix=fix))


def _entries(connection: Connection, name: str) -> list[ServerJson]:
    """The models in /models. Without any, the model must have a `name`."""
    url = connection.url
    listed = get(connection, f"{url}/models", must_be_readable=not name) or {}
    data = listed.get("data")
    entries: list[ServerJson] = []
    for entry in data if isinstance(data, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            entries.append(entry)
            if writable(entry["id"]) != entry["id"]:
                raise RequestError(
                    _(
                        "{url}: /models lists an id that is no text: {entry}. Serve the model under another "
                        "name",
                        url=url,
                        entry=show_value(entry["id"]),
                    )
                )
    if not entries and not name:
        raise RequestError(_("{url}: it lists no models: name one with --served-model NAME", url=url))
    return entries


def _of_llama_cpp(
    connection: Connection,
    name: str,
    props: ServerJson,
    settings: ServerJson,
    entries: Sequence[ServerJson],
) -> list[ServedModel]:
    """The models of llama.cpp, then its adapters.

    Requests can change the adapters' scales, and a server that starts again can have another template. With
    adapters it must read every prompt anew: it would reuse states of a prompt that it read with others.
    """
    slots = _positive(props.get("total_slots"))
    if slots is not None:
        connection = replace(connection, at_once=slots)
    adapters = _adapters(connection)
    identity = {key: props.get(key) for key in ("model_path", "model_alias", "build_info", "chat_template")}
    identity["models"] = [entry.get("meta") for entry in entries]
    identity["adapters"] = adapters
    anew: dict[str, object] = {"cache_prompt": False} if adapters else {}
    models = []
    for entry in entries or [{"id": name}]:
        listed = _listed(connection, LLAMA_CPP, entry, identity)
        models.append(
            replace(
                listed,
                settings=anew,
                version=_text(props.get("build_info")),
                model_path=_text(props.get("model_path")) or listed.path,
                context=_positive(settings.get("n_ctx")),
                slots=slots,
                sampling=_object(settings.get("params")),
                bos=_text(props.get("bos_token")),
                eos=_text(props.get("eos_token")),
                file_type=_text(props.get("model_ftype")) or listed.file_type,
            )
        )
    for adapter in adapters:
        alone = [{"id": adapter["number"], "scale": 1.0}]
        models.append(replace(models[0], **adapter, settings={**anew, "lora": alone}))
    return models


def _adapters(connection: Connection) -> list[ServerJson]:
    """The adapters that llama.cpp lists, as `ServedModel.offer`. Two files of one name have their paths."""
    address = f"{connection.root}/lora-adapters"
    listed = get(connection, address, any_json) or ()
    offers: list[ServerJson] = []
    try:
        names = [Path(adapter["path"]).name.removesuffix(GGUF) for adapter in listed]
        for adapter, name in zip(listed, names, strict=True):
            if names.count(name) > 1:
                name = adapter["path"]
            offer = {
                "name": name,
                "path": adapter["path"],
                "is_adapter": True,
                "scale": float(adapter["scale"]),
                "number": int(adapter["id"]),
            }
            offers.append(offer)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise RequestError(
            _(
                "{address}: expected a list of adapters, found {listed}",
                address=address,
                listed=show_value(listed),
            )
        ) from error
    return offers


def _of_openai(connection: Connection, entry: ServerJson, entries: Sequence[ServerJson]) -> ServedModel:
    """A model that another server lists. vLLM names the parent of each adapter, and only its context."""
    parent = entry.get("parent")
    context = entry.get("max_model_len")
    for other in entries:
        if isinstance(parent, str) and other["id"] == parent:
            context = other.get("max_model_len")
    engine = "OpenAI-compatible server"
    owner = entry.get("owned_by")
    if owner == OWNER_VLLM:
        engine = VLLM
    elif owner and owner not in (LLAMA_CPP, VLLM):  # these names choose the requests
        engine = str(owner)
    identity = {}
    if entries:
        identity = {name: entry.get(name) for name in ("id", "root", "parent", "max_model_len", "meta")}
    model = _listed(connection, engine, entry, identity)
    return replace(model, is_adapter=isinstance(parent, str), context=_positive(context))


def _listed(
    connection: Connection, engine: str, entry: ServerJson, identity: Mapping[str, object]
) -> ServedModel:
    """A model by its entry in /models. llama.cpp's `meta` has the size in bytes and number of parameters."""
    name, root, meta = entry["id"], _text(entry.get("root")), _object(entry.get("meta"))
    size = _positive(meta.get("size"))
    parameters = _positive(meta.get("n_params"))
    return ServedModel(
        connection,
        engine,
        name,
        name,
        path=root,
        model_path=root,
        identity=identity,
        file_type=_text(meta.get("ftype")),
        bits=8 * size / parameters if size and parameters else None,
    )


def _positive(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _object(value: object) -> ServerJson:
    return value if isinstance(value, dict) else {}
