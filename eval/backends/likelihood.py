"""How likely a model finds texts that are given: answers, or all that training reports a loss of.

The loss is summed over the tokens that carry it and never averaged over batches, so that it depends on
neither batch size nor padding. The head is applied to the positions before these tokens alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from tuneyard.core.errors import ContentError
from tuneyard.core.supervision import SupervisedText
from tuneyard.eval.backends.load import Model
from tuneyard.eval.backends.scorers import DIGITS, Fields, Scorer, head_only_at, plan_batches

AnswerTexts = Mapping[str, SupervisedText]  # a row's answers by name
LOGITS = 1 << 28  # at a time: 1 GiB of them in fp32


def losses(model: Model, texts: Mapping[int, SupervisedText], budget: int) -> dict[int, float]:
    """Return each row's loss, -log p in nats over its loss tokens; `ContentError` if it is not finite."""
    found = {row: 0.0 for row, text in texts.items() if not text.learned}
    lengths = {row: len(text.ids) for row, text in texts.items() if row not in found}
    most = LOGITS // model.net.config.get_text_config().vocab_size
    for planned in plan_batches(lengths, budget):
        for batch in _parts(planned, texts, most):
            found.update(zip(batch, _losses(model, [texts[row] for row in batch]), strict=True))
    for row, loss in found.items():
        if not math.isfinite(loss):
            raise ContentError(
                f"row {row}: the model gives {loss} as a loss: its weights or the adapter's overflow; "
                "try --dtype fp32"
            )
    return found


def _parts(batch: Sequence[int], texts: Mapping[int, SupervisedText], most: int) -> Iterator[list[int]]:
    """Yield a batch in parts of at most `most` loss tokens (a row with more is a part by itself)."""
    part: list[int] = []
    for row in batch:
        if part and sum(len(texts[r].learned) for r in (*part, row)) > most:
            yield part
            part = []
        part.append(row)
    yield part


def _losses(model: Model, texts: Sequence[SupervisedText]) -> list[float]:
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
    sums = torch.zeros(len(texts), dtype=torch.float64)
    return sums.index_add(0, rows.cpu(), each.double().cpu()).tolist()


def reading_answers(model: Model, budget: int, texts: Mapping[int, AnswerTexts]) -> Scorer:
    """Return what reads each row's answers, given by name; a row that the context cannot hold is refused.

    Of each row log p in nats (`NAME_logp`), summed over `NAME_tokens` tokens, of every answer.
    """
    longest = {row: max(one.length for one in answers.values()) for row, answers in texts.items()}
    refused = {
        row: f"{length} tokens exceed the context of {model.context}"
        for row, length in longest.items()
        if length > model.context
    }

    def score(batch: Sequence[int]) -> list[Fields]:
        said: dict[int, Fields] = {row: {} for row in batch}
        for name in texts[batch[0]]:
            answers = {row: texts[row][name] for row in batch}
            for row, loss in losses(model, answers, budget).items():
                said[row][f"{name}_logp"] = -round(loss, DIGITS)
                said[row][f"{name}_tokens"] = len(answers[row].learned)
        return list(said.values())

    batches = plan_batches({row: longest[row] for row in longest.keys() - refused}, budget)
    return Scorer(batches, refused, score)


def reading_losses(
    model: Model, texts: Mapping[int, SupervisedText], generating: Scorer | None, budget: int
) -> Scorer:
    """Return what gives the loss of every row, beside an answer where `generating` is there and can ask it.

    Of each row `loss` (nats, summed), `tokens` that carry it, and `model_output` or `refused`;
    `example_tokens` is how long the whole was before it was cut (`truncated`). `ContentError` if a loss is no
    finite number.
    """
    planned, refused = (generating.batches, generating.refused) if generating else ([], {})

    def score(batch: Sequence[int]) -> list[Fields]:
        said: dict[int, Fields] = {row: {"refused": refused[row]} for row in batch if row in refused}
        asked = [row for row in batch if row not in refused]
        if generating and asked:
            said.update(zip(asked, generating.score(asked), strict=True))
        found = losses(model, {row: texts[row] for row in batch}, budget)
        return [
            {
                "loss": round(found[row], DIGITS),
                "tokens": len(texts[row].learned),
                "truncated": texts[row].cut,
                "example_tokens": texts[row].length,
                **said.get(row, {}),
            }
            for row in batch
        ]

    rest = texts.keys() - {row for batch in planned for row in batch}
    batches = planned + plan_batches({row: len(texts[row].ids) for row in rest}, budget)
    return Scorer(batches, {}, score)
