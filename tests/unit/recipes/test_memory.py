"""Memory, disk and operations against figures worked out by hand for a model of round numbers."""

from dataclasses import replace

import pytest

from recipes.memory import CUDA, Setup, Shapes, checkpoint_bytes, estimate, flops

MODEL = Shapes(
    parameters=1_000_000, trainable=10_000, linear=800_000, hidden=100, intermediate=400, layers=4, heads=4,
    vocabulary=1000,
)  # fmt: skip
LORA = Setup(
    tokens=50, full=False, bits=16, stage=0, ranks=1, offload=False, recompute=True, optimizer_bytes=8
)
FULL = replace(LORA, full=True)
FULL_MODEL = replace(MODEL, trainable=1_000_000)


def test_lora():
    found = estimate(MODEL, LORA)
    assert found.weights == 1_000_000 * 2 + 10_000 * 4
    assert (found.gradients, found.optimizer) == (40_000, 80_000)
    layer = 50 * (8 * 100 + 3 * 400) * 2
    assert found.activations == 50 * 100 * 2 * 4 + layer + 50 * 1000 * 10
    assert found.total == pytest.approx(2_040_000 + 120_000 + found.activations + CUDA)


def test_without_recomputing_every_layer_is_kept():
    more = estimate(MODEL, replace(LORA, recompute=False)).activations - 50 * 1000 * 10
    assert more == 4 * 50 * 2000 * 2


def test_four_bits_are_about_half_a_byte_on_the_linear_layers_alone():
    weights = estimate(MODEL, replace(LORA, bits=4)).weights
    assert weights == pytest.approx(800_000 * 0.5159 + 200_000 * 2 + 40_000, rel=1e-3)


def test_full_training_takes_sixteen_bytes_a_parameter_however_it_is_shared():
    def state(**changed):
        found = estimate(FULL_MODEL, replace(FULL, **changed))
        return found.weights + found.gradients + found.optimizer

    assert state() == 16_000_000
    assert state(stage=3, ranks=4) == 16_000_000 / 4
    assert state(stage=2, ranks=4) == 2_000_000 + 14_000_000 / 4
    assert state(stage=0, ranks=4) == 16_000_000


def test_checkpoints():
    assert checkpoint_bytes(MODEL, LORA, only_model=True) == 40_000
    assert checkpoint_bytes(MODEL, LORA, only_model=False) == 120_000
    assert checkpoint_bytes(FULL_MODEL, FULL, only_model=False) == 2_000_000 + 8_000_000
    assert checkpoint_bytes(FULL_MODEL, replace(FULL, stage=3), only_model=False) == 14_000_000


def test_operations():
    matrices = 800_000 + 100 * 1000
    assert flops(MODEL, LORA, 7) == 6 * matrices * 7
    assert flops(FULL_MODEL, FULL, 7) == 8 * matrices * 7
    assert flops(FULL_MODEL, replace(FULL, recompute=False), 7) == 6 * matrices * 7
