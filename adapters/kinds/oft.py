"""OFT: each group of a weight's inputs is rotated, x → x·R, which is the change W → W·Rᵀ of the weight.

Qiu et al. 2023, arXiv:2306.07280, as PEFT 0.18.1 computes it (tuners/oft/layer.py). R is block-diagonal. A
block comes from the skew matrix Q of which the file has the upper triangle: Cayley's (I − Q)(I + Q)⁻¹, or the
first terms of a series for (I + Q)(I − Q)⁻¹ (Cayley-Neumann, PEFT's default), which is nearly a rotation.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.model.adapter import (
    Adapter,
    AdapterConfig,
    ModuleStatistics,
    checked_fields,
    layer_of,
    span,
    wrong_numbers,
)
from tuneyard.adapters.model.change import Change, Places
from tuneyard.adapters.model.lowrank import Matrix
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.language.message import _, tr
from tuneyard.core.weights.adapter_files import CONFIG, PREFIX
from tuneyard.core.weights.base_compatibility import stored_shape
from tuneyard.core.weights.base_models import Base
from tuneyard.core.weights.oft_rotations import ROTATION, Rotation, rotated_modules
from tuneyard.core.weights.tensors import Array, Tensor

KNOWN = {
    "bias", "block_share", "coft", "eps", "exclude_modules", "layers_pattern", "layers_to_transform",
    "modules_to_save", "num_cayley_neumann_terms", "oft_block_size", "r", "target_modules",
    "use_cayley_neumann",
    # no influence on the rotation once an adapter is trained
    "auto_mapping", "base_model_name_or_path", "inference_mode", "init_weights", "module_dropout",
    "peft_type", "peft_version", "revision", "task_type",
}  # fmt: skip
NEUMANN_SINCE = (0, 18)  # PEFT's version that gave the series of Cayley-Neumann its present terms


@dataclass(frozen=True, slots=True, kw_only=True)
class OftConfig(AdapterConfig):
    """The config of an OFT adapter. `terms` counts the terms of Cayley-Neumann; 0: Cayley's exact form.

    `largest_skew` limits the norm of the skew matrices in constrained OFT (`coft`), before it is divided by
    the root of the number of blocks. It is None without `coft`.
    """

    blocks: int
    block_size: int
    terms: int
    largest_skew: float | None

    def size_of(self, inputs: int) -> int:
        """Size of the blocks for a weight with this many inputs.

        PEFT takes the divisor of `inputs` that is nearest to the size, or to the number of blocks.
        """
        if self.block_size:
            return _nearest_divisor(inputs, self.block_size)
        return inputs // _nearest_divisor(inputs, self.blocks)


@dataclass(frozen=True, slots=True)
class RotationStatistics(ModuleStatistics):
    """One module of an OFT adapter: R as its file has it, `blocks` of `block_size` inputs.

    `norm` is ‖R − I‖ (Frobenius), `angle` the largest angle by which R turns a vector, in degrees.
    `nonorthogonal` is ‖RᵀR − I‖, by which Cayley-Neumann misses a rotation.
    """

    blocks: int
    block_size: int
    norm: float
    angle: float
    nonorthogonal: float


@dataclass(frozen=True)
class OftAdapter(Adapter):
    """An OFT adapter."""

    config: OftConfig
    modules: dict[str, Rotation]

    NOT_MERGED = _(
        'peft_type "OFT": OFT multiplies the base weights by a rotation, so its change is not a sum of B·A '
        "(to merge adapters, train LoRA)"
    )
    NOT_DRAWN = _("--plot draws factors B·A, and OFT has none")
    HAS_RANKS = False
    TENSORS = _("OFT rotations")
    SUFFIXES = (ROTATION,)
    TAG = "oft"
    CHANGE = "with each weight rotated, W·Rᵀ (OFT)"
    read_modules = staticmethod(rotated_modules)
    SETTINGS: ClassVar[Sequence[tuple[str, str]]] = (
        (_("type"), "peft_type"), (_("task"), "task_type"), (_("block size"), "oft_block_size"),
        (_("dropout"), "module_dropout"), (_("bias"), "bias"), (_("target modules"), "target_modules"),
        ("block_share", "block_share"), ("coft", "coft"), ("use_cayley_neumann", "use_cayley_neumann"),
    )  # fmt: skip
    COLUMNS: ClassVar[Sequence[str]] = (
        _("target"), _("modules"), _("blocks"), _("block size"), _("parameters"), _("norm of R − I"),
        _("largest angle"),
        _("norm of RᵀR − I"),
    )  # fmt: skip

    @staticmethod
    def recognises(raw: Mapping[str, Any]) -> bool:
        """See `Adapter`."""
        return raw.get("peft_type") == "OFT"

    @staticmethod
    def read_config(path: Path, raw: dict[str, Any]) -> OftConfig:
        """See `Adapter`."""
        shared = checked_fields(path, raw, _formula_problems(raw), KNOWN, ("coft", "block_share"))
        return OftConfig(
            **shared,
            blocks=raw.get("r") or 0,
            block_size=raw["oft_block_size"] or 0,
            terms=raw["num_cayley_neumann_terms"] if raw["use_cayley_neumann"] else 0,
            largest_skew=raw["eps"] if raw.get("coft") else None,
        )

    def check_weight(self, weight: float, *, alone: bool) -> None:
        """See `Adapter`."""
        if weight != 1:
            raise ContentError(
                _(
                    "{name}: weight {weight:g}, expected 1: part of a rotation is not a rotation. To "
                    "weigh adapters, train LoRA",
                    name=self.name,
                    weight=weight,
                )
            )
        if not alone:
            raise ContentError(
                _(
                    "{name}: OFT rotates the base weights, and a rotation cannot be added to other "
                    "adapters. Fuse it alone; to add adapters, train LoRA",
                    name=self.name,
                )
            )

    def mismatches(self) -> Iterator[str]:
        """See `Adapter`."""
        for path, rotation in self.modules.items():
            if rotation.shared and rotation.blocks > 1:
                yield _(
                    "{path}: {blocks} blocks, but {config} sets block_share: expected 1",
                    path=path,
                    blocks=rotation.blocks,
                    config=CONFIG,
                )

    def misfits(self, base: Base) -> Iterator[str]:
        """See `Adapter`."""
        yield from super().misfits(base)
        for path, rotation in self.modules.items():
            shape = stored_shape(base, f"{path}.weight")
            if shape and len(shape) == 2:
                size = self.config.size_of(shape[1])
                if rotation.size != size:
                    yield _(
                        "{path}: blocks of size {size}, but {config} gives it {expected}",
                        path=path,
                        size=rotation.size,
                        config=CONFIG,
                        expected=size,
                    )

    def change(self, weight: float, path: str, source: Tensor, base_as: str | None) -> Change:  # noqa: ARG002
        """See `Adapter`."""
        return Rotated(self.rotation_minus_identity(path))

    def rotation_minus_identity(self, path: str) -> Matrix:
        """R − I of a module, block by block [blocks, size, size], in fp64."""
        skew = self.skew_matrices(path)
        terms = self.config.terms
        if not terms:
            identity = np.eye(skew.shape[1])
            return np.asarray(-2 * np.linalg.solve(identity + skew, skew))
        # PEFT adds 2·Q + 2·Q² + … and counts the last power once. 3 and 4 terms are the same there.
        change = np.zeros_like(skew)
        if terms > 1:
            change += 2 * skew
        if terms > 2:
            power = skew @ skew
            change += 2 * power
            for _unused in range(3, terms - 1):
                power = power @ skew
                change += 2 * power
            change += power @ skew
        return change

    def skew_matrices(self, path: str) -> Matrix:
        """The skew matrices Q of a module [blocks, size, size], in fp64.

        Constrained OFT shrinks larger ones, at each step before it uses them. The last step is saved as it
        was.
        """
        rotation, largest = self.modules[path], self.config.largest_skew
        above = np.zeros((rotation.blocks, rotation.size, rotation.size))
        rows, columns = np.triu_indices(rotation.size, 1)
        above[:, rows, columns] = self.weights.read(f"{PREFIX}{path}{ROTATION}")
        skew = above - above.transpose(0, 2, 1)
        if largest is not None:
            limit = largest / np.sqrt(rotation.blocks)
            norms = np.linalg.norm(skew, axis=(1, 2), keepdims=True)
            skew *= np.divide(limit, norms, out=np.ones_like(norms), where=norms > limit)
        return np.asarray(skew)

    def is_zero(self, path: str, base: Base | None) -> bool:  # noqa: ARG002  # the same on any base
        """See `Adapter`."""
        return not self.weights.read(f"{PREFIX}{path}{ROTATION}").any()

    def measure(self, path: str) -> RotationStatistics:
        """See `Adapter`."""
        rotation = self.modules[path]
        change = self.rotation_minus_identity(path)
        deviation = change + change.transpose(0, 2, 1) + change.transpose(0, 2, 1) @ change
        eigenvalues = np.linalg.eigvals(change + np.eye(rotation.size))
        return RotationStatistics(
            path,
            layer_of(path),
            path.rpartition(".")[2],
            rotation.blocks * rotation.size * (rotation.size - 1) // 2,
            rotation.blocks,
            rotation.size,
            norm=float(np.linalg.norm(change)),
            angle=float(np.degrees(np.abs(np.angle(eigenvalues)).max())),
            nonorthogonal=float(np.linalg.norm(deviation)),
        )

    @staticmethod
    def remark(modules: Sequence[RotationStatistics]) -> str:  # noqa: ARG004  # as `Adapter` has it
        """See `Adapter`."""
        return tr("OFT: weights become W·Rᵀ. ΔW needs the base (`tuneyard adapter fuse` is exact).")

    @staticmethod
    def rows(modules: Sequence[RotationStatistics]) -> list[list[str]]:
        """See `Adapter`. A row has the modules of one target, number of blocks and size."""
        groups: dict[tuple[str, int, int], list[RotationStatistics]] = {}
        for rotation in modules:
            key = rotation.target, rotation.blocks, rotation.block_size
            groups.setdefault(key, []).append(rotation)
        rows = []
        for (target, blocks, block_size), group in groups.items():
            rows.append(
                [
                    target,
                    str(len(group)),
                    str(blocks),
                    str(block_size),
                    f"{sum(rotation.parameters for rotation in group):,}",
                    span([rotation.norm for rotation in group]),
                    f"{max(rotation.angle for rotation in group):.1f}°",
                    f"{max(rotation.nonorthogonal for rotation in group):.1e}",
                ]
            )
        return rows


@dataclass(frozen=True, slots=True)
class Rotated:
    """ΔW = W·(R − I)ᵀ. `blocks` are those of R − I [blocks, size, size], only one if it is for all inputs."""

    blocks: Matrix

    def rows(self, first: int, base: Array, kind: str) -> NDArray[np.floating]:  # noqa: ARG002  # as `Change`
        """See `Change`."""
        size = self.blocks.shape[1]
        groups = base.astype(kind, copy=False).reshape(len(base), -1, size).transpose(1, 0, 2)
        changes = groups @ self.blocks.astype(kind).transpose(0, 2, 1)
        return np.asarray(changes.transpose(1, 0, 2).reshape(base.shape))

    def exact(self, first: int, base: Array, places: Places) -> Matrix:
        """See `Change`."""
        return np.asarray(self.rows(first, base, "float64")[places])


def _formula_problems(raw: dict[str, Any]) -> Iterator[str]:
    """Yield why the trained rotations are unknown."""
    if "oft_block_size" not in raw:
        yield "no oft_block_size: PEFT before 0.14 wrote it, with other rotations; train again"
    if not isinstance(raw.get("use_cayley_neumann"), bool):
        value = show_value(raw.get("use_cayley_neumann"))
        yield _(
            "use_cayley_neumann {value}: expected true or false; which rotation was trained is unknown",
            value=value,
        )
    version = re.match(r"(\d+)\.(\d+)", str(raw.get("peft_version") or "0.0"))
    if raw.get("use_cayley_neumann") and (
        version is None or tuple(map(int, version.groups())) < NEUMANN_SINCE
    ):
        yield _(
            "use_cayley_neumann with peft_version {version}: PEFT 0.18 changed the series, "
            "so this rotation is another one there; train again with PEFT 0.18 or later",
            version=show_value(raw.get("peft_version")),
        )
    if raw.get("bias", "none") != "none":
        yield _(
            "bias {bias}: PEFT trains biases with OFT and never writes them, so that the "
            "training cannot be reproduced",
            bias=show_value(raw["bias"]),
        )
    blocks, block_size = raw.get("r"), raw.get("oft_block_size")
    if blocks and block_size:
        yield _(
            "r {blocks} and oft_block_size {block_size}: expected one of them",
            blocks=show_value(blocks),
            block_size=show_value(block_size),
        )
    whole = {"oft_block_size": block_size} if block_size else {"r": blocks}
    if raw.get("use_cayley_neumann"):
        whole["num_cayley_neumann_terms"] = raw.get("num_cayley_neumann_terms")
    yield from wrong_numbers(whole, whole=True)
    if raw.get("coft"):
        yield from wrong_numbers({"eps": raw.get("eps")}, whole=False)


def _nearest_divisor(inputs: int, number: int) -> int:
    """The divisor of `inputs` that is nearest to `number`, the smaller of two."""
    divisors = [divisor for divisor in range(1, inputs + 1) if inputs % divisor == 0]
    return min(divisors, key=lambda divisor: abs(divisor - number))
