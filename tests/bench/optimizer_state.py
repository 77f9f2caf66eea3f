"""python -m tests.bench.optimizer_state   count the bytes of optimizer states, for optimizer_state.yaml.

LLaMA-Factory makes each optimizer and trains a tiny model for one step. Needs galore-torch, apollo-torch and
badam for those; Muon comes with LLaMA-Factory. tests/golden/recipes/optimizer_state.yaml has what it printed.
"""

from collections.abc import Iterator
from typing import Any

import torch
import yaml

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 500, "tie_word_embeddings": False,
}  # fmt: skip
GALORE, APOLLO = {"use_galore": True, "galore_rank": 4}, {"use_apollo": True, "apollo_rank": 4}
CASES: list[dict[str, Any]] = [
    {"use_muon": True},
    *[{**GALORE, "galore_proj_type": side} for side in ("std", "reverse_std", "left", "right", "full")],
    {**GALORE, "pure_bf16": True},
    {**GALORE, "galore_layerwise": True},
    {**GALORE, "galore_rank": 200},
    APOLLO,
    {**APOLLO, "apollo_proj": "svd"},
    {**APOLLO, "pure_bf16": True},
    {**APOLLO, "apollo_layerwise": True},
    {"use_badam": True},
]


def model(dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """The tiny model whose parameters are trained."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device(device):
        return Qwen2ForCausalLM(Qwen2Config(**SIZES)).to(dtype)


def tensors(value: object, visited: set[int]) -> Iterator[torch.Tensor]:
    """Tensors in containers and in the attributes of objects."""
    if torch.is_tensor(value):
        yield value
        return
    if isinstance(value, type) or callable(value) or id(value) in visited:
        return
    visited.add(id(value))
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    elif hasattr(value, "__dict__"):
        inner = vars(value).values()
    for part in inner:
        yield from tensors(part, visited)


def stored_bytes(value: object) -> int:
    """Bytes of the memory behind all tensors of a value. Counters are left out."""
    sizes = {}
    for tensor in tensors(value, set()):
        if tensor.numel() > 1:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def measured(settings: dict[str, Any]) -> dict[str, int]:
    """Bytes of an optimizer's state after one step, and of the gradients before it."""
    from llamafactory.hparams import FinetuningArguments
    from llamafactory.train.trainer_utils import create_custom_optimizer
    from transformers import TrainingArguments

    half = bool(settings.get("pure_bf16") or settings.get("use_badam"))
    trained = model(torch.bfloat16 if half else torch.float32)
    arguments = TrainingArguments("unused", optim="adamw_torch", use_cpu=True, report_to="none")
    optimizer = create_custom_optimizer(
        trained, arguments, FinetuningArguments(finetuning_type="full", **settings)
    )
    ids = torch.arange(16).reshape(1, -1)
    trained(input_ids=ids, labels=ids).loss.backward()
    gradients = sum(one.grad.nbytes for one in trained.parameters() if one.grad is not None)
    optimizer.step()
    states: list[object] = [dict(optimizer.state)]
    if settings.get("use_badam"):
        states = [dict(optimizer.base_optimizer.state), optimizer.param_idx2hp]
    for one in (getattr(optimizer, "optimizer_dict", None) or {}).values():
        states.append(dict(one.state))  # layerwise: an optimizer for each parameter
    return {"state": stored_bytes(states), "gradients": gradients}


def main() -> None:
    """Print the figures as YAML."""
    for settings in CASES:
        print(yaml.safe_dump([{"settings": settings, **measured(settings)}], default_flow_style=None), end="")


if __name__ == "__main__":
    main()
