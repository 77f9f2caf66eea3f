"""LLaMA-Factory's processors, which make ids and labels of rows."""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

MODULES = {"sft": "supervised", "rm": "pairwise", "kto": "feedback"}
"""Modules of the processors by stage."""


def processor_module(stage: str) -> ModuleType:
    """The module of a stage's processor. It looks up `infer_seqlen`, which cuts a row, as a global."""
    return import_module(f"llamafactory.data.processor.{MODULES[stage]}")


def packed_blocks(lengths: Sequence[int], cutoff: int) -> int:
    """The number of blocks of `cutoff` tokens into which rows of these lengths are packed."""
    from llamafactory.data.processor.processor_utils import greedy_knapsack

    return len(greedy_knapsack([min(length, cutoff) for length in lengths], cutoff))
