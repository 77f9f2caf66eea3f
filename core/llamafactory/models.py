"""A model on the meta device, as LLaMA-Factory prepares it: no weights are read."""

import copy
from typing import Any

from tuneyard.core.llamafactory.loader import replaced


def linear_layers(model: Any, *, freezes_vision_tower: bool) -> list[str]:
    """The names of the layers that `lora_target: all` means."""
    from llamafactory.model.model_utils.misc import find_all_linear_modules

    return sorted(find_all_linear_modules(model, freezes_vision_tower))


def prepare_config(config: Any, tokenizer: Any, model_args: Any, *, zero_3: bool, fsdp: bool) -> None:
    """Prepare a copy of a config for quantisation, RoPE scaling and attention.

    LLaMA-Factory's error passes through: one of `expected_errors`, or `ImportError` for a package.
    """
    from llamafactory.model import patcher
    from llamafactory.model.model_utils import quantization

    able = {"is_deepspeed_zero3_enabled": lambda: zero_3, "is_fsdp_enabled": lambda: fsdp}
    with replaced(quantization, check_version=lambda *_unused, **__: None, **able), replaced(patcher, **able):
        patcher.patch_config(copy.deepcopy(config), tokenizer, copy.copy(model_args), {}, True)


def with_adapter(config: Any, model: Any, model_args: Any, finetuning_args: Any) -> Any:
    """The model with the parameters that a training would add, and those frozen that it would freeze.

    LLaMA-Factory changes `model` itself.
    """
    import torch
    from llamafactory.model.adapter import init_adapter
    from peft.tuners.lora import model as lora
    from peft.tuners.oft import model as oft

    # No layer on the meta device is of bitsandbytes, whose import takes 0.7 s.
    no_bitsandbytes = dict.fromkeys(["is_bnb_available", "is_bnb_4bit_available"], lambda: False)
    with torch.device("meta"), replaced(lora, **no_bitsandbytes), replaced(oft, **no_bitsandbytes):
        return init_adapter(config, model, model_args, finetuning_args, is_trainable=True)


def tower_keys(model_type: str | None) -> list[str]:
    """The beginnings of the names of a model's vision tower and projector, [] for a model of texts."""
    from llamafactory.model.model_utils.visual import COMPOSITE_MODELS

    parts = COMPOSITE_MODELS.get(model_type)
    if parts is None:
        return []
    return [f"{key}." for key in (*parts.vision_model_keys, *parts.projector_keys)]
