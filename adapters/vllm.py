"""What vLLM takes of LoRA adapters (vllm/config/lora.py, vllm/lora/peft_helper.py)."""

from collections.abc import Iterator

DEFAULT_RANK = 16  # of --max-lora-rank
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that --max-lora-rank takes
NO_FULL_TENSORS = "vLLM takes no adapter with modules_to_save or bias: fuse it for vLLM"


def max_rank(rank: int) -> int | None:
    """Return the smallest --max-lora-rank that is enough for `rank`, None where none is."""
    return next((known for known in RANKS if known >= rank), None)


def notes(rank: int, full_tensors: bool) -> Iterator[str]:
    """Yield what vLLM would refuse of an adapter, or wants to be told when it is served."""
    enough = max_rank(rank)
    if enough is None:
        yield f"rank {rank} passes vLLM's largest, {RANKS[-1]}: take --method svd --rank, or fuse it"
    elif enough > DEFAULT_RANK:
        yield f"rank {rank} passes vLLM's default of {DEFAULT_RANK}: serve with --max-lora-rank {enough}"
    if full_tensors:
        yield NO_FULL_TENSORS
