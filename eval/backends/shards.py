"""torchrun --nproc-per-node N -m eval.nli …: every process scores its share of the batches."""

import os
from collections.abc import Sequence

COUNT, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))


def start() -> None:
    """Join the other processes of a torchrun. A single process has nothing to do."""
    if COUNT > 1:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("gloo")


def first() -> bool:
    """True for the process that writes the shared files."""
    return RANK == 0


def wait() -> None:
    """Wait until every process is here."""
    if COUNT > 1:
        import torch

        torch.distributed.barrier()


def share(batches: Sequence[list[int]]) -> Sequence[list[int]]:
    """Batches of this process: every N-th, so that every process gets long and short ones."""
    return batches[RANK::COUNT]
