"""The rows that a recipe trains: `mix_strategy` and `val_size`, by LLaMA-Factory's own functions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tuneyard.core.llamafactory.loader import expected_errors


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
