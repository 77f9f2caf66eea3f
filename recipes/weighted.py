"""python -m recipes.weighted WEIGHTS.yaml RECIPE.yaml: LLaMA-Factory's SFT with key-token weights.

`run_sft` looks its trainer up as a global of its module, so a subclass put there before `run_exp()` trains
with everything else unchanged, under torchrun too (tests/integration proves the losses).
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ContentError, TuneyardError
from core.files import versions
from recipes.token_weights import IGNORED, TokenWeights, read_weights

if TYPE_CHECKING:
    import torch

PROVED = "0.9.5"  # the version of LLaMA-Factory whose workflow was read and tested


def weighted_trainer(parent: type[Any], weights: TokenWeights) -> type[Any]:
    """Return LLaMA-Factory's SFT trainer with the loss Σ w·ce / Σ w over all tokens of a step, all ranks'.

    Where all weights of a step are 1, the parent computes the loss; evaluation is always the parent's.
    """
    import torch

    class WeightedTrainer(parent):  # type: ignore[misc]  # the parent is found at run time
        data_collator: Any

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            collate, tokenizer = self.data_collator, named["tokenizer"]

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

        def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
            token_weights = weights_of(inputs)
            inputs = {key: value for key, value in inputs.items() if key != "token_weights"}
            if not model.training or bool((token_weights == inputs["labels"].ne(IGNORED)).all()):
                return super().compute_loss(model, inputs, *arguments, **named)
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            items = named.get("num_items_in_batch")
            loss = weighted_loss(outputs.logits, labels, token_weights, items)
            if self.args.average_tokens_across_devices and items is not None:
                loss = loss * self.accelerator.num_processes
            return (loss, outputs) if named.get("return_outputs") else loss

    return WeightedTrainer


def weights_of(batch: dict[str, Any]) -> "torch.Tensor":
    """Return the weights of a batch as fp32, one for each label."""
    import torch

    weights: torch.Tensor = batch["token_weights"]
    return weights.view(torch.float32)


def weighted_loss(
    logits: "torch.Tensor", labels: "torch.Tensor", weights: "torch.Tensor", total: "torch.Tensor | None"
) -> "torch.Tensor":
    """Return Σ weight × cross entropy / total (fp32), or / Σ weight; logits predict the next label.

    `logits` is batch × length × vocabulary, `labels` and `weights` are batch × length.
    """
    import torch
    from torch.nn.functional import cross_entropy

    following = labels[:, 1:].reshape(-1).to(logits.device)
    flat = logits[:, :-1].float().reshape(-1, logits.size(-1))
    each = cross_entropy(flat, following, ignore_index=IGNORED, reduction="none")
    shares = weights[:, 1:].reshape(-1).to(logits.device)
    summed = shares.sum() if total is None else total
    return (each * shares).sum() / summed.clamp(min=torch.finfo(torch.float32).tiny)  # 0 where none weighs


def install(weights: TokenWeights) -> None:
    """Put the weighted trainer where LLaMA-Factory looks it up; `ContentError` for a version not proved."""
    from llamafactory.train.sft import workflow

    found = versions("llamafactory").get("llamafactory")
    if found != PROVED:
        proved = f"key-token weights are proved with LLaMA-Factory {PROVED}, found {found}"
        raise ContentError(f"{proved}; install that version, or train without recipes/weights")
    workflow.CustomSeq2SeqTrainer = weighted_trainer(workflow.CustomSeq2SeqTrainer, weights)


def main() -> None:
    """Train the recipe that follows the weights file on the command line."""
    weights = read_weights(Path(sys.argv.pop(1)))
    install(weights)
    from llamafactory.train.tuner import run_exp

    run_exp()


if __name__ == "__main__":
    try:
        main()
    except TuneyardError as error:
        sys.exit(f"{type(error).__name__}: {error}")
