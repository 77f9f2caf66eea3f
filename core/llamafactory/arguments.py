"""LLaMA-Factory's classes of arguments, whose fields are the keys of a recipe."""

from collections.abc import Sequence
from typing import Any


def training_arguments() -> Sequence[type[Any]]:
    """The dataclasses that parse a recipe."""
    from llamafactory.hparams import parser

    classes: Sequence[type[Any]] = parser._TRAIN_ARGS
    return classes
