"""One tensor's change against rounding by fractions, for any rank, size of ΔW and dtype."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.adapters.make import write_file
from tuneyard.adapters.fuse.rounding import apply
from tuneyard.adapters.fuse.shards import Piece
from tuneyard.adapters.model.change import Product
from tuneyard.core.weights.tensors import open_weights, to_fp32

BITS = {"BF16": 8, "F16": 11, "F32": 24}  # of a significand
LEAST_EXPONENT = {"BF16": -126, "F16": -14, "F32": -126}
"""Of a normal number. Smaller ones have the unit of the numbers with this exponent."""


def piece(folder, weight, dtype):
    """Store a weight and return it as what is to be changed."""
    write_file(folder / "w.safetensors", {"w": weight}, dtype)
    tensor = open_weights(folder / "w.safetensors").tensors["w"]
    return Piece("w", dtype, tensor.shape, tensor)


def rounded(value, dtype):
    """Round a fraction to a number of a dtype, ties to even, by whole numbers alone."""
    exponent = 0
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while abs(value) < Fraction(2) ** exponent and exponent > LEAST_EXPONENT[dtype]:
        exponent -= 1
    unit = Fraction(2) ** (exponent - BITS[dtype] + 1)
    return float(round(value / unit) * unit)


def exactly(weight, left, right, dtype):
    """Return W + left·right, summed as fractions and rounded once."""
    return [
        [
            rounded(
                Fraction(float(w)) + sum(Fraction(float(x)) * Fraction(float(y)) for x, y in pairs), dtype
            )
            for w, pairs in zip(
                row, (list(zip(rows, column, strict=True)) for column in right.T), strict=True
            )
        ]
        for row, rows in zip(weight, left, strict=True)
    ]


@pytest.mark.parametrize("dtype", BITS)
@settings(max_examples=12, deadline=None)
@given(rank=st.integers(1, 6), seed=st.integers(0, 99), size=st.sampled_from([1e-4, 0.02, 1.0, 30.0]))
def test_elements_are_the_exact_sum_rounded_once(tmp_path_factory, dtype, rank, seed, size):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((6, 8)).astype(np.float32)
    left = (rng.standard_normal((6, rank)) * size).astype(np.float32)
    right = rng.standard_normal((rank, 8)).astype(np.float32)
    given_piece = piece(tmp_path_factory.mktemp("w"), weight, dtype)
    stored = np.concatenate(list(apply(given_piece, [Product(left, right)], None, [])))
    start = open_weights(given_piece.source.file).read("w")
    assert to_fp32(stored, dtype).tolist() == exactly(start, left, right, dtype)


def test_a_change_that_all_but_undoes_the_weight_leaves_what_is_really_left(tmp_path):
    """The sums −w·k·2⁻²³ are lost in fp32, where w·(1 + k·2⁻²³) has no room."""
    weight = np.array([[1.0], [1.5], [1.375], [-1.9921875]], np.float32).repeat(8, axis=1)
    left, right = weight[:, :1].copy(), -(1 + np.arange(1, 9, dtype=np.float32)[None] * np.float32(2**-23))
    undone = piece(tmp_path, weight, "BF16")
    stored = np.concatenate(list(apply(undone, [Product(left, right)], None, [])))
    assert to_fp32(stored, "BF16").tolist() == exactly(weight, left, right, "BF16")
