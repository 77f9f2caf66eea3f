"""Arithmetic on the factors of B·A: against the dense matrices, and at the ends of fp32."""

import tracemalloc

import numpy as np
import pytest

from tuneyard.adapters.model import lowrank


@pytest.mark.parametrize("value", [1.5e-45 * 1.3, 1.1e37 / 3])
def test_the_distance_of_a_tiny_sum_is_no_zero_and_of_a_huge_one_a_number(value):
    a, b = np.ones((1, 8), np.float32), np.full((8, 1), value)
    exact, missing = lowrank.norms((a, b), (a, b.astype(np.float32)))
    assert missing / exact == pytest.approx(abs(float(np.float32(value)) / value - 1))


@pytest.mark.parametrize("seed", range(8))
def test_directions_that_are_not_there_are_zeros(seed):
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=(1, 6)), generator.normal(size=(5, 2))
    narrow, tall = lowrank.truncate(np.concatenate([a, 2 * a]), b, 2)
    assert not narrow[1].any() and not tall[:, 1].any()


def test_a_direction_of_a_millionth_is_kept():
    one, two, left, right = np.eye(4)
    a, b = np.stack([one, two, one + two]), np.stack([left, 1e-6 * right, left - 1e-6 * right], axis=1)
    narrow, tall = lowrank.truncate(a, b, 2)
    np.testing.assert_allclose(tall @ narrow, b @ a, atol=1e-9)


def test_the_factors_of_a_sum_are_in_memory_once():
    pairs = [(np.ones((8, 4), np.float32), np.ones((10_000, 8), np.float32)) for _ in range(3)]
    tracemalloc.start()
    try:
        _, b = lowrank.WeightedFactors("m", pairs, [1.0, 1.0, 1.0], [0.5, -1.0, 2.0], 1.5).exact
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert b[0].tolist() == [0.5] * 8 + [-1.0] * 8 + [2.0] * 8
    assert peak < 1.2 * b.nbytes
