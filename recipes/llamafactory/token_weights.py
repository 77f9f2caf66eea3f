"""python -m recipes.llamafactory.token_weights WEIGHTS.yaml RECIPE.yaml: SFT with key-token weights.

`run_sft` finds its trainer as a global of its module. A subclass put there before `run_exp()` trains, and all
other code stays LLaMA-Factory's.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.core.errors import ContentError, TuneyardError
from tuneyard.core.files import versions
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt.supervision import IGNORED
from tuneyard.core.llamafactory.prompt.token_weights import TokenWeights, read_weights
from tuneyard.core.llamafactory.training import change_sft_trainer, train_here

if TYPE_CHECKING:
    import torch

TESTED_VERSION = "0.9.5"  # of LLaMA-Factory, whose workflow looks its trainer up as a global


def weighted_trainer(parent: type[Any], weights: TokenWeights) -> type[Any]:
    """LLaMA-Factory's SFT trainer with the loss Σ w·ce / Σ w over all tokens of a step on all ranks.

    Where all weights of a step are 1, the parent computes the loss; evaluation is always the parent's.
    """
    import torch

    class WeightedTrainer(parent):  # type: ignore[misc]  # the parent is found at run time
        data_collator: Any

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            collate, tokenizer = self.data_collator, options["tokenizer"]

            def weigh(features: list[dict[str, Any]]) -> dict[str, Any]:
                batch: dict[str, Any] = collate(features)
                rows = [weights.of_labels(row, tokenizer.decode) for row in batch["labels"].tolist()]
                # as bits: DeepSpeed would round floating-point inputs to its own dtype
                batch["token_weights"] = torch.tensor(rows, dtype=torch.float32).view(torch.int32)
                return batch

            self.data_collator = weigh

        def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
            if super()._get_num_items_in_batch(batch_samples, device) is None:
                return None
            total = torch.stack([weights_of(batch).sum() for batch in batch_samples]).sum().to(device)
            if self.args.average_tokens_across_devices and self.args.world_size > 1:
                total = self.accelerator.gather(total).sum()
            return total

        def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
            token_weights = weights_of(inputs)
            inputs = {key: value for key, value in inputs.items() if key != "token_weights"}
            if not model.training or bool((token_weights == inputs["labels"].ne(IGNORED)).all()):
                return super().compute_loss(model, inputs, *arguments, **options)
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            items = options.get("num_items_in_batch")
            loss = weighted_loss(outputs.logits, labels, token_weights, items)
            if self.args.average_tokens_across_devices and items is not None:
                loss = loss * self.accelerator.num_processes
            return loss  # only evaluations ask for outputs as well, and they are the parent's

    return WeightedTrainer


def weights_of(batch: dict[str, Any]) -> "torch.Tensor":
    """Weights of a batch as fp32, one for each label."""
    import torch

    weights: torch.Tensor = batch["token_weights"]
    return weights.view(torch.float32)


def weighted_loss(
    logits: "torch.Tensor", labels: "torch.Tensor", weights: "torch.Tensor", total: "torch.Tensor | None"
) -> "torch.Tensor":
    """Σ weight × cross entropy / total (fp32), or / Σ weight. Logits predict the next label.

    `logits` is batch × length × vocabulary, `labels` and `weights` are batch × length.
    """
    import torch
    from torch.nn.functional import cross_entropy

    next_labels = labels[:, 1:].reshape(-1).to(logits.device)
    predictions = logits[:, :-1].float().reshape(-1, logits.size(-1))
    losses = cross_entropy(predictions, next_labels, ignore_index=IGNORED, reduction="none")
    token_weights = weights[:, 1:].reshape(-1).to(logits.device)
    if total is None:
        total = token_weights.sum()
    # Without any weight the loss is 0.
    return (losses * token_weights).sum() / total.clamp(min=torch.finfo(torch.float32).tiny)


def install(weights: TokenWeights) -> None:
    """Put the weighted trainer where LLaMA-Factory looks it up. `ContentError` for an untested version."""
    installed = versions("llamafactory").get("llamafactory")
    if installed != TESTED_VERSION:
        raise ContentError(
            _(
                "found LLaMA-Factory {installed}, expected {tested}, with which key-token "
                "weights are tested: install that version, or train without recipes/weights",
                installed=installed,
                tested=TESTED_VERSION,
            )
        )
    change_sft_trainer(lambda parent: weighted_trainer(parent, weights))


def train_weighted(weights: Path, recipe: str) -> None:
    """Train a recipe file with key-token weights in this process, which ends with the message of an error."""
    try:
        install(read_weights(weights))
        train_here(recipe)
    except TuneyardError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    train_weighted(Path(sys.argv[1]), sys.argv[2])
