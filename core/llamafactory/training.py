"""LLaMA-Factory's trainings, in this process."""

import sys
from collections.abc import Callable
from typing import Any


def train_here(recipe: str) -> None:
    """Train a recipe file in this process alone, as each rank of a distributed training does."""
    from llamafactory.train.tuner import run_exp

    sys.argv = ["llamafactory-cli", recipe]
    run_exp()


def change_sft_trainer(change: Callable[[type[Any]], type[Any]]) -> None:
    """Put another class where LLaMA-Factory's SFT looks up its trainer, made of its own class."""
    from llamafactory.train.sft import workflow

    workflow.CustomSeq2SeqTrainer = change(workflow.CustomSeq2SeqTrainer)
