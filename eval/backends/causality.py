"""Check that a loaded model is causal: it predicts each token from the tokens before it alone.

A few architectures of transformers lose their causal mask under one of its attention kernels. Such a model
reads the answer that it is scored on, so all its figures are wrong. No other check notices that.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.errors import ContentError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SHARED, CHANGED = 8, 8  # tokens that both texts begin with, and tokens after them that differ
EXACT = 1e-3  # in fp32, whose sums differ by some 1e-6
ROUNDED = 0.2  # where weights or sums are rounded: the experts of a mixture, columns in 8 bits


def check_causal(net: "PreTrainedModel", folder: Path, *, exact: bool) -> None:
    """Raise `ContentError` if the predictions for a text depend on the tokens that follow it.

    Two short texts that begin alike go through the model. The log-probabilities of all tokens after each
    shared token must be equal but for rounding: `exact` allows that of fp32 alone. The mean difference is
    compared with the spread of the log-probabilities, so that neither depends on the size of the model.
    """
    first, second = _log_probabilities(net)
    difference = (first - second).abs().mean().item()
    spread = first.std(-1).mean().item()
    allowed = EXACT if exact else ROUNDED
    if difference <= allowed * spread or not first.isfinite().all():  # nan is refused where it is scored
        return
    attention = getattr(net.config, "_attn_implementation", None) or "its"
    largest = (first - second).abs().max().item()
    raise ContentError(
        f"{folder}: the model ({net.config.model_type}, {attention} attention) is not causal: other tokens "
        f"after a text change the log-probabilities within it by up to {largest:.2g} nats; expected none. It "
        "would see the answers that it is scored on. Score another model, or this one with a release of "
        "transformers that masks it"
    )


def _log_probabilities(net: "PreTrainedModel") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Compute fp32 log-probabilities [shared tokens, vocabulary] for two texts with the same beginning."""
    import torch

    size = net.get_input_embeddings().num_embeddings
    texts = torch.arange(SHARED + 2 * CHANGED) % size
    shared, first, second = texts.split([SHARED, CHANGED, CHANGED])
    log_probabilities = []
    with torch.inference_mode():
        for rest in (first, second):
            ids = torch.cat([shared, rest])[None].to(net.device)
            logits = net(input_ids=ids, use_cache=False).logits
            log_probabilities.append(logits[0, :SHARED].float().log_softmax(-1))
    return log_probabilities[0], log_probabilities[1]
