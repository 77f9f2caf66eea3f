"""Prompts with images, made by LLaMA-Factory's own code as in training.

Its template's plugin (data/mm_plugin.py) replaces `<image>` by the tokens of an image. Its collator
(data/collator.py) makes the pixels and the positions. tests/cli/test_images.py compares the model's inputs
with the rows of a training.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import sha256
from tuneyard.core.language.message import _, joined
from tuneyard.core.llamafactory.prompt import Message, Messages, Tokenizer, llamafactory_template
from tuneyard.core.llamafactory.vision import (
    image_collator,
    load_processor,
    model_arguments,
    qwen_image_token,
)
from tuneyard.eval.models import loading

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MODELS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # by model_type, those that tests hold against training
PIXELS = {"image_max_pixels": 768 * 768, "image_min_pixels": 32 * 32}  # LLaMA-Factory's own
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
OWN = ("input_ids", "labels")  # of a batch, what the backend gives by itself


@dataclass(frozen=True, slots=True)
class Vision:
    """LLaMA-Factory's plugin, processor and collator for a model.

    `image_id` is the id of the image token: an image has one for each of its merged patches. The results
    record `settings`.
    """

    plugin: Any
    processor: Any
    collator: Any
    device: str
    image_id: int
    settings: Mapping[str, object]

    def expanded(self, messages: Sequence[Message], images: Sequence[str]) -> Messages:
        """Replace each `<image>` by the tokens of its image, except in the system message.

        `ContentError` if LLaMA-Factory refuses the files or their number.
        """
        system = [message for message in messages if message["role"] == "system"]
        turns = [message for message in messages if message["role"] != "system"]
        with loading(joined(images), _("LLaMA-Factory cannot use it")):
            return [*system, *self.plugin.process_messages(turns, list(images), [], [], self.processor)]

    def inputs(self, ids: Sequence[int], images: Sequence[str]) -> "dict[str, torch.Tensor]":
        """Pixels, grids and positions for the ids [tokens] of one row; {} without images.

        The training's collator makes them from a batch of this row alone.
        """
        if not images:
            return {}
        ids = list(ids)
        row = {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": ids, "images": list(images)}
        batch = self.collator([row])
        return {name: value.to(self.device) for name, value in batch.items() if name not in OWN}

    def cut(self, ids: Collection[int], messages: Sequence[Message]) -> bool:
        """True if the cut to a length removed image tokens of these expanded messages from the ids."""
        token = self.plugin.image_token
        image_tokens = 0
        for message in messages:
            if message["role"] != "system":
                image_tokens += message["content"].count(token)
        return list(ids).count(self.image_id) < image_tokens


def open_vision(
    net: "PreTrainedModel",
    tokenizer: Tokenizer,
    template: str,
    think: bool,
    pixels: Mapping[str, Any],
) -> Vision:
    """Load LLaMA-Factory's plugin, processor and collator for a model and a template.

    `pixels` are the image_max_pixels and image_min_pixels of a recipe, or `PIXELS`. `RequestError` if the
    model or the template does not support images, `ContentError` if the folder has no processor.
    """
    kind = net.config.model_type
    folder = Path(net.name_or_path)
    if kind not in MODELS:
        raise RequestError(
            _(
                "{folder}: rows with images are scored with models of the types {names}; this is {kind}",
                folder=folder,
                names=", ".join(MODELS),
                kind=kind,
            )
        )
    written, tokenizer = llamafactory_template(tokenizer, template, think)
    plugin = written.mm_plugin
    image_id = net.config.image_token_id
    token = qwen_image_token(plugin)
    if token is None or tokenizer.convert_tokens_to_ids(token) != image_id:
        name = "qwen3_vl_nothink" if kind == "qwen3_vl" else "qwen2_vl"
        raise RequestError(
            _(
                "--template {template}: it shows a {kind} no images: --template {other} does",
                template=template,
                kind=kind,
                other=name,
            )
        )
    recipe = _("the adapters' recipe: {sizes}", sizes=pixels)
    with loading(recipe, _("LLaMA-Factory takes no such sizes")):
        arguments = model_arguments(folder, **pixels)
    processor = _processor(arguments, folder)
    collator = image_collator(tokenizer, net, written, processor)
    settings = {
        **pixels,
        "processor": next(sha256(folder / name) for name in PROCESSORS if (folder / name).is_file()),
    }
    return Vision(plugin, processor, collator, str(net.device), image_id, settings)


def _processor(arguments: Any, folder: Path) -> Any:
    """Load the processor of a model folder with the image sizes of the training."""
    if not any((folder / name).is_file() for name in PROCESSORS):
        raise ContentError(
            _(
                "{folder}: no {names}: images cannot be shown to the model",
                folder=folder,
                names=joined(PROCESSORS, _(" or ")),
            )
        )
    with loading(folder, _("its processor cannot be loaded")):
        processor = load_processor(arguments)
    if processor is None:
        raise ContentError(_("{folder}: LLaMA-Factory cannot load its processor of images", folder=folder))
    return processor
