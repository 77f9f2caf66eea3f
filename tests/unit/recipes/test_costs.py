"""Memory and time against what others measured and published, not against the same formulas again."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from testing.published_costs import CASES, GATHERED, MASTER_COPY, fit, judged
from tuneyard.recipes.costs import (
    BF16,
    FP32,
    KEPT_BY_WEIGHTS,
    LOOSE_SPREAD,
    NF4,
    PACE,
    SPREAD,
    WIDEST,
    Setup,
    Shapes,
    checkpoint_bytes,
    duration,
    estimate,
    flops,
    total_bytes,
)
from tuneyard.recipes.machine.hardware import GPUS

A100 = GPUS["A100-80"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_upper_end_holds_what_was_measured(case):
    lower, upper = total_bytes(estimate(case.shapes, case.setup))
    assert lower < upper <= WIDEST * lower * (1 + 1e-9)
    assert case.gigabytes * 1e9 <= upper
    assert case.gigabytes * 1e9 >= 0.8 * lower  # LLaMA-Factory trains LoRA in fp32, Qwen's script does not


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_time_measured_lies_between_both_ends(case):
    work = flops(case.shapes, case.setup, GATHERED * case.setup.tokens, case.setup.tokens)
    tokens = GATHERED * case.setup.tokens
    time = duration(case.shapes, case.setup, work, tokens, GATHERED, A100)
    assert time.lower <= case.step <= time.upper
    assert time.lower < time.middle < time.upper


def test_times_of_a_model_size_that_the_constants_have_not_seen():
    """Fitted to the other sizes alone; the constants in the code are those of all sizes together."""
    cases = [case for by_size in judged().values() for case in by_size]
    assert len(cases) == 81
    assert sum(lower <= case.step <= upper for case, lower, _, upper in cases) >= 75
    assert sorted(upper / lower for _, lower, _, upper in cases)[40] <= 2.5
    assert list(fit(CASES)) == pytest.approx(list(PACE), rel=0.1)


def test_the_table_has_every_case():
    assert len(CASES) == 81


def lower_ends(shapes, setup):
    """Bytes at the lower end by purpose, as attributes."""
    sums = {}
    for term in estimate(shapes, setup):
        sums[term.name] = sums.get(term.name, 0) + term.lower
    return SimpleNamespace(**sums)


PAPER = Shapes(7_500_000_000, 7_500_000_000, 7_000_000_000, 1, 1, 10_000, 1)
ADAM = Setup(
    tokens=0, full=True, bits=16, stage=0, ranks=64, offload_optimizer=False, offload_weights=False,
    recompute=True, optimizer_bytes=8,
)  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "gigabytes", "bytes"), [(0, 120, {}), (2, 16.6, MASTER_COPY), (3, 1.9, MASTER_COPY)]
)
def test_model_states_are_those_of_the_paper_on_zero(stage, gigabytes, bytes):
    """Rajbhandari et al. 2020, arXiv:1910.02054, figure 1: 7.5 billion parameters on 64 GPUs."""
    lower = lower_ends(PAPER, replace(ADAM, stage=stage, **bytes))
    state = lower.weights + lower.gradients + lower.optimizer
    assert state / 1e9 == pytest.approx(gigabytes, rel=0.02 if stage < 3 else 0.03)


def test_four_bits_take_what_the_paper_on_qlora_says():
    """Dettmers et al. 2023, arXiv:2305.14314, section 3: double quantization leaves 0.127 bits a weight."""
    assert pytest.approx(4.127, abs=0.0001) == 8 * NF4


def test_operations_are_those_of_gpt_3():
    """Brown et al. 2020, arXiv:2005.14165, table D.1: 3.14e23 for 300 billion tokens (attention left out)."""
    hidden, layers, vocabulary = 12288, 96, 50257
    linear = 12 * layers * hidden**2
    shapes = Shapes(linear + vocabulary * hidden, linear, linear, hidden, 4 * hidden, layers, vocabulary)
    assert flops(shapes, replace(ADAM, recompute=False), 300e9, 0) == pytest.approx(3.14e23, rel=0.01)
    with_attention = flops(shapes, replace(ADAM, recompute=False), 300e9, 2048)
    assert 1.01 < with_attention / 3.14e23 < 1.03
    adapter = flops(shapes, replace(ADAM, recompute=False, full=False), 300e9, 0)  # no gradients of weights
    assert adapter == pytest.approx(3.14e23 * 2 / 3, rel=0.01)


def test_a_reference_model_takes_its_weights_in_bf16():
    def lower(**changed):
        return lower_ends(PAPER, replace(ADAM, **changed)).weights

    assert lower(reference=True) - lower() == pytest.approx(15e9)
    assert lower(reference=True, stage=3) - lower(stage=3) == pytest.approx(15e9 / 64)


LORA = next(case for case in CASES if case.name == "model 7B, gpus 1, 2048 tokens")


def test_pure_bf16_takes_half_of_the_state():
    """In fp32 it is 120 GB: `test_model_states_are_those_of_the_paper_on_zero`."""
    half = lower_ends(PAPER, replace(ADAM, trained_bytes=BF16, optimizer_bytes=2 * BF16))
    assert half.weights + half.gradients + half.optimizer == 60e9


def test_time_of_matrix_products_alone_is_their_share_of_the_peak():
    still = PACE._replace(moved=0, launched=0, updated=0)
    time = duration(LORA.shapes, LORA.setup, 312e12 * 0.75, 1000, 10, A100, still)
    assert time.middle == pytest.approx(1)
    assert (time.lower, time.upper) == pytest.approx((1 / SPREAD, SPREAD))
    two = duration(LORA.shapes, replace(LORA.setup, ranks=2), 312e12 * 0.75, 1000, 10, A100, still)
    assert (two.lower, two.upper) == pytest.approx((1 / LOOSE_SPREAD[0], LOOSE_SPREAD[1]))


def test_a_checkpoint_holds_what_is_trained_and_adams_state():
    trained = LORA.shapes.trainable
    assert checkpoint_bytes(LORA.shapes, LORA.setup, only_model=True) == FP32 * trained
    assert checkpoint_bytes(LORA.shapes, LORA.setup, only_model=False) == 3 * FP32 * trained
    assert (
        checkpoint_bytes(PAPER, ADAM, only_model=True) == 30e9
    )  # LLaMA-Factory saves what it trains, in fp32
    assert checkpoint_bytes(PAPER, replace(ADAM, **MASTER_COPY), only_model=True) == 15e9
    assert checkpoint_bytes(PAPER, replace(ADAM, **MASTER_COPY), only_model=False) == 14 * 7.5e9


# 10 layers of 100 parameters each, and 200 in embedding and head: by hand
MODEL = Shapes(1_200, 1_200, 1_000, 10, 20, 10, 10)
PLAIN = replace(ADAM, tokens=1, ranks=1, kept=KEPT_BY_WEIGHTS)


def lower(shapes, **changed):
    return lower_ends(shapes, replace(PLAIN, **changed))


def test_frozen_layers_are_kept_in_bf16():
    freeze = replace(MODEL, trainable=200, layers_below=8)
    memory = lower(freeze)
    assert (memory.weights, memory.gradients, memory.optimizer) == (1_000 * 2 + 200 * 4, 800, 1_600)


def test_a_model_stored_in_fp32_is_loaded_in_it_but_for_quantisation_and_deepspeed():
    layers = replace(MODEL, trainable=200, layers_below=8, stored=FP32)
    assert lower(layers).weights == 1_000 * 4 + 200 * 4
    adapter = replace(MODEL, trainable=20, stored=FP32)
    # autocast's copies: of one of ten layers, or of all, and of the head
    assert lower(adapter, full=False).weights == 1_200 * 4 + 20 * 4 + (100 + 100) * 2
    assert lower(adapter, full=False, recompute=False).weights == 1_200 * 4 + 20 * 4 + (1_000 + 100) * 2
    for changed in ({"bits": 4}, {"stage": 2}):
        in_bf16 = lower(replace(adapter, stored=BF16), full=False, **changed)
        assert lower(adapter, full=False, **changed) == in_bf16


def test_a_checkpoint_has_its_frozen_layers_in_bf16():
    frozen = replace(MODEL, trainable=200)
    assert checkpoint_bytes(frozen, PLAIN, only_model=True) == 1_000 * 2 + 200 * 4


def test_an_offload_takes_its_terms_off_the_gpu():
    kept = lower(MODEL, full=False, stage=3, ranks=2, offload_optimizer=True, offload_weights=True)
    assert not hasattr(kept, "optimizer")
    assert kept.weights == (2 * 1_000 / 10 + 100) * BF16  # the layers that are gathered


def test_the_logits():
    large = replace(MODEL, vocabulary=1_000, hidden=100, model_type="qwen2")
    plain = lower(large, tokens=64).activations
    assert lower(large, tokens=64, logits=16).activations - plain == 64 * 1_000 * 6
    # Liger: 10 chunks of 7 tokens, rounded up to 8: their bf16 logits twice, and the gradient of its input
    fused = lower(large, tokens=64, fused_loss=True).activations
    assert plain - fused == 64 * 1_000 * 10 - (2 * 8 * 1_000 + 64 * 100) * 2
    assert lower(replace(large, model_type="gpt2"), tokens=64, fused_loss=True).activations == plain


def test_8_bits_lie_between_4_and_16():
    four, eight, sixteen = (lower_ends(PAPER, replace(ADAM, full=False, bits=bits)) for bits in (4, 8, 16))
    assert four.weights < eight.weights < sixteen.weights


def test_each_wait_adds_its_own_time():
    def middle(pace=PACE, gpu=A100, micro_batches=10, tokens=1000, **changed):
        setup = replace(LORA.setup, **changed)
        return duration(LORA.shapes, setup, 0, tokens, micro_batches, gpu, pace).middle

    linear, layers = LORA.shapes.linear, LORA.shapes.layers
    idle = PACE._replace(moved=0, updated=0)
    assert middle(idle, tokens=0) == pytest.approx(10 * layers * 5.1e-3)
    assert middle(bits=4) - middle() == pytest.approx(10 * linear * 70 / 2039e9)
    assert middle(stage=3, ranks=4) - middle(stage=2, ranks=4) == pytest.approx(10 * linear * 1.8e-11)
    alone = {"pace": PACE._replace(launched=0, updated=0), "micro_batches": 0}
    assert middle(**alone) == pytest.approx(2 * middle(**alone, gpu=A100._replace(bandwidth=2 * 2039e9)))
    assert middle(**alone, learned=0, read=3) == pytest.approx(middle(**alone))
