"""What a training reads in one epoch: rows merged, split and packed as LLaMA-Factory does it.

Runs in the process of recipes/inspect.py, on the lengths of the rows alone.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

Lengths = list[list[int]]  # for each row the tokens of each of its sequences


def epoch(
    sets: Sequence[Lengths],
    held_out: list[Lengths],
    data_args: Any,
    seed: int,
    workers: int | None,
    stage: str,
) -> dict[str, int]:
    """Return the `rows` of an epoch (packed blocks count), the tokens `seen` in them, and the `longest`.

    `held_out` are the sets that are evaluated on. `ValueError` where packed rows do not fill a single block.
    """
    from datasets import Dataset
    from llamafactory.data.data_utils import merge_dataset, split_dataset

    whole = copy.copy(data_args)
    whole.streaming = False
    merged = merge_dataset([Dataset.from_dict({"lengths": rows}) for rows in sets], whole, seed)
    kept, held = split_dataset(merged, None, whole, seed)
    train: Lengths = list(kept["train"]["lengths"])
    cutoff: int = data_args.cutoff_len
    if data_args.packing:
        blocks = []
        for rows in [train, *(list(part["lengths"]) for part in held.values()), *held_out]:
            blocks.append(sum(_blocks(batch, cutoff, stage) for batch in _batches(rows, data_args, workers)))
            if not blocks[-1]:
                total = sum(map(sum, rows))
                raise ValueError(f"{total} tokens in all fill no block of {cutoff} (packing, cutoff_len)")
        return {"rows": blocks[0], "seen": blocks[0] * cutoff, "longest": cutoff}
    cut = [[min(length, cutoff) for length in row] for row in train]
    return {"rows": len(cut), "seen": sum(map(sum, cut)), "longest": max(map(max, cut), default=0)}


def _batches(rows: Lengths, data_args: Any, workers: int | None) -> Iterator[list[int]]:
    """Yield the lengths of the rows that are packed together: batches of each worker's share of the rows."""
    count = max(1, min(workers or 1, len(rows)))
    each, more = divmod(len(rows), count)
    start, size = 0, data_args.preprocessing_batch_size
    for number in range(count):
        share = rows[start : start + each + (number < more)]
        start += len(share)
        for first in range(0, len(share), size):
            yield [length for row in share[first : first + size] for length in row]


def _blocks(lengths: list[int], cutoff: int, stage: str) -> int:
    """Return the blocks that rows are packed into: running text flows on, cut conversations stay together."""
    from llamafactory.data.processor.processor_utils import greedy_knapsack

    if stage == "pt":
        return sum(lengths) // cutoff
    return len(greedy_knapsack([min(length, cutoff) for length in lengths], cutoff))
