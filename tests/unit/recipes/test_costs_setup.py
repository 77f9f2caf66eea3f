"""How a recipe's settings become the setup that is planned, and what is said to be unknown."""

import re
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.json_files import write_json
from tests.messages import printed
from tuneyard.recipes.costs import LIGER_MODELS, Shapes, disk_of, setup_of, unmodelled
from tuneyard.recipes.llamafactory.layout import with_trained
from tuneyard.recipes.planning.lines import memory_line
from tuneyard.recipes.planning.training_plan import TrainingPlan
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.schedule import Schedule

SHAPES = Shapes(1_000_000, 10_000, 800_000, 100, 400, 4, 1000)


def recipe(**settings):
    return Recipe(Path("r.yaml"), settings, {})


def test_trained_weights_and_their_optimizer_are_in_fp32_but_for_pure_bf16():
    plain, pure = setup_of(recipe(), 10, 1), setup_of(recipe(pure_bf16=True), 10, 1)
    assert (plain.trained_bytes, plain.optimizer_bytes) == (4, 8)
    assert (pure.trained_bytes, pure.optimizer_bytes) == (2, 4)
    assert setup_of(recipe(pure_bf16=True, optim="paged_adamw_8bit"), 10, 1).optimizer_bytes == 2
    assert setup_of(recipe(optim="sgd"), 10, 1).optimizer_bytes == 0  # without momentum


def test_what_deepspeed_keeps_and_offloads(tmp_path):
    def setup(method="lora", **zero):
        write_json(tmp_path / "ds.json", {"zero_optimization": zero})
        return setup_of(recipe(deepspeed=str(tmp_path / "ds.json"), finetuning_type=method), 10, 4)

    full = setup(stage=2, method="full")
    assert (full.trained_bytes, full.optimizer_bytes) == (2, 12)  # bf16, and a master copy in fp32
    assert setup(stage=1, method="full").optimizer_bytes == 8
    optimizer = setup(stage=2, offload_optimizer={"device": "cpu"})
    assert (optimizer.stage, optimizer.offload_optimizer, optimizer.offload_weights) == (2, True, False)
    both = setup(stage=3, offload_optimizer={"device": "cpu"}, offload_param={"device": "cpu"})
    assert (both.stage, both.offload_optimizer, both.offload_weights) == (3, True, True)


@pytest.mark.parametrize(
    ("settings", "tokens", "reference", "trained", "read"),
    [
        ({"stage": "sft", "finetuning_type": "full"}, 30, False, 1, 0),
        ({"stage": "rm"}, 60, False, 1, 0),
        ({"stage": "dpo"}, 60, False, 1, 1),  # both sides once more under the reference
        ({"stage": "dpo", "ref_model": "b"}, 60, True, 1, 1),
        ({"stage": "dpo", "finetuning_type": "full"}, 60, True, 1, 1),
        ({"stage": "dpo", "finetuning_type": "full", "pref_loss": "orpo"}, 60, False, 1, 0),
        # the answer is trained; its twin is read; the reference reads both: 3 reads of 2 sequences
        ({"stage": "kto", "finetuning_type": "full"}, 30, True, 1 / 2, 3 / 2),
    ],
)
def test_sides_of_a_micro_batch_a_second_model_and_passes(settings, tokens, reference, trained, read):
    setup = setup_of(recipe(per_device_train_batch_size=3, **settings), 10, 1)
    assert (setup.tokens, setup.reference) == (tokens, reference)
    assert (setup.learned, setup.read) == (trained, read)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, []),
        ({"stage": "pt", "use_dora": False}, []),
        ({"use_dora": True, "use_adam_mini": True}, ["use_adam_mini", "use_dora"]),
        ({"use_galore": True, "optim": "adamw_8bit"}, ["use_galore"]),
        ({"use_badam": True, "use_apollo": False}, ["use_badam"]),
        ({"use_apollo": True}, ["use_apollo"]),
        ({"use_muon": True, "enable_liger_kernel": True, "use_llama_pro": True}, ["use_muon"]),
        ({"stage": "ppo"}, ["stage ppo (more than one pass, or a second model)"]),
        ({"stage": "dpo"}, []),
        ({"stage": "dpo", "ref_model": "b"}, ["ref_model (taken to be as large as the model)"]),
        ({"pure_bf16": True, "deepspeed": "z3.json"}, ["pure_bf16 under DeepSpeed"]),
    ],
)
def test_what_is_not_modelled_is_named(settings, found):
    assert unmodelled(recipe(**settings), SHAPES, False) == found


def test_experts_are_not_modelled():
    experts = Shapes(5_000_000, 10_000, 800_000, 100, 400, 4, 1000)
    (quantised,) = unmodelled(recipe(), SHAPES, True)
    printed(quantised, "16 bits")
    (outside,) = unmodelled(recipe(), experts, False)
    printed(outside, "experts")


@pytest.mark.parametrize(
    ("lower", "upper", "unknown", "words"),
    [
        (5, 9, [], "fits"), (5, 10, [], "fits"), (5, 11, [], "may NOT fit"), (10.5, 15, [], "does NOT fit"),
        (5, 9, ["use_dora"], "fits, as far as it is known,"),
        (10.5, 15, ["use_galore"], "does NOT fit, as far as it is known,"),
    ],
)  # fmt: skip
def test_only_what_fits_by_the_upper_end_fits(lower, upper, unknown, words):
    plan = dict.fromkeys(TrainingPlan.__slots__)
    plan |= {"memory": {"lower": {"total": lower}, "upper": {"total": upper}}, "gpu_bytes": 10, "gpu": "T4"}
    line = memory_line(TrainingPlan(**plan | {"not_modelled": unknown}))
    assert f" GB a GPU, {words} T4 (0 GB)" in line


def test_checkpoints_on_the_disk(tmp_path):
    schedule, counts = Schedule(1001, 1, 1, 1, 501, 1001, 0), []
    for settings in ({}, {"save_total_limit": 2}, {"save_strategy": "epoch"}):
        trained = recipe(output_dir=str(tmp_path), **settings)
        counts.append(disk_of(trained, SHAPES, setup_of(trained, 10, 1), schedule)[1])
    assert counts == [3, 2, 2]


def test_what_images_add_is_not_modelled():
    hearing = replace(SHAPES, sees=True, model_type="qwen2_audio")
    assert unmodelled(recipe(), hearing, False) == ["images, audio or video of qwen2_audio"]


@pytest.mark.parametrize(
    ("settings", "full", "kept", "logits", "input_gradients"),
    [
        ({}, False, (14, 4), 10, True),
        ({"lora_dropout": 0.1}, False, (26, 6), 10, True),
        ({"finetuning_type": "oft"}, False, (14, 4), 10, True),
        ({"quantization_bit": 4}, False, (14, 4), 10, False),
        ({"disable_gradient_checkpointing": True}, False, (14, 4), 10, False),
        ({"finetuning_type": "full"}, True, (17, 4), 10, False),
        ({"finetuning_type": "freeze"}, True, (17, 4), 10, False),
        ({"stage": "dpo"}, False, (14, 4), 16, True),
        ({"stage": "dpo", "pref_loss": "simpo"}, False, (14, 4), 10, True),
        ({"stage": "kto"}, False, (14, 4), 20, True),
    ],
)
def test_what_a_method_keeps(settings, full, kept, logits, input_gradients):
    setup = setup_of(recipe(**settings), 10, 1)
    assert (setup.full, setup.kept, setup.logits) == (full, kept, logits)
    assert setup.input_gradients is input_gradients


@pytest.mark.parametrize(
    ("settings", "fused"),
    [({}, True), ({"stage": "pt"}, True), ({"stage": "dpo"}, False), ({"use_dft_loss": True}, False)],
)
def test_ligers_loss_is_for_stages_that_need_no_logits(settings, fused):
    assert setup_of(recipe(enable_liger_kernel=True, **settings), 10, 1).fused_loss is fused
    assert not setup_of(recipe(**settings), 10, 1).fused_loss


def test_model_types_with_ligers_kernels_are_llamafactorys():
    """Read from its source, without importing it."""
    try:
        files = distribution("llamafactory").files or []
    except PackageNotFoundError:
        pytest.skip("LLaMA-Factory is not installed")
    (path,) = [file for file in files if file.as_posix() == "llamafactory/model/model_utils/liger_kernel.py"]
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "if model_type" in line]
    assert set(re.findall(r'"(\w+)"', " ".join(lines))) == set(LIGER_MODELS)


def test_untrained_layers_are_counted_below_and_between_the_trained_ones(monkeypatch):
    visual = SimpleNamespace(COMPOSITE_MODELS={})
    monkeypatch.setitem(sys.modules, "llamafactory.model.model_utils.visual", visual)
    parameter = SimpleNamespace(requires_grad=True, numel=lambda: 6)
    model = SimpleNamespace(named_parameters=lambda: [(f"layers.{n}.q", parameter) for n in (2, 4)])
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=6))
    found = with_trained(SHAPES, model, config)
    assert (found.trainable, found.layers_below, found.layers_between) == (12, 2, 2)
