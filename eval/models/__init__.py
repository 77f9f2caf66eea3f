"""Backends answer prompts: transformers (load.py), vLLM (engine.py), a server (server.py), and replay.py.

Replay gives back the outputs of an earlier run: --rescore is scoring with it. backends/ has the choices of
`--backend`, a file each. Nobody asks which backend there is, only what it can do.
"""
# ruff: noqa: ARG002  the arguments are for the backends

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt import Tokenizer
from tuneyard.eval.models.batch_plan import BatchPlan, label_fields, prompts_too_long, tokenise

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tuneyard.adapters.model.weighted import WeightedAdapter
    from tuneyard.core.llamafactory.prompt import Encode, Messages
    from tuneyard.core.llamafactory.prompt.supervision import SupervisedText
    from tuneyard.eval.models.batch_plan import Batches, Ids, Images, Prompts, Reading, Refused, TooLong
    from tuneyard.eval.models.vision import Vision

NO_LIMIT = 1 << 30  # tokens
LIBRARY_ERRORS = (
    OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError,
    AssertionError, MemoryError,
)  # fmt: skip
"""What transformers, torch and gguf raise at files that they cannot use."""
NOT_LOADED = _("cannot be loaded")


@dataclass(eq=False, kw_only=True)
class Backend:
    """A model with its tokenizer, and the facts that the results record.

    - `context`: the largest number of tokens in a prompt and its answer.
    - `budget`: tokens in a batch.
    - `folder`: the model's files; `digest`: their hash; `settings`: what else a resumed run must share.
    - `run`: the folder of an earlier run whose outputs it gives back, None if it answers by itself.

    Five methods answer: `apply`, `choosing` (by `reading`), `losses` (by `token_losses`), `batches` and
    `chat`. Those that a backend lacks raise `RequestError`.
    """

    tokenizer: Tokenizer = None  # of a backend that only answers
    ends: Sequence[int] = ()
    """The tokens that end an answer."""
    context: int = NO_LIMIT
    vocabulary: int = NO_LIMIT
    """The number of tokens that the weights know."""
    budget: int = 0
    folder: Path = Path()
    digest: str = ""
    dtype: str = ""
    device: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Settings of the model's generation_config, as arguments of transformers' `generate`, without a
    temperature if it is greedy."""
    draws: bool = False
    """True if answers are drawn by them, with `seed`."""
    seed: int | None = None
    merged: bool = False
    """True if adapters are merged into the weights."""
    special_tokens: bool = False
    """True if answers keep special tokens. Some models mark tool calls with them."""
    vision: "Vision | None" = None
    run: Path | None = None

    def for_rows(self, name: str, count: int) -> "Backend":
        """The backend for the first `count` rows of a dataset. `name` is MODEL/DATASET, as in a run."""
        return self

    def as_trained(self, tokenizer: "Tokenizer | None", ends: Sequence[int] | None) -> Self:
        """The same model with the tokenizer and the end tokens of a training, None for its own."""
        if tokenizer is None or ends is None:
            return self
        possible_ends = [end for end in ends if end < self.vocabulary]  # others were never trained
        return replace(self, tokenizer=tokenizer, ends=possible_ends)

    def seeing(self, template: str, think: bool, pixels: Mapping[str, int]) -> "Backend":
        """The backend for rows with images of these sizes."""
        raise self.needs_model()

    def apply(self, adapters: "Sequence[WeightedAdapter]") -> None:
        """Answer as the base with these adapters from now on. () is the base."""

    def choosing(
        self, prompts: "Prompts", spellings: Mapping[str, Sequence[str]], images: "Images" = None
    ) -> BatchPlan:
        """Batches that compares labels after each prompt, each label by all its spellings.

        `RequestError` for a backend that has no tokenizer: it only answers.
        """
        if self.tokenizer is None:
            raise self.needs_model()
        labels = tokenise(self.tokenizer, self.ends, spellings)
        tokens = [ids for forms in labels.values() for ids in forms]
        too_long = prompts_too_long(prompts, max(map(len, tokens)), self.context)
        fitting = {row: ids for row, ids in prompts.items() if row not in too_long}
        batches, read = self.reading(fitting, tokens, images)
        return BatchPlan(batches, too_long, partial(label_fields, labels, read))

    def reading(
        self,
        prompts: "Prompts",
        spellings: "Sequence[Ids]",
        images: "Images",
    ) -> "Reading":
        """Put prompts into batches; give the log-probability of each token of the spellings after them."""
        raise self.needs_model()

    def losses(
        self, texts: "Callable[[], Mapping[int, SupervisedText]]", generating: BatchPlan | None
    ) -> BatchPlan:
        """Batches of each row's loss and, with `generating`, of an answer. `texts` makes the rows' texts."""
        from tuneyard.eval.models.likelihood import reading_losses

        return reading_losses(self.token_losses, self.budget, texts(), generating)

    def token_losses(self, texts: "Mapping[int, SupervisedText]") -> dict[int, list[float]]:
        """-log p in nats of each loss token of each row."""
        raise self.needs_model()

    def batches(self, lengths: Mapping[int, int]) -> "Batches":
        """Put conversations to answer into batches; `lengths` are the tokens of each with its answer."""
        raise self.needs_model()

    def chat(
        self, talks: "Mapping[int, Messages]", encode: "Encode", longest: int
    ) -> "Sequence[str | TooLong | Refused]":
        """Answer the conversation of each row. The last turn of each is the user's.

        A conversation that is too long for a server's context, or that it refuses, has the reason in place of
        an answer.
        """
        raise self.needs_model()

    def needs_model(self) -> RequestError:
        """The error for what only a model in this process does."""
        return RequestError(_("--backend: this needs the model in this process, leave it out"))


class Network(Backend):
    """A backend with its weights in this process, as the functions that run it see it.

    They do not name `load.Model`: for mypy over the folder eval/ that is another class than its own.

    `alone` is true if every prompt goes through it whole and by itself.
    """

    net: "PreTrainedModel"
    alone: bool


@contextlib.contextmanager
def loading(path: object, problem: str = NOT_LOADED) -> Iterator[None]:
    """Turn a library's error about a model, or its inputs, into `ContentError` with its first line."""
    try:
        yield
    except LIBRARY_ERRORS as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ContentError(
            _("{path}: {problem}: {reason}", path=path, problem=problem, reason=first_line)
        ) from error
