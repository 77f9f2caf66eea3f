"""What a recipe trains of its datasets: `num_samples`, `max_samples`, `mix_strategy` and `val_size`.

`data verify` and `recipe check` count with these functions. Mixing and splitting are LLaMA-Factory's own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tuneyard.core.training.llamafactory import expected_errors


class UntrainableEpochError(ValueError):
    """LLaMA-Factory cannot make an epoch of the rows; `keys` are the settings that it is about."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


class Epoch(NamedTuple):
    """Mixed rows, those of them that are trained, and the held-out sets by name (`datasets.Dataset`)."""

    mixed: Any
    trained: Any
    held_out: Mapping[str, Any]


def drawn_rows(entry: Mapping[str, object], rows: int, most: float | None) -> int:
    """The rows of a dataset that its entry's `num_samples` and the recipe's `max_samples` (`most`) leave."""
    samples = entry.get("num_samples")
    if isinstance(samples, int):
        rows = samples
    if most is not None and most < rows:
        return int(most)
    return rows


def mixed_and_split(sets: Sequence[Any], data_args: Any, seed: int) -> Epoch:
    """Mix the rows of datasets and hold some out, as LLaMA-Factory does before a training.

    `UntrainableEpochError` if it rejects the probabilities of the mixture or the held-out share.
    """
    from llamafactory.data.data_utils import merge_dataset, split_dataset

    try:
        mixed = merge_dataset(list(sets), data_args, seed)
    except expected_errors() as error:
        raise UntrainableEpochError(str(error), "interleave_probs") from error
    try:
        trained, held_out = split_dataset(mixed, None, data_args, seed)
    except expected_errors() as error:
        raise UntrainableEpochError(str(error), "val_size") from error
    return Epoch(mixed, trained["train"], held_out)
