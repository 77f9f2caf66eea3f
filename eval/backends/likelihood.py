"""How likely a model finds texts that are given: the loss that training reports, token by token.

The loss is summed over the tokens that carry it and never averaged over batches, so that it depends on
neither batch size nor padding. The head is applied to the positions before these tokens alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from core.errors import ContentError
from core.supervision import SupervisedText
from eval.backends.score import head_only_at, plan_batches

if TYPE_CHECKING:
    from eval.backends.load import Model

LOGITS = 1 << 28  # at a time: 1 GiB of them in fp32


def losses(model: "Model", texts: Mapping[int, SupervisedText], budget: int) -> dict[int, float]:
    """Return each row's loss: -log p in nats, summed over its loss tokens (0 where there is none).

    `ContentError` if it is no finite number.
    """
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


def _losses(model: "Model", texts: Sequence[SupervisedText]) -> list[float]:
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
