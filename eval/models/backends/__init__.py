"""The choices of `--backend`: each is a `BackendKind` in a file here.

Scoring asks its fields, never its name. Files here import nothing heavy: `--help` reads them all.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, joined
from tuneyard.core.plugins import bundled_with
from tuneyard.eval.models import Backend

if TYPE_CHECKING:
    from tuneyard.adapters.model.weighted import WeightedAdapter
    from tuneyard.core.execution import Executor
    from tuneyard.eval.models.server import Server

DEFAULT = "hf"


@dataclass(frozen=True, slots=True)
class ModelToLoad:
    """A base, the adapters of each candidate on it, and the options that say how it is loaded.

    `quantize`: bits of a weight. `batch_tokens`: tokens in a batch, None for the backend's own number.
    """

    folder: Path
    candidates: "Sequence[Sequence[WeightedAdapter]]"
    dtype: str | None = None
    quantize: int | None = None
    batch_tokens: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    workers: "Executor | None" = None
    """They load it in place of this process."""


@dataclass(frozen=True, slots=True)
class ServerToReach:
    """A server's address, the name of its model, and the longest wait in seconds."""

    url: str
    served_model: str | None
    model: str
    timeout: float | None


LoadModel = Callable[[ModelToLoad], Backend]
Connect = Callable[[ServerToReach], "Server"]


def _load_nothing(_model: ModelToLoad) -> Backend:
    raise Backend().needs_model()


@dataclass(frozen=True, slots=True)
class BackendKind:
    """A choice of `--backend`, explained by `help`: it can `load` a model here, or `connect` to a server."""

    name: str
    help: str = ""
    load: LoadModel = _load_nothing
    connect: Connect | None = None
    packages: tuple[str, ...] = ()
    """Packages besides torch and transformers whose versions the results depend on."""
    in_workers: bool = False
    """True if --workers and --ray divide the rows. The others answer many rows at once by themselves."""
    weights_adapters: bool = False
    """True if adapters can have weights, as a sweep changes them."""
    changes_weights: bool = False
    """True if it takes --quantize and --apply merged."""
    divides: bool = False
    """True if it takes --tensor-parallel and --pipeline-parallel."""
    reads_generation_config: bool = False
    """True if --preset can draw answers as the model's generation_config says."""
    gives_text_losses: bool = False
    """True if it gives the probability of each token of a text."""

    @property
    def is_server(self) -> bool:
        """True if the model is elsewhere: it may change, refuse rows, and has a chat template of its own."""
        return self.connect is not None


@functools.cache
def backend_kinds() -> dict[str, BackendKind]:
    """All backends by name: the default, the others that load a model here, then servers."""
    kinds: list[BackendKind] = bundled_with("tuneyard.eval.models.backends", BackendKind)
    kinds.sort(key=lambda kind: (kind.name != DEFAULT, kind.is_server, kind.name))
    return {kind.name: kind for kind in kinds}


def backend_kind(name: str) -> BackendKind:
    """The backend of this name. `RequestError` if there is none."""
    kinds = backend_kinds()
    if name not in kinds:
        raise RequestError(_("--backend {name!r}: expected one of {names}", name=name, names=joined(kinds)))
    return kinds[name]


def backends_help() -> str:
    """The help of `--backend`: each one's name with its explanation."""
    explained = [kind for kind in backend_kinds().values() if kind.help]
    return " ".join(f"{kind.name}: {kind.help}" for kind in explained)


def backend_packages() -> tuple[str, ...]:
    """The packages of all backends."""
    packages: dict[str, None] = {}
    for kind in backend_kinds().values():
        packages |= dict.fromkeys(kind.packages)
    return tuple(packages)
