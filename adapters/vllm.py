"""Limits of vLLM for LoRA adapters (vllm/config/lora.py, vllm/lora/peft_helper.py)."""

from collections.abc import Iterator

DEFAULT_RANK = 16  # of --max-lora-rank
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # allowed values of --max-lora-rank
NO_FULL_TENSORS = "vLLM takes no adapter with modules_to_save or bias: fuse it for vLLM"


def max_rank(rank: int) -> int | None:
    """The smallest --max-lora-rank that is enough for `rank`, None if vLLM has none."""
    for allowed in RANKS:
        if allowed >= rank:
            return allowed
    return None


def notes(rank: int, full_tensors: bool) -> Iterator[str]:
    """Yield the reasons for which vLLM would refuse an adapter, and the options that it needs."""
    lora_rank = max_rank(rank)
    if lora_rank is None:
        yield f"rank {rank} is above vLLM's largest, {RANKS[-1]}: use --method svd --rank, or fuse it"
    elif lora_rank > DEFAULT_RANK:
        yield f"rank {rank} is above vLLM's default of {DEFAULT_RANK}: serve with --max-lora-rank {lora_rank}"
    if full_tensors:
        yield NO_FULL_TENSORS
