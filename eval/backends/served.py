"""What a server reports of itself: its engine, its model, and the models and adapters that it offers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneyard.eval.backends.endpoint import OWNER_VLLM, OfferedModel, ServerReport, get

LLAMA_CPP, VLLM = "llama.cpp", "vLLM"


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


def _bits(meta: Mapping[str, Any]) -> float | None:
    """Bits a weight, from llama.cpp's size in bytes and number of parameters."""
    size, parameters = meta.get("size"), meta.get("n_params")
    if type(size) is int and type(parameters) is int and parameters > 0:
        return 8 * size / parameters
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
