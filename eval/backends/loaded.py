"""A model that is loaded in this process: what its adapters, its answers and its likelihoods share."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuneyard.eval.backends import Backend
from tuneyard.eval.backends.vision import Vision

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tuneyard.adapters.weighted import WeightedAdapter


@dataclass(slots=True, eq=False)
class Applied:
    """The adapters that are applied to a model, None before the first, and how to take them off."""

    parts: "Sequence[WeightedAdapter] | None" = None
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


@dataclass(eq=False)
class LoadedModel(Backend):
    """A causal language model in eval mode, with its tokenizer and the settings that the results record.

    - `alone`: batching or a shared cache would change its answers, so every prompt goes through it whole and
      by itself. Its `budget` is 1 then, also with --batch-tokens.
    - `sampling`: settings of its generation_config, as arguments of `generate`, without a temperature if
      it is greedy. `draws` is true if answers are drawn by them, with `seed`.
    - `vision`: the image processor, if rows have images.
    - `merged`: adapters are merged into the weights.
    """

    net: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    device: str
    dtype: str
    context: int
    alone: bool = False
    sampling: Mapping[str, float] = field(default_factory=dict)
    vision: Vision | None = None
    digest: str = ""
    budget: int = 0
    draws: bool = False
    seed: int | None = None
    merged: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)
    applied: Applied = field(default_factory=Applied)
