"""The file of an OFT adapter: the rotation of each module, and the weights that can take it."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from tuneyard.core.errors import ContentError
from tuneyard.core.files import Fields
from tuneyard.core.language.message import _, relative
from tuneyard.core.weights.adapter_files import PREFIX, Shape, no_module
from tuneyard.core.weights.tensors import Weights

ROTATION = ".oft_R.weight"  # upper triangles [blocks, size·(size − 1)/2], one tensor for each module


class Rotation(NamedTuple):
    """One module of an OFT adapter: rotations of its inputs, `size` of them together.

    The file has one rotation for each of `blocks` groups of inputs, or one for all groups (`shared`).
    """

    blocks: int
    size: int
    shared: bool

    def mismatch(self, path: str, shape: Shape | None, model: object) -> str:
        """See `ChangedModule`."""
        if shape is None:
            return no_module(path, model)
        if len(shape) != 2:
            return _(
                "{path}: {model} has shape {shape}, expected a matrix (no convolutions)",
                path=path,
                model=model,
                shape=list(shape),
            )
        inputs = shape[1]
        fits = inputs == self.blocks * self.size
        expected = f"{self.blocks} × {self.size}"
        if self.shared:
            fits = inputs % self.size == 0
            expected = _("a multiple of {size}", size=self.size)
        if fits:
            return ""
        return _(
            "{path}: made for {expected} inputs, {model} has {inputs}: another base? Name its own",
            path=path,
            expected=expected,
            model=model,
            inputs=inputs,
        )


def rotated_modules(weights: Weights, config: Fields) -> Iterator[tuple[str, Rotation]]:
    """The rotation of every module; `ContentError` for shapes that are no triangles.

    `config` is the adapter's adapter_config.json.
    """
    for key, tensor in weights.tensors.items():
        if not key.endswith(ROTATION):
            continue
        where = f"{relative(weights.path)}: {key}"
        if len(tensor.shape) != 2:
            raise ContentError(
                _(
                    "{place}: shape {shape}, expected [blocks, elements]",
                    place=where,
                    shape=list(tensor.shape),
                )
            )
        blocks, elements = tensor.shape
        size = (1 + math.isqrt(1 + 8 * elements)) // 2
        if size * (size - 1) // 2 != elements:
            raise ContentError(
                _(
                    "{place}: {elements} elements, not the triangle of a square matrix",
                    place=where,
                    elements=elements,
                )
            )
        shared = config.get("block_share") is True
        yield key.removeprefix(PREFIX).removesuffix(ROTATION), Rotation(blocks, size, shared)
