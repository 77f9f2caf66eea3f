"""python -m recipes.token_weights WEIGHTS.yaml RECIPE.yaml: LLaMA-Factory's SFT with key-token weights.

`run_sft` finds its trainer as a global of its module. A subclass put there before `run_exp()` trains, and all
other code stays LLaMA-Factory's. A rule is a regular expression (its first group, otherwise the whole match),
a list of words, or a field of the answer's template. If rules overlap, the last one counts.
"""

import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.core.documents import read_mapping
from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import ContentError, TuneyardError, show_value
from tuneyard.core.execution.time_limit import bounded
from tuneyard.core.files import read_object, versions

if TYPE_CHECKING:
    import torch

TESTED_VERSION = "0.9.5"  # of LLaMA-Factory, whose workflow looks its trainer up as a global
IGNORED = -100  # the label of a token that carries no loss
SCHEMA = Path(__file__).with_name("weights") / "schema.json"
Decode = Callable[[list[int]], str]


@dataclass(frozen=True, slots=True)
class TokenWeights:
    """Rules of one weights file: a pattern (its first group, if any) and the weight of its matches."""

    default: float
    rules: tuple[tuple[re.Pattern[str], float], ...]

    def of_answer(self, ids: Sequence[int], decode: Decode) -> list[float]:
        """One weight for each token of an answer. One shared character counts as a match."""
        spans = list(token_spans(ids, decode))
        text = "".join(piece for _, _, piece in spans)
        weights = [self.default] * len(ids)
        for pattern, weight in self.rules:
            with bounded(f"weights file: the rule {show_value(pattern.pattern)} on an answer"):
                matches = list(pattern.finditer(text))
            for match in matches:
                start, stop = match.span(1 if pattern.groups else 0)
                for index, (first, last, _) in enumerate(spans):
                    if first < stop and last > start:
                        weights[index] = weight
        return weights

    def of_labels(self, labels: Sequence[int], decode: Decode) -> list[float]:
        """One weight for each label. Every stretch of loss tokens is an answer; the rest weighs 0."""
        weights: list[float] = []
        for trained, stretch in itertools.groupby(labels, IGNORED.__ne__):
            ids = list(stretch)
            weights += self.of_answer(ids, decode) if trained else [0.0] * len(ids)
        return weights


def token_spans(ids: Sequence[int], decode: Decode) -> Iterator[tuple[int, int, str]]:
    """Yield each token's begin and end in the decoded text, and the characters that it adds.

    Parts of one character (UTF-8) share its span, and the last adds it. Decoding starts one token back,
    since some tokenizers drop the space of the first token.
    """
    position, before, waiting = 0, 0, 0
    for index in range(len(ids)):
        if index < waiting:
            continue
        stop = index + 1
        text_before = decode(list(ids[before:index]))
        text = decode(list(ids[before:stop]))
        while text.endswith("\ufffd") and stop < min(len(ids), index + 4):
            stop += 1
            text = decode(list(ids[before:stop]))
        added = text[len(text_before) :]
        for part in range(index, stop):
            yield position, position + len(added), added if part == stop - 1 else ""
        position += len(added)
        before, waiting = index, stop


def weights_file(recipe: Path) -> Path | None:
    """Find the weights of a recipe, weights/NAME.yaml next to it. None without."""
    path = recipe.parent / "weights" / recipe.name
    if not path.is_file():
        return None
    return path


def read_weights(path: Path) -> TokenWeights:
    """Read a weights file. `ContentError` names the wrong rule, its value and the expected value."""
    value: dict[str, Any] = read_mapping(path, "weights file")
    check_file(path, read_object(SCHEMA), value)
    rules = []
    for number, rule in enumerate(value["rules"]):
        rules.append((_pattern(rule, f"{path}: rules.{number}"), float(rule["weight"])))
    return TokenWeights(float(value.get("default", 1.0)), tuple(rules))


def _pattern(rule: dict[str, Any], place: str) -> re.Pattern[str]:
    if "words" in rule:
        longest_first = sorted(rule["words"], key=len, reverse=True)
        expression = r"(?<!\w)(?:" + "|".join(re.escape(word) for word in longest_first) + r")(?!\w)"
    else:
        expression = rule["regex"] if "regex" in rule else _in_template(rule["field"], rule["in"], place)
    try:
        return re.compile(expression, re.DOTALL if "field" in rule else 0)
    except re.error as error:
        wrong = f"{place}: {show_value(rule['regex'])} is no regular expression: {error}"
        raise ContentError(wrong) from error


def _in_template(field: str, template: str, place: str) -> str:
    """Regular expression for a field's text in an answer that follows the template."""
    parts = re.split(r"\{(\w+)\}", template)  # texts and, between them, the names of fields
    if field not in parts[1::2]:
        expected = f"expected the answer's template with {{{field}}}"
        raise ContentError(f"{place}: in: found {show_value(template)}, {expected}")
    pieces = [re.escape(part) for part in parts]
    pieces[1::2] = ["(?:.*?)"] * (len(parts) // 2)
    pieces[2 * parts[1::2].index(field) + 1] = "(.*?)"
    return "".join(pieces) + "$" * (not parts[-1])


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
            return (loss, outputs) if options.get("return_outputs") else loss

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
    from llamafactory.train.sft import workflow

    installed = versions("llamafactory").get("llamafactory")
    if installed != TESTED_VERSION:
        raise ContentError(
            f"found LLaMA-Factory {installed}, expected {TESTED_VERSION}, with which key-token weights are "
            "tested: install that version, or train without recipes/weights"
        )
    workflow.CustomSeq2SeqTrainer = weighted_trainer(workflow.CustomSeq2SeqTrainer, weights)


def train_weighted(weights: Path, recipe: str) -> None:
    """Train a recipe file with key-token weights in this process, which ends with the message of an error."""
    try:
        install(read_weights(weights))
        from llamafactory.train.tuner import run_exp

        sys.argv = ["llamafactory-cli", recipe]
        run_exp()
    except TuneyardError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    train_weighted(Path(sys.argv[1]), sys.argv[2])
