"""DoRA: W' = m · (W + s·B·A) / ‖W + s·B·A‖, each output's row of W rescaled to the norm m.

Liu et al. 2024, arXiv:2402.09353, as PEFT 0.18.1 computes it (tuners/lora/dora.py). With ΔW = W' − W a DoRA
adapter can be added to a base like any other, but its ΔW needs the base's weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.model.change import Change, Places, Product, base_blocks
from tuneyard.adapters.model.lora import FactorStatistics, LoraAdapter
from tuneyard.adapters.model.lowrank import Matrix
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _, marked, tr
from tuneyard.core.weights.adapter_files import CONFIG, PREFIX
from tuneyard.core.weights.base_models import Base
from tuneyard.core.weights.tensors import Array, Tensor

BF16_ROUNDING = 2.0**-7  # of a magnitude that was computed and saved in bf16
MAGNITUDE = ".lora_magnitude_vector"  # m [outputs], one for each module


@dataclass(frozen=True, slots=True)
class DoraStatistics(FactorStatistics):
    """One module of a DoRA. Norm and spectrum are of s·B·A, since the rescaled ΔW needs the base.

    `magnitude` is the range (smallest, largest) of its row norms.
    """

    magnitude: tuple[float, float]


@dataclass(frozen=True)
class DoraAdapter(LoraAdapter):
    """A DoRA adapter: the factors of a LoRA, and the magnitudes m [outputs] of each module."""

    NOT_MERGED = _("use_dora true: DoRA rescales the base weights, so its change is not a sum of B·A")

    HAS_MAGNITUDES = True
    SUFFIXES = (*LoraAdapter.SUFFIXES, MAGNITUDE)

    @staticmethod
    def recognises(raw: Mapping[str, Any]) -> bool:
        """See `Adapter`."""
        return raw.get("peft_type") == "LORA" and bool(raw.get("use_dora"))

    def magnitude(self, module: str) -> Array:
        """The target norm m [outputs] of each row of W + s·B·A, as fp32."""
        return self.weights.read(f"{PREFIX}{module}{MAGNITUDE}")

    def mismatches(self) -> Iterator[str]:
        """See `Adapter`."""
        yield from super().mismatches()
        for path, module in self.modules.items():
            name = f"{PREFIX}{path}{MAGNITUDE}"
            magnitude = self.weights.tensors.get(name)
            if magnitude is None:
                yield _(
                    "{path}: {magnitude} is missing, but {config} sets use_dora",
                    path=path,
                    magnitude=MAGNITUDE.removeprefix("."),
                    config=CONFIG,
                )
            elif magnitude.shape != (module.outputs,):
                yield _(
                    "{name}: shape {shape}, expected [{outputs}]",
                    name=name,
                    shape=list(magnitude.shape),
                    outputs=module.outputs,
                )

    def is_zero(self, path: str, base: Base | None) -> bool:
        """See `Adapter`. Magnitudes start as the norms of the base's rows, rounded to bf16 at most.

        Without the base only B·A is checked.
        """
        if not super().is_zero(path, base):
            return False
        stored = base.find(f"{path}.weight") if base else None
        if base is None or stored is None:
            return True
        norms = np.sqrt(self._squares(path, base.tensors[stored], None))
        return np.allclose(self.magnitude(path), norms, rtol=BF16_ROUNDING, atol=0)

    def change(self, weight: float, path: str, source: Tensor, base_as: str | None) -> Change:
        """See `Adapter`. The gains come from the base's tensor, a block of rows at a time, in fp64.

        `ContentError` if a row of W + s·B·A is zero, which no magnitude can rescale.
        """
        product, module = self.product(1.0, path), self.modules[path]
        squares = self._squares(path, source, base_as)
        if not squares.all():
            number = int(np.argmin(squares))
            raise ContentError(
                _(
                    "{file}: tensor {name!r}: W + s·B·A is zero at output {number}: DoRA has no "
                    "direction to rescale there",
                    file=source.file,
                    name=source.name,
                    number=number,
                )
            )
        gains = self.magnitude(path).astype(np.float64) / np.sqrt(squares)
        if module.transposed:
            return Rescaled(product, gains[None, :], weight)
        return Rescaled(product, gains[:, None], weight)

    def _squares(self, path: str, source: Tensor, base_as: str | None) -> Matrix:
        """‖W + s·B·A‖² of each output's row [outputs], in fp64."""
        product, module = self.product(1.0, path), self.modules[path]
        squares = np.zeros(module.outputs)
        for first, base in base_blocks(source, base_as):
            total = base + product.rows(first, base, "float64")
            if module.transposed:
                squares += np.einsum("ij,ij->j", total, total)
            else:
                squares[first : first + len(base)] = np.einsum("ij,ij->i", total, total)
        return squares

    def measure(self, path: str) -> DoraStatistics:
        """See `Adapter`."""
        magnitude = self.magnitude(path)
        ends = float(magnitude.min()), float(magnitude.max())
        return DoraStatistics(**asdict(super().measure(path)), magnitude=ends)

    @staticmethod
    def remark(modules: Sequence[DoraStatistics]) -> str:
        """See `Adapter`."""
        sentence = marked(
            "DoRA: magnitudes from {low:.4g} to {high:.4g}. Norms and ranks below are of s·B·A. The whole "
            "ΔW needs the base (`tuneyard adapter fuse` is exact)."
        )
        low = min(module.magnitude[0] for module in modules)
        high = max(module.magnitude[1] for module in modules)
        return tr(sentence, low=low, high=high)


@dataclass(frozen=True, slots=True)
class Rescaled:
    """weight · (W' − W) = weight · ((g − 1)·W + g·P), where P = s·B·A and g = m / ‖W + P‖.

    `gains` g is [rows, 1], or [1, columns] if the stored weight is transposed (its outputs are columns).
    """

    product: Product
    gains: Matrix
    weight: float

    def rows(self, first: int, base: Array, kind: str) -> NDArray[np.floating]:
        """See `Change`."""
        gains = self._gains_of(first, len(base))
        base_factor = (self.weight * (gains - 1)).astype(kind)
        product_factor = (self.weight * gains).astype(kind)
        return np.asarray(base_factor * base + product_factor * self.product.rows(first, base, kind))

    def exact(self, first: int, base: Array, places: Places) -> Matrix:
        """See `Change`."""
        gains = np.broadcast_to(self._gains_of(first, len(base)), base.shape)[places]
        product = self.product.exact(first, base, places)
        return np.asarray(self.weight * ((gains - 1) * base[places].astype(np.float64) + gains * product))

    def _gains_of(self, first: int, count: int) -> Matrix:
        if self.gains.shape[0] == 1:
            return self.gains
        return self.gains[first : first + count]
