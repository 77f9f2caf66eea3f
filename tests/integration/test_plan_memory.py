"""The parts of a memory plan against tensors that LLaMA-Factory's own functions keep, counted on a CPU."""

import types
import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tuneyard.recipes.costs import (
    BF16,
    KEPT_BY_ADAPTER,
    KEPT_BY_WEIGHTS,
    KEPT_WITH_DROPOUT,
    LOGITS,
    LOGITS_OF_KTO,
    LOGITS_WITH_REFERENCE,
    Setup,
    Shapes,
    _activations,
    flops,
)
from tuneyard.recipes.llamafactory.layout import with_trained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SETUP = Setup(
    tokens=0, full=True, bits=16, stage=0, ranks=1, offload_optimizer=False, offload_weights=False,
    recompute=True, optimizer_bytes=8,
)  # fmt: skip
LAYERS, VOCABULARY = 6, 96
LORA = {"finetuning_type": "lora", "lora_rank": 4}
PARTS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
    "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
UPPER = {**LORA, "lora_target": ",".join(f"{layer}.{part}" for layer in (4, 5) for part in PARTS)}


def finetuning(**settings: Any) -> Any:
    from llamafactory.hparams import FinetuningArguments

    return FinetuningArguments(**settings)


def qwen2(hidden: int, intermediate: int, layers: int, heads: int, vocabulary: int) -> Any:
    """A tiny Qwen2 with random weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, vocab_size=vocabulary,
        tie_word_embeddings=False,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def adapted(hidden: int, intermediate: int, layers: int, recompute: bool, **settings: Any) -> Any:
    """A tiny Qwen2 in bf16, prepared and adapted by LLaMA-Factory."""
    import torch
    from llamafactory.hparams import ModelArguments
    from llamafactory.model.adapter import init_adapter
    from llamafactory.model.model_utils.checkpointing import prepare_model_for_training

    whole = qwen2(hidden, intermediate, layers, 4, VOCABULARY).to(torch.bfloat16)
    model_args = ModelArguments(model_name_or_path="none", disable_gradient_checkpointing=not recompute)
    prepare_model_for_training(whole, model_args)
    return init_adapter(whole.config, whole, model_args, finetuning(**settings), is_trainable=True).train()


def kept_bytes(
    hidden: int, intermediate: int, layers: int, tokens: int, recompute: bool, **settings: Any
) -> int:
    """Bytes of the tensors that autograd keeps in a forward pass, without parameters."""
    import torch

    trained = adapted(hidden, intermediate, layers, recompute, **settings)
    weights = {parameter.untyped_storage().data_ptr() for parameter in trained.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            kept[address] = tensor
        return tensor

    ids = torch.randint(0, VOCABULARY, (1, tokens))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
        trained(input_ids=ids, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        (LORA, KEPT_BY_ADAPTER),
        ({**LORA, "lora_dropout": 0.1}, KEPT_WITH_DROPOUT),
        ({"finetuning_type": "oft", "oft_block_size": 16}, KEPT_BY_ADAPTER),
        ({"finetuning_type": "full"}, KEPT_BY_WEIGHTS),
    ],
    ids=str,
)
def test_values_that_a_layer_keeps_for_each_token(settings, factors):
    def each(hidden: int, intermediate: int) -> float:
        """Values of 2 bytes for one more layer and one more token; constants fall out."""
        difference = 0
        for layers, sign in ((3, 1), (2, -1)):
            difference += sign * kept_bytes(hidden, intermediate, layers, 128, False, **settings)
            difference -= sign * kept_bytes(hidden, intermediate, layers, 64, False, **settings)
        return difference / 64 / BF16

    start = each(64, 192)
    assert (each(128, 192) - start) / 64 == pytest.approx(factors[0], abs=0.01)
    assert (each(64, 256) - start) / 64 == pytest.approx(factors[1], abs=0.01)


@pytest.mark.parametrize(
    ("settings", "recompute"),
    [
        (LORA, True),
        (UPPER, True),  # PEFT lets gradients flow below
        (UPPER, False),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 2}, True),
        ({"finetuning_type": "freeze", "freeze_trainable_layers": -2}, True),  # upper layers keep all
        ({"finetuning_type": "freeze", "freeze_trainable_layers": 2}, False),
    ],
    ids=str,
)
def test_activations_of_the_layers_that_are_trained_and_those_around_them(settings, recompute):
    """The logits, and the one layer that is recomputed later, are left out on both sides."""
    hidden, intermediate, tokens = 64, 192, 256
    more, fewer = (kept_bytes(hidden, intermediate, LAYERS, n, recompute, **settings) for n in (tokens, 128))
    counted = (more - fewer) / (tokens - 128)
    laid_out = adapted(hidden, intermediate, LAYERS, recompute, **settings)
    shapes = with_trained(Shapes(1, 0, 1, hidden, intermediate, LAYERS, 0), laid_out, laid_out.config)
    is_adapter = settings["finetuning_type"] == "lora"
    kept = KEPT_BY_ADAPTER if is_adapter else KEPT_BY_WEIGHTS
    setup = Setup(
        tokens=1, full=not is_adapter, bits=16, stage=0, ranks=1, offload_optimizer=False,
        offload_weights=False, recompute=recompute, optimizer_bytes=8, kept=kept,
        input_gradients=is_adapter and recompute,
    )  # fmt: skip
    planned = _activations(shapes, setup)
    if recompute:
        planned -= (kept[0] * hidden + kept[1] * intermediate) * BF16
    # head and last norm keep some vectors of the hidden size; an adapter on one matrix keeps fewer copies
    assert counted - 8 * hidden * BF16 <= planned <= 1.5 * counted


def peak_bytes(vocabulary: int, kind: str, tokens: int) -> int:
    """The most bytes that exist at once in LLaMA-Factory's forward and backward passes of a stage."""
    import torch
    from llamafactory.train.dpo.trainer import CustomDPOTrainer
    from llamafactory.train.kto.trainer import CustomKTOTrainer
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Peak(TorchDispatchMode):
        """Adds up the memory of the tensors that live."""

        def __init__(self) -> None:
            super().__init__()
            self.live: dict[int, int] = {}
            self.highest = 0

        def __torch_dispatch__(self, operation: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = operation(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if torch.is_tensor(leaf) and id(leaf.untyped_storage()) not in self.live:
                    storage = leaf.untyped_storage()
                    self.live[id(storage)] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, id(storage), None)
            self.highest = max(self.highest, sum(self.live.values()))
            return result

    trained = qwen2(16, 32, 1, 2, vocabulary).to(torch.bfloat16).requires_grad_(False)
    trained.model.layers[0].mlp.down_proj.float().requires_grad_(True)
    ids = torch.randint(0, vocabulary, (1 if kind == "sft" else 2, tokens))
    batch = {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}
    trainer: Any = SimpleNamespace(
        finetuning_args=SimpleNamespace(use_ref_model=kind != "orpo", pref_loss=kind), ref_model=trained,
        accelerator=SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda value: value),
        loss_type={"dpo": "sigmoid"}.get(kind, kind), beta=0.1, label_smoothing=0, reference_free=False,
        f_divergence_type="reverse_kl", ld_alpha=None, bco_gemma=0, ftx_gamma=0, simpo_gamma=0.1,
        calculate_KL=True, desirable_weight=1, undesirable_weight=1,
    )  # fmt: skip
    parent = CustomKTOTrainer if kind == "kto" else CustomDPOTrainer
    for name in (
        "concatenated_forward", "compute_reference_log_probs", "compute_preference_loss", "dpo_loss",
        "odds_ratio_loss", "forward", "kto_loss",
    ):  # fmt: skip
        if hasattr(parent, name):
            setattr(trainer, name, types.MethodType(getattr(parent, name), trainer))
    if kind == "kto":
        batch |= {f"kl_{name}": tensor.clone() for name, tensor in batch.items()}
        batch["kto_tags"] = torch.tensor([True, False])
    with Peak() as peak, torch.autocast("cpu", dtype=torch.bfloat16):
        if kind == "sft":
            loss = trained(input_ids=ids, labels=ids, use_cache=False).loss
        else:
            loss, _ = parent.get_batch_loss_metrics(trainer, trained, batch)
        if kind != "sft":
            loss.backward()
    return peak.highest


@pytest.mark.parametrize(
    ("kind", "planned"),
    [("sft", LOGITS), ("dpo", LOGITS_WITH_REFERENCE), ("kto", LOGITS_OF_KTO)],
)
def test_bytes_of_the_logits_for_each_token_and_entry_of_the_vocabulary(kind, planned):
    """By the differences of tokens and of vocabulary, so that nothing else is counted."""
    difference = 0
    for vocabulary, sign in ((3000, 1), (1500, -1)):
        difference += sign * (peak_bytes(vocabulary, kind, 256) - peak_bytes(vocabulary, kind, 128))
    sides = 1 if kind == "sft" else 2
    assert difference / 1500 / 128 / sides == pytest.approx(planned, abs=0.1)


def test_operations_are_those_that_torch_counts():
    """A tiny model with an adapter: reading, and a step with gradients, by torch's own counter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode

    hidden, width, layers, words, length = 64, 256, 3, 500, 16
    config = LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(qwen2(hidden, width, layers, 4, words), config)
    linear = layers * (4 * hidden**2 + 3 * hidden * width)
    shapes = Shapes(linear + 2 * words * hidden, 0, linear, hidden, width, layers, words)
    ids = torch.arange(length).reshape(1, -1)
    with torch.no_grad(), FlopCounterMode(display=False) as reading:
        model(input_ids=ids)
    with FlopCounterMode(display=False) as training:
        model(input_ids=ids, labels=ids).loss.backward()
    setup = replace(SETUP, full=False, recompute=False)
    only_read = replace(setup, learned=0, read=1)
    assert flops(shapes, only_read, length, length) == pytest.approx(reading.get_total_flops(), rel=0.06)
    assert flops(shapes, setup, length, length) == pytest.approx(training.get_total_flops(), rel=0.06)
