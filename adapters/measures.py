"""What `adapter show` knows of an adapter: its file, its modules, their norms and spectra."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar


@dataclass(frozen=True, slots=True)
class ModuleStatistics:
    """One module of any kind of adapter, and the number of elements that the adapter has for it."""

    path: str
    layer: int | None
    target: str
    parameters: int

    @property
    def change_norm(self) -> float | None:
        """‖ΔW‖ (Frobenius), None for a kind whose ΔW needs the base."""
        return None


M = TypeVar("M", bound=ModuleStatistics)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values in even bins from −`reach` to `reach`. The outer bins include all values beyond."""

    target: str
    side: str
    reach: float
    counts: list[int]


@dataclass(frozen=True, slots=True)
class AdapterStatistics(Generic[M]):
    """One adapter: its adapter_config.json (`config`), its modules and their totals.

    `bytes` is the size of the weights file, `norm` ‖ΔW‖ (Frobenius) over all modules or None if it needs the
    base, `parameters` the number of elements of all modules. `made_of` is the merge.json of a merged adapter.
    """

    name: str
    digest: str
    sha256: str
    base: str | None
    dtypes: list[str]
    tensors: int
    bytes: int
    full_tensors: list[str]
    config: dict[str, object]
    modules: list[M]
    parameters: int
    norm: float | None
    histograms: list[Histogram]
    made_of: dict[str, Any] | None = None
