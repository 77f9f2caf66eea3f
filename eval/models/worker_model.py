"""The base model in the workers of a run (--workers, --ray): each loads it once.

The process that plans and writes gets its facts, and no weights. So it needs neither the GPU nor the memory.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.errors import RequestError
from tuneyard.core.execution import Executor, Resources, Slot, WorkItem, once_per_worker
from tuneyard.core.execution.machine_limits import available_cores, visible_gpus
from tuneyard.core.language.message import _, counted
from tuneyard.eval.models.load import FILES, WEIGHTS, Applied, Model, load_model, load_without_weights

if TYPE_CHECKING:
    from transformers import GenerationConfig

PROCESS = 1_000_000_000  # bytes of a worker without weights
WIDENED = 2  # fp32 on CPUs, for weights that are saved in 16 bits


def worker_model(folder: Path, dtype: str | None, bits: int | None) -> Model:
    """The base of this worker, loaded at the first call."""
    return once_per_worker(load_model, folder, dtype, bits)


def _load(folder: Path, dtype: str | None, bits: int | None) -> "tuple[Model, GenerationConfig]":
    """Load the base; return all of it but its weights, as it was before any run."""
    loaded = worker_model(folder, dtype, bits)
    model = replace(loaded, applied=Applied(), budget=int(loaded.alone))
    del model.net
    return model, loaded.net.generation_config


def open_in_workers(
    workers: Executor, folder: Path, adapters: Sequence[Path], dtype: str | None, bits: int | None
) -> Model:
    """Load a base in a worker, and return the model without weights for planning.

    Before, check that every node sees its files and those of the adapters.
    """
    files: list[Path] = []
    for each, pattern in product([folder, *adapters], FILES):
        files += sorted(each.resolve().glob(pattern))
    workers.check_paths(inputs=files)
    needed = resources(workers, folder)
    load = WorkItem(folder.name, _load, (folder.resolve(), dtype, bits))
    with contextlib.closing(workers.map([load], resources=needed)) as results:
        model: Model
        model, generation = next(results).record_or_raise()
    model.net = load_without_weights(folder, model.dtype)
    model.net.generation_config = generation
    return model


def resources(workers: Executor, folder: Path) -> Resources:
    """The resources of a worker with a base: a GPU if there are any, otherwise memory for the weights."""
    if workers.has_gpus:
        return Resources(gpus=1)
    size = sum(path.stat().st_size for path in folder.glob(WEIGHTS))
    return Resources(memory=PROCESS + WIDENED * size)


def worker_slots(count: int) -> list[Slot]:
    """Slots of this machine for workers that score: a GPU each, without GPUs an equal part of the cores.

    OMP_NUM_THREADS counts if it is set: other numbers of threads change the last digit of a probability.
    `RequestError` if there are fewer GPUs.
    """
    import torch

    gpus = visible_gpus(torch.cuda.device_count())
    if not gpus:
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, available_cores() // count))
        return [
            Slot(_("worker {number}", number=number), {"OMP_NUM_THREADS": threads})
            for number in range(1, count + 1)
        ]
    if count > len(gpus):
        raise RequestError(
            _(
                "--workers {count}: each worker has a GPU of its own, and this machine has {gpus}: "
                "--workers {number}",
                count=count,
                gpus=counted(len(gpus), "GPU", "GPUs"),
                number=len(gpus),
            )
        )
    return [Slot(_("GPU {gpu}", gpu=gpu), {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in gpus[:count]]
