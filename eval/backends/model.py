"""The backend of transformers: a causal language model in this process."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tuneyard.core.prompt import Encode
from tuneyard.core.prompt.supervision import SupervisedText
from tuneyard.eval.backends import Backend
from tuneyard.eval.backends.apply import applied
from tuneyard.eval.backends.generate import draw, generate
from tuneyard.eval.backends.likelihood import choosing, token_losses
from tuneyard.eval.backends.scorers import Messages, Plan, Prompts, Scorer, plan_batches, prompts_too_long
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
class Model(Backend):
    """A causal language model in eval mode, with its tokenizer and the settings that the results record.

    - `alone`: batching or a shared cache would change its answers, so every prompt goes through it whole and
      by itself.
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

    def __post_init__(self) -> None:
        if self.alone:
            self.budget = 1  # one row a batch, also with --batch-tokens

    @property
    def local(self) -> "Model":
        """The model itself."""
        return self

    def seeing(self, vision: Vision) -> "Model":
        """The same model, which is shown images: rows go through it one at a time."""
        return replace(self, alone=True, vision=vision, budget=1, settings=vision.settings)

    def apply(self, parts: "Sequence[WeightedAdapter]") -> None:
        """Take off the adapters of the last call and apply these, unless they are the same."""
        if parts is self.applied.parts:
            return
        self.applied.parts = None
        self.applied.undo.close()
        self.applied.undo.enter_context(applied(self, parts, merged=self.merged))
        self.applied.parts = parts

    def choosing(
        self,
        prompts: Prompts,
        spellings: Mapping[str, Sequence[str]],
        images: Mapping[int, Sequence[str]] | None = None,
    ) -> Scorer:
        """Scorer that compares labels after each prompt."""
        return choosing(self, prompts, spellings, self.budget, images)

    def token_losses(self, texts: Mapping[int, SupervisedText]) -> dict[int, list[float]]:
        """-log p in nats of each loss token of each row."""
        return token_losses(self, texts, self.budget)

    def plan(self, talks: Mapping[int, Messages], encode: Encode, longest: int) -> Plan:
        """Plan batches of rows, longest first. Rows that do not fit the context are too long."""
        prompts = {row: encode(talk) for row, talk in talks.items()}
        too_long = prompts_too_long(prompts, longest, self.context)
        lengths = {row: len(ids) + longest for row, ids in prompts.items() if row not in too_long}
        # one by one where they are drawn: an answer then depends on its own prompt alone
        return plan_batches(lengths, 1 if self.draws else self.budget), too_long

    def chat(self, talks: Sequence[Messages], encode: Encode, longest: int) -> list[str]:
        """Answer each conversation, greedily or as the model's settings draw."""
        prompts = [encode(talk) for talk in talks]
        if not self.draws:
            return generate(self, prompts, longest)
        return [draw(self, prompt, longest, self.sampling, self.seed) for prompt in prompts]
