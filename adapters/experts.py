"""LoRA on bare parameters, the experts of MoE layers (PEFT's `target_parameters`).

PEFT 0.18.1 (tuners/lora/layer.py, ParamWrapper) gives a parameter [experts, rows, columns] the factors
A [r·experts, rows] and B [columns, r·experts]. ΔW of expert e is s·(B_e·A_e)ᵀ, where A_e is the e-th block of
r rows of A, and B_e has column i·experts + e of B for i < r. Several parameters of one module have nested
wrappers whose names do not name the parameter. The shapes identify it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.delta import Change, Places, Product
from tuneyard.adapters.lowrank import Factor, Matrix
from tuneyard.adapters.store import Adapter, factors_by_expert, unwrapped
from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core.errors import ContentError
from tuneyard.core.weights.base_models import Base
from tuneyard.core.weights.tensors import Array

# Checkpoints may store a parameter expert by expert: the last parts of the names, in the order of their rows
# (transformers' conversion_mapping.py; Mixtral and models like it use w1, w3, w2).
BY_EXPERT = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
    "up_proj": (("up_proj",),),
}
OLDER_MODULES = {".mlp.experts": ".block_sparse_moe.experts"}  # Mixtral's name in its checkpoints


@dataclass(frozen=True, slots=True)
class ParameterSlice:
    """The place of a stored tensor in a parameter: rows of one expert, or all of it (`expert` None)."""

    stored: str
    expert: int | None
    first_row: int
    rows: int


@dataclass(frozen=True, slots=True)
class ExpertParameter:
    """A bare parameter of the model [experts, rows, columns] and the stored tensors that contain it.

    A matrix has 0 experts: PEFT treats it as a linear layer's weight [rows, columns].
    """

    path: str
    experts: int
    rows: int
    columns: int
    slices: list[ParameterSlice]


@dataclass(frozen=True, slots=True)
class ExpertFactors:
    """An adapter's factors of one parameter, at `wrapper` in its file."""

    item: WeightedAdapter
    wrapper: str
    parameter: ExpertParameter
    part: ParameterSlice

    def change(self) -> Change:
        """ΔW of the stored tensor, times the adapter's weight and scale."""
        adapter = self.item.adapter
        a, b = adapter.factors(self.wrapper)
        scaled = b.astype(np.float64) * (self.item.weight * adapter.lora.scale_of(self.parameter.path))
        experts = self.parameter.experts
        if not experts:
            return Product(scaled, a)
        pairs = list(factors_by_expert(a, scaled, experts))
        if self.part.expert is None:
            return EveryExpert(pairs)
        down, up = pairs[self.part.expert]
        first = self.part.first_row
        return Product(down[:, first : first + self.part.rows].T, up.T)


class EveryExpert:
    """ΔW of a parameter stored as one tensor: a row of the stored matrix is a whole expert, flattened.

    `pairs` are each expert's A [r, rows] and B [columns, r], scaled.
    """

    def __init__(self, pairs: list[tuple[Factor, Factor]]) -> None:
        self.downs = np.stack([down for down, _ in pairs])
        self.ups = np.stack([up for _, up in pairs])

    def rows(self, first: int, base: Array, kind: str) -> NDArray[np.floating]:
        """See `adapters.delta.Change`."""
        changes = []
        for expert in range(first, first + len(base)):
            change = self.downs[expert].T.astype(kind) @ self.ups[expert].T.astype(kind)
            changes.append(change.reshape(-1))
        return np.stack(changes)

    def exact(self, first: int, base: Array, places: Places) -> Matrix:  # noqa: ARG002  # as `Change` has it
        """See `adapters.delta.Change`."""
        experts = first + places[0]
        rows, columns = np.divmod(places[1], self.ups.shape[1])
        left = self.downs[experts, :, rows].astype(np.float64)
        right = self.ups[experts, columns].astype(np.float64)
        return np.asarray(np.einsum("ij,ij->i", left, right))


def plan_experts(weighted: Iterable[WeightedAdapter], base: Base) -> dict[str, list[ExpertFactors]]:
    """List by stored tensor the expert factors that change it.

    `ContentError` if the base lacks a parameter, or if its shape fits none of the factors.
    """
    planned: dict[str, list[ExpertFactors]] = {}
    for item in weighted:
        wrappers_by_module: dict[str, list[str]] = {}
        for wrapper in item.adapter.parameters:
            wrappers_by_module.setdefault(unwrapped(wrapper), []).append(wrapper)
        for module, wrappers in wrappers_by_module.items():
            for wrapper, parameter in _match_parameters(item.adapter, module, wrappers, base):
                for part in parameter.slices:
                    factors = ExpertFactors(item, wrapper, parameter, part)
                    planned.setdefault(part.stored, []).append(factors)
    return planned


def _match_parameters(
    adapter: Adapter, module: str, wrappers: list[str], base: Base
) -> Iterator[tuple[str, ExpertParameter]]:
    """Pair each wrapper of a module with the one parameter whose shape fits its factors."""
    where = f"{adapter.weights.path}: {module}"
    parameters = []
    for name in adapter.lora.parameters_of(module):
        parameter = _find_parameter(f"{module}.{name}", base)
        if parameter is None:
            raise ContentError(f"{where}: {base.folder} has no parameter {name!r} there: another base?")
        parameters.append(parameter)
    for wrapper in wrappers:
        factors = adapter.parameters[wrapper]
        fitting = []
        for parameter in parameters:
            # A linear layer's weight [rows, columns] maps columns to rows; PEFT takes experts transposed.
            expected = parameter.columns, parameter.rows, adapter.lora.rank
            if parameter.experts:
                expected = parameter.rows, parameter.columns, adapter.lora.rank * parameter.experts
            if (factors.inputs, factors.outputs, factors.rank) == expected:
                fitting.append(parameter)
        if len(fitting) != 1:
            shapes = ", ".join(f"{one.path} {one.experts}×{one.rows}×{one.columns}" for one in parameters)
            sizes = f"A [{factors.rank}, {factors.inputs}] and B [{factors.outputs}, {factors.rank}]"
            raise ContentError(
                f"{where}: {len(fitting)} parameters fit the factors {sizes} of {wrapper}, expected one of: "
                f"{shapes}"
            )
        parameters.remove(fitting[0])
        yield wrapper, fitting[0]
    if parameters:
        raise ContentError(f"{where}: the factors of {parameters[0].path} are missing")


def _find_parameter(path: str, base: Base) -> ExpertParameter | None:
    """Find a parameter of the model among the stored tensors, whole or expert by expert."""
    stored = base.find(path)
    if stored is not None:
        shape = base.tensors[stored].shape
        if len(shape) == 3:
            return ExpertParameter(path, *shape, [ParameterSlice(stored, None, 0, shape[1])])
        if len(shape) == 2:
            return ExpertParameter(path, 0, *shape, [ParameterSlice(stored, None, 0, shape[0])])
        return None
    module, _, name = path.rpartition(".")
    folders = [module]
    for new, old in OLDER_MODULES.items():
        if module.endswith(new):
            folders.append(module.removesuffix(new) + old)
    for folder in folders:
        for leaves in BY_EXPERT.get(name, ()):
            slices = list(_slices(folder, leaves, base))
            if slices:
                columns = base.tensors[slices[0].stored].shape[1]
                experts = len(slices) // len(leaves)
                rows = sum(part.rows for part in slices[: len(leaves)])
                return ExpertParameter(path, experts, rows, columns, slices)
    return None


def _slices(folder: str, leaves: tuple[str, ...], base: Base) -> Iterator[ParameterSlice]:
    """The matrices `FOLDER.0.LEAF.weight`, `FOLDER.1.LEAF.weight` … until an expert is missing."""
    expert = 0
    while True:
        first = 0
        for leaf in leaves:
            name = base.find(f"{folder}.{expert}.{leaf}.weight")
            if name is None or len(base.tensors[name].shape) != 2:
                return
            rows = base.tensors[name].shape[0]
            yield ParameterSlice(name, expert, first, rows)
            first += rows
        expert += 1
