"""What `adapter show` knows of an adapter: its file, its modules, their norms and spectra."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModuleStatistics:
    """One module: its place, the sizes of its factors, and the norm and spectrum of its ΔW.

    The effective rank is exp of the entropy of the normalised singular values (Roy and Vetterli 2007). For a
    DoRA module norm and spectrum describe s·B·A, since the rescaled ΔW needs the base; `magnitude` is the
    range (smallest, largest) of its row norms.
    """

    path: str
    layer: int | None
    target: str
    kind: str
    outputs: int
    inputs: int
    rank: int
    scale: float
    norm: float
    effective_rank: float
    singular_values: list[float]
    magnitude: tuple[float, float] | None = None

    @property
    def parameters(self) -> int:
        """Elements of A and B."""
        return self.rank * (self.outputs + self.inputs)


@dataclass(frozen=True, slots=True)
class RotationStatistics:
    """One module of an OFT adapter: R as its file has it, `blocks` of `block_size` inputs.

    `norm` is ‖R − I‖ (Frobenius), `angle` the largest angle by which R turns a vector, in degrees.
    `nonorthogonal` is ‖RᵀR − I‖, by which Cayley-Neumann misses a rotation.
    """

    path: str
    layer: int | None
    target: str
    blocks: int
    block_size: int
    parameters: int
    norm: float
    angle: float
    nonorthogonal: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values in even bins from −`reach` to `reach`. The outer bins include all values beyond."""

    target: str
    side: str
    reach: float
    counts: list[int]


@dataclass(frozen=True, slots=True)
class AdapterStatistics:
    """One adapter: its adapter_config.json (`config`), its modules and their totals.

    `bytes` is the size of the weights file, `norm` ‖ΔW‖ (Frobenius) over all modules, `parameters` the number
    of elements of all factors or triangles. `made_of` is the merge.json of a merged adapter. An OFT adapter
    has `rotations` and no `modules`; its ΔW needs the base, so `norm` is 0.
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
    modules: list[ModuleStatistics]
    parameters: int
    norm: float
    histograms: list[Histogram]
    made_of: dict[str, Any] | None = None
    rotations: list[RotationStatistics] = field(default_factory=list)
