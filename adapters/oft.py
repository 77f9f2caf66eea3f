"""OFT: each group of a weight's inputs is rotated, x → x·R, which is the change W → W·Rᵀ of the weight.

Qiu et al. 2023, arXiv:2306.07280, as PEFT 0.18.1 computes it (tuners/oft/layer.py). R is block-diagonal. A
block comes from the skew matrix Q of which the file has the upper triangle: Cayley's (I − Q)(I + Q)⁻¹, or the
first terms of a series for (I + Q)(I − Q)⁻¹ (Cayley-Neumann, PEFT's default), which is nearly a rotation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.delta import Change, Places
from tuneyard.adapters.lowrank import Matrix
from tuneyard.adapters.store import Adapter
from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core.errors import ContentError
from tuneyard.core.weights.tensors import Array


@dataclass(frozen=True, slots=True)
class Rotated:
    """ΔW = W·(R − I)ᵀ. `blocks` are those of R − I [blocks, size, size], only one if it is for all inputs."""

    blocks: Matrix

    def rows(self, first: int, base: Array, kind: str) -> NDArray[np.floating]:  # noqa: ARG002  # as `Change`
        """See `adapters.delta.Change`."""
        size = self.blocks.shape[1]
        groups = base.astype(kind, copy=False).reshape(len(base), -1, size).transpose(1, 0, 2)
        changes = groups @ self.blocks.astype(kind).transpose(0, 2, 1)
        return np.asarray(changes.transpose(1, 0, 2).reshape(base.shape))

    def exact(self, first: int, base: Array, places: Places) -> Matrix:
        """See `adapters.delta.Change`."""
        return np.asarray(self.rows(first, base, "float64")[places])


def rotated(adapter: Adapter, path: str) -> Change:
    """The change of a module's weight by its rotation."""
    return Rotated(rotation_minus_identity(adapter, path))


def rotation_minus_identity(adapter: Adapter, path: str) -> Matrix:
    """R − I of a module, block by block [blocks, size, size], in fp64."""
    skew = skew_matrices(adapter, path)
    terms = adapter.oft.terms
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
        for _ in range(3, terms - 1):
            power = power @ skew
            change += 2 * power
        change += power @ skew
    return change


def skew_matrices(adapter: Adapter, path: str) -> Matrix:
    """The skew matrices Q of a module [blocks, size, size], in fp64.

    Constrained OFT shrinks larger ones, at each step before it uses them. The last step is saved as it was.
    """
    rotation, largest = adapter.rotations[path], adapter.oft.largest_skew
    above = np.zeros((rotation.blocks, rotation.size, rotation.size))
    rows, columns = np.triu_indices(rotation.size, 1)
    above[:, rows, columns] = adapter.triangles(path)
    skew = above - above.transpose(0, 2, 1)
    if largest is not None:
        limit = largest / np.sqrt(rotation.blocks)
        norms = np.linalg.norm(skew, axis=(1, 2), keepdims=True)
        skew *= np.divide(limit, norms, out=np.ones_like(norms), where=norms > limit)
    return np.asarray(skew)


def check_alone(used: list[WeightedAdapter]) -> None:
    """`ContentError` if an OFT adapter has a weight other than 1, or other adapters next to it."""
    for item in used:
        if not item.adapter.rotations:
            continue
        name = item.adapter.name
        if item.weight != 1:
            raise ContentError(
                f"{name}: weight {item.weight:g}, expected 1: part of a rotation is not a rotation. To weigh "
                "adapters, train LoRA"
            )
        if len(used) > 1:
            raise ContentError(
                f"{name}: OFT rotates the base weights, and a rotation cannot be added to other adapters. "
                "Fuse it alone; to add adapters, train LoRA"
            )
