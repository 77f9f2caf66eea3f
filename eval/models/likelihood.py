"""Log-probabilities by a model in this process: of labels after a prompt, and of existing texts.

Labels take one forward pass for each prompt and label beginning. The beginning that all prompts share is
computed once. The head is applied only to the positions that matter, over the whole vocabulary, so that the
probabilities are true ones. A loss is summed over the loss tokens and never averaged over batches, so that it
depends on neither batch size nor padding.
"""

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt.supervision import SupervisedText
from tuneyard.eval.models import Backend, Network
from tuneyard.eval.models.batch_plan import (
    DIGITS,
    BatchPlan,
    Fields,
    Ids,
    Images,
    Logs,
    Prompts,
    next_tokens,
    plan_batches,
)

if TYPE_CHECKING:
    import torch


AnswerTexts = Mapping[str, SupervisedText]  # a row's answers by name
LOGITS = 1 << 28  # at a time: 1 GiB of them in fp32
SHORTEST_PREFIX = 8  # below this, continuing from a cache costs more than it saves


def shared_prefix(prompts: Collection[Ids]) -> int:
    """Count the ids that all prompts begin with, leaving at least one of each; 0 if too few to gain."""
    if len(prompts) < 2:
        return 0
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    length = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        length += 1
    length = min(length, min(map(len, prompts)) - 1)
    return length if length >= SHORTEST_PREFIX else 0


class LogProbabilities:
    """Log-probabilities of spellings (token ids, none empty) after each prompt.

    The states of the shared beginning belong to the weights at the first `score`: make a new object when the
    weights change.
    """

    def __init__(
        self,
        model: Network,
        prompts: Prompts,
        spellings: Sequence[Ids],
        images: Images = None,
    ) -> None:
        """`images` are the files of the placeholders in a row's prompt."""
        self.model, self.prompts, self.images = model, prompts, images or {}
        self.following = dict(next_tokens(spellings))
        """Beginnings of spellings, each with the tokens that follow it in one."""
        begins = sorted(self.following)  # a beginning of others comes right before one of them
        pairs = itertools.zip_longest(begins, begins[1:])
        self.passes = [begin for begin, after in pairs if after is None or after[: len(begin)] != begin]
        """The beginnings that need a forward pass. A longer one's pass gives a shorter one's position too."""
        self.common = shared_prefix(prompts.values())
        extra = max(map(len, self.following)) - self.common
        self.batches = plan_batches({row: len(ids) + extra for row, ids in prompts.items()}, model.budget)
        """All rows. The plan depends only on prompts, spellings and the model's budget."""

    def score(self, batch: Sequence[int]) -> list[Logs]:
        """Log-probabilities of the spellings' tokens, row by row."""
        import torch

        by_row: list[Logs] = [{} for _row in batch]
        remaining = dict(self.following)
        with torch.inference_mode():
            for begin in self.passes:
                scores = self._logits(batch, begin)
                for place in range(len(begin) + 1):
                    tokens = remaining.pop(begin[:place], [])
                    of_rows = scores[:, place, tokens].tolist()
                    for logs, values in zip(by_row, of_rows, strict=True):
                        for token, value in zip(tokens, values, strict=True):
                            logs[*begin[:place], token] = value
        return by_row

    def _logits(self, batch: Sequence[int], begin: tuple[int, ...]) -> "torch.Tensor":
        """Log-probabilities [rows, len(begin) + 1, vocabulary] from the prompt's last token on."""
        import torch

        shared, cache = self.prefix
        device = self.model.device
        rows = [[*self.prompts[row][shared:], *begin] for row in batch]
        width = max(map(len, rows))
        # The tokens of a row never see the padding on its right: no mask is needed.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        last = torch.tensor([len(row) - 1 - len(begin) for row in rows])
        positions = (last[:, None] + torch.arange(len(begin) + 1)).to(device)
        each_row = torch.arange(len(rows), device=device)[:, None]
        inputs: dict[str, Any] = {}
        if self.model.vision:  # the row is alone in its batch
            inputs = self.model.vision.inputs(rows[0], self.images.get(batch[0], ()))
        if cache is not None:
            inputs["past_key_values"] = copy.deepcopy(cache)
            inputs["past_key_values"].batch_repeat_interleave(len(rows))
        with head_only_at(self.model.net, each_row, positions):
            logits = self.model.net(input_ids=ids, use_cache=cache is not None, **inputs).logits
        scores: torch.Tensor = logits.view(*positions.shape, -1).float().log_softmax(-1)
        return scores

    @cached_property
    def prefix(self) -> tuple[int, Any]:
        """Number of shared ids and their cached states; 0 and None if rows cannot continue from a cache."""
        import torch
        from transformers.cache_utils import DynamicLayer

        if self.model.alone or not self.common:
            return 0, None
        begin = list(next(iter(self.prompts.values())))[: self.common]
        ids = torch.tensor([begin], device=self.model.device)
        with torch.inference_mode(), head_only_at(self.model.net, ids.new_zeros(1), ids.new_zeros(1)):
            cache = self.model.net(input_ids=ids, use_cache=True).past_key_values
        if all(type(layer) is DynamicLayer for layer in cache.layers):
            return self.common, cache
        return 0, None  # windows and recurrent states cannot be continued by rows of other lengths


@contextlib.contextmanager
def head_only_at(net: Any, rows: "torch.Tensor", positions: "torch.Tensor") -> Iterator[None]:
    """Apply the head to k states only, [k, hidden], at `rows` and `positions`, which broadcast to k."""
    handle = net.get_output_embeddings().register_forward_pre_hook(
        lambda _module, inputs: inputs[0][rows, positions].reshape(-1, inputs[0].shape[-1]).contiguous()
    )
    try:
        yield
    finally:
        handle.remove()


def token_losses(model: Network, texts: Mapping[int, SupervisedText], budget: int) -> dict[int, list[float]]:
    """-log p in nats of each loss token of each row. `ContentError` if a sum over a row is not finite."""
    row_losses: dict[int, list[float]] = {row: [] for row, text in texts.items() if not text.learned}
    lengths = {row: len(text.ids) for row, text in texts.items() if row not in row_losses}
    most = LOGITS // model.net.config.get_text_config().vocab_size
    for planned in plan_batches(lengths, budget):
        for batch in _parts(planned, texts, most):
            batch_losses = _token_losses(model, [texts[row] for row in batch])
            row_losses.update(zip(batch, batch_losses, strict=True))
    for row, by_token in row_losses.items():
        loss = sum(by_token)
        if not math.isfinite(loss):
            raise ContentError(
                _(
                    "row {row}: the model gives {loss} as a loss: its weights or the adapter's overflow; "
                    "try --dtype fp32",
                    row=row,
                    loss=loss,
                )
            )
    return row_losses


def _parts(batch: Sequence[int], texts: Mapping[int, SupervisedText], most: int) -> Iterator[list[int]]:
    """Split a batch into parts of at most `most` loss tokens. A row with more is a part by itself."""
    part: list[int] = []
    for row in batch:
        if part and sum(len(texts[r].learned) for r in (*part, row)) > most:
            yield part
            part = []
        part.append(row)
    yield part


def _token_losses(model: Network, texts: Sequence[SupervisedText]) -> list[list[float]]:
    """-log p in nats of each loss token of each text, all texts in one forward pass."""
    import torch

    width = max(len(text.ids) for text in texts)
    # Padding on the right is never seen by the tokens before it: no mask is needed.
    padded = [[*text.ids, *[0] * (width - len(text.ids))] for text in texts]
    places = [(n, i) for n, text in enumerate(texts) for i in text.learned]
    rows, columns = torch.tensor(places, device=model.device).T
    ids = torch.tensor(padded, device=model.device)
    seen = model.vision.inputs(padded[0], texts[0].images) if model.vision else {}  # then a row is alone
    with torch.inference_mode(), head_only_at(model.net, rows, columns - 1):
        logits = model.net(input_ids=ids, use_cache=False, **seen).logits
        each = torch.nn.functional.cross_entropy(
            logits.view(len(places), -1).float(), ids[rows, columns], reduction="none"
        )
    by_text = torch.split(each.cpu(), [len(text.learned) for text in texts])
    return [of_text.tolist() for of_text in by_text]


def reading_answers(backend: Backend, texts: Mapping[int, AnswerTexts]) -> BatchPlan:
    """Batches of the probability of each row's named answers, e.g. `chosen` and `rejected`.

    It gives log p in nats (`NAME_logp`) of every answer, summed over `NAME_tokens` tokens. It refuses rows
    that are longer than the context.
    """
    longest: dict[int, int] = {}
    too_long: dict[int, str] = {}
    for row, answers in texts.items():
        length = max(answer.length for answer in answers.values())
        if length > backend.context:
            too_long[row] = _(
                "{number} tokens exceed the context of {context}", number=length, context=backend.context
            )
        else:
            longest[row] = length

    def score(batch: Sequence[int]) -> list[Fields]:
        fields: dict[int, dict[str, float]] = {row: {} for row in batch}
        for name in texts[batch[0]]:
            answers = {row: texts[row][name] for row in batch}
            for row, losses in backend.token_losses(answers).items():
                fields[row][f"{name}_logp"] = -round(sum(losses), DIGITS)
                fields[row][f"{name}_tokens"] = len(answers[row].learned)
        return [cast(Fields, each) for each in fields.values()]

    return BatchPlan(plan_batches(longest, backend.budget), too_long, score)


def reading_losses(
    read: Callable[[Mapping[int, SupervisedText]], Mapping[int, list[float]]],
    budget: int,
    texts: Mapping[int, SupervisedText],
    generating: BatchPlan | None,
) -> BatchPlan:
    """Batches of each row's loss (`read` is `Backend.token_losses`), with `generating` of an answer, too.

    It gives `loss` (nats, summed), the number of its `tokens`, and `model_output` or `too_long`. `ids` and
    `token_losses` are the row's tokens, and the loss of each (None for a masked one).
    `example_tokens` is the length of the example before it was cut (`truncated`). `ContentError` if a loss
    is not finite.
    """
    planned, too_long = (generating.batches, generating.too_long) if generating else ([], {})

    def score(batch: Sequence[int]) -> list[Fields]:
        answers: dict[int, Fields] = {row: {"too_long": too_long[row]} for row in batch if row in too_long}
        accepted = [row for row in batch if row not in too_long]
        if generating and accepted:
            answers.update(zip(accepted, generating.score(accepted), strict=True))
        row_losses = read({row: texts[row] for row in batch})
        scored: list[Fields] = []
        for row in batch:
            text, learned_losses = texts[row], row_losses[row]
            losses_of_ids: list[float | None] = [None] * len(text.ids)
            for place, loss in zip(text.learned, learned_losses, strict=True):
                losses_of_ids[place] = round(loss, DIGITS)
            fields: Fields = {
                "ids": text.ids,
                "token_losses": losses_of_ids,
                "loss": round(sum(learned_losses), DIGITS),
                "tokens": len(text.learned),
                "truncated": text.cut,
                "example_tokens": text.length,
                **answers.get(row, {}),
            }
            scored.append(fields)
        return scored

    rest = texts.keys() - {row for batch in planned for row in batch}
    batches = planned + plan_batches({row: len(texts[row].ids) for row in rest}, budget)
    return BatchPlan(batches, {}, score)
