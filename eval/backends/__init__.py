"""Backends answer prompts: transformers (load.py), vLLM (engine.py), a server (server.py), and replay.py.

Replay gives back the outputs of an earlier run (--rescore). A new backend is a file with a `Backend`, and a
line in eval/scoring/candidates.py that opens it. Nobody else asks which backend it has.
"""
# ruff: noqa: ARG002  the arguments are for the backends

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.prompt import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tuneyard.adapters.weighted import WeightedAdapter
    from tuneyard.core.prompt import Encode, Messages
    from tuneyard.core.prompt.supervision import SupervisedText
    from tuneyard.eval.backends.connection import RefusedError
    from tuneyard.eval.backends.scorers import Batches, Ids, Images, Prompts, Reading
    from tuneyard.eval.backends.vision import Vision


@dataclass(eq=False, kw_only=True)
class Backend:
    """A model with its tokenizer, and the facts that the results record.

    - `context`: the largest number of tokens in a prompt and its answer.
    - `budget`: tokens in a batch.
    - `digest`: the hash of the model's files; `settings`: what else a resumed run must share.

    Five methods answer: `apply`, `reading`, `token_losses`, `batches` and `chat`. Those that a backend lacks
    raise `RequestError`.
    """

    tokenizer: Tokenizer = None  # of a backend that only answers
    ends: Sequence[int] = ()
    """The tokens that end an answer."""
    context: int = 0
    budget: int = 0
    digest: str = ""
    dtype: str = ""
    device: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    sampling: Mapping[str, float] = field(default_factory=dict)
    vision: "Vision | None" = None

    def apply(self, parts: "Sequence[WeightedAdapter]") -> None:
        """Answer as the base with these adapters from now on. () is the base."""

    def reading(
        self,
        prompts: "Prompts",
        spellings: "Sequence[Ids]",
        images: "Images" = None,
    ) -> "Reading":
        """Put prompts into batches; give the log-probability of each token of the spellings after them."""
        raise self.needs_model()

    def token_losses(self, texts: "Mapping[int, SupervisedText]") -> dict[int, list[float]]:
        """-log p in nats of each loss token of each row."""
        raise self.needs_model()

    def batches(self, lengths: Mapping[int, int]) -> "Batches":
        """Put conversations to answer into batches; `lengths` are the tokens of each with its answer."""
        raise self.needs_model()

    def chat(
        self, talks: "Sequence[Messages]", encode: "Encode", longest: int
    ) -> "Sequence[str | RefusedError]":
        """Answer each conversation. The last turn of each is the user's.

        A server's refusal takes the place of an answer to a conversation that is too long for its context.
        """
        raise self.needs_model()

    def needs_model(self) -> RequestError:
        """The error for what only a model in this process does."""
        return RequestError("--backend: this needs the model in this process, leave it out")


class Network(Backend):
    """A backend with its weights in this process, as the functions that run it see it.

    They do not name `load.Model`: for mypy over the folder eval/ that is another class than its own.

    `alone` is true if every prompt goes through it whole and by itself.
    """

    net: "PreTrainedModel"
    alone: bool


@contextlib.contextmanager
def loading(path: object, problem: str = "cannot be loaded") -> Iterator[None]:
    """Turn a library's error about a model, or its inputs, into `ContentError` with its first line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ContentError(f"{path}: {problem}: {str(error).splitlines()[0]}") from error
