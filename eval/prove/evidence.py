"""What is known of a served model on one dataset. The diagnosis names the causes of differences from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.eval.backends.generate import Generated
from tuneyard.eval.backends.scorers import Ids
from tuneyard.eval.backends.served import ServerFacts
from tuneyard.eval.prove.proof import Answers, Labels, Tolerance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Evidence:
    """A served model next to the unmerged adapter, on the rows of a dataset that fit the context.

    All mappings are by row. A part is None if the server does not offer it, and then it was not compared.
    """

    facts: ServerFacts
    """What the server reports of itself: engine, version, template, context, sampling, adapters."""
    model: str
    """Name of the compared model or adapter on the server."""
    dataset: str
    parts: Sequence[WeightedAdapter]
    """The adapters here, with their configs (`part.adapter.config`): rank, alpha, rsLoRA, patterns."""
    tokenizer: "PreTrainedTokenizerBase"
    expected_ids: Mapping[int, Ids]
    """Prompts as in training. Labels and greedy texts of both sides follow these ids."""
    served_ids: Mapping[int, Ids] | None
    expected: Answers
    """Answers of the unmerged adapter in this process."""
    served: Answers
    """Answers of the server to our ids, greedy and without penalties."""
    chat: Mapping[int, Generated] | None
    """Answers of /chat/completions to the messages alone, with the server's own sampling."""
    ends: Sequence[int]
    """Tokens that end an answer in training."""
    tolerance: Tolerance
    labels_of: Callable[[Sequence[WeightedAdapter]], Labels | None]
    """Compute the labels' log-probabilities with other adapters or weights; the base's for none. Slow: ask
    only after a difference."""
    texts_of: Callable[[Sequence[WeightedAdapter]], Mapping[int, Generated]]
    """The same for greedy texts."""
    max_new_tokens: int
    refusals: Sequence[str]
    """Errors of the server for single rows, which its answers then lack, or for the adapter."""
    ask_chat: Callable[[Mapping[str, object]], Mapping[int, Generated]] | None
    """Like `chat`, with more settings in each request. Ask only after a difference."""
