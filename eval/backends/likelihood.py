"""Compute the loss of existing texts: answers, or all tokens that training reports a loss for.

The loss is summed over the loss tokens and never averaged over batches, so that it depends on neither batch
size nor padding. The head is applied to the positions before these tokens alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from tuneyard.core.errors import ContentError
from tuneyard.core.prompt.supervision import SupervisedText
from tuneyard.eval.backends.load import Model
from tuneyard.eval.backends.scorers import DIGITS, Fields, Scorer, head_only_at, plan_batches

AnswerTexts = Mapping[str, SupervisedText]  # a row's answers by name
LOGITS = 1 << 28  # at a time: 1 GiB of them in fp32


def losses(model: Model, texts: Mapping[int, SupervisedText], budget: int) -> dict[int, float]:
    """Sum -log p in nats over the loss tokens of each row. `ContentError` if the sum is not finite."""
    return {row: sum(by_token) for row, by_token in token_losses(model, texts, budget).items()}


def token_losses(model: Model, texts: Mapping[int, SupervisedText], budget: int) -> dict[int, list[float]]:
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
                f"row {row}: the model gives {loss} as a loss: its weights or the adapter's overflow; "
                "try --dtype fp32"
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


def _token_losses(model: Model, texts: Sequence[SupervisedText]) -> list[list[float]]:
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


def reading_answers(model: Model, budget: int, texts: Mapping[int, AnswerTexts]) -> Scorer:
    """Scorer of the probability of each row's named answers, e.g. `chosen` and `rejected`.

    It gives log p in nats (`NAME_logp`) of every answer, summed over `NAME_tokens` tokens. It refuses rows
    that are longer than the context.
    """
    longest: dict[int, int] = {}
    too_long: dict[int, str] = {}
    for row, answers in texts.items():
        longest[row] = max(answer.length for answer in answers.values())
        if longest[row] > model.context:
            too_long[row] = f"{longest[row]} tokens exceed the context of {model.context}"

    def score(batch: Sequence[int]) -> list[Fields]:
        fields: dict[int, Fields] = {row: {} for row in batch}
        for name in texts[batch[0]]:
            answers = {row: texts[row][name] for row in batch}
            for row, loss in losses(model, answers, budget).items():
                fields[row][f"{name}_logp"] = -round(loss, DIGITS)
                fields[row][f"{name}_tokens"] = len(answers[row].learned)
        return list(fields.values())

    batches = plan_batches({row: longest[row] for row in longest.keys() - too_long}, budget)
    return Scorer(batches, too_long, score)


def reading_losses(
    model: Model, texts: Mapping[int, SupervisedText], generating: Scorer | None, budget: int
) -> Scorer:
    """Scorer of each row's loss and, with `generating`, of a generated answer to each row.

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
        row_losses = token_losses(model, {row: texts[row] for row in batch}, budget)
        scored: list[Fields] = []
        for row in batch:
            text, learned_losses = texts[row], row_losses[row]
            losses_of_ids: list[float | None] = [None] * len(text.ids)
            for place, loss in zip(text.learned, learned_losses, strict=True):
                losses_of_ids[place] = round(loss, DIGITS)
            fields = {
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
    return Scorer(batches, {}, score)


def _by_token(text: SupervisedText, learned_losses: Sequence[float]) -> Fields:
    """The ids of a text and the loss of each, None for a masked one."""
    losses_of_ids: list[float | None] = [None] * len(text.ids)
    for place, loss in zip(text.learned, learned_losses, strict=True):
        losses_of_ids[place] = round(loss, DIGITS)
    return {"ids": text.ids, "token_losses": losses_of_ids}
