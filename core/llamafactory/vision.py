"""LLaMA-Factory's parts for rows with images: the plugin's token, the collator, the processor."""

from pathlib import Path
from typing import Any

from tuneyard.core.llamafactory.loader import quiet


def qwen_image_token(plugin: Any) -> str | None:
    """The image token of a template's plugin for Qwen's models, None for another plugin."""
    from llamafactory.data.mm_plugin import Qwen2VLPlugin, Qwen3VLPlugin

    if type(plugin) not in (Qwen2VLPlugin, Qwen3VLPlugin):
        return None
    token: str = plugin.image_token
    return token


def model_arguments(folder: Path, **settings: Any) -> Any:
    """LLaMA-Factory's arguments of a model. `ValueError` for settings that it refuses."""
    from llamafactory.hparams import ModelArguments

    return ModelArguments(model_name_or_path=str(folder), **settings)


def load_processor(arguments: Any) -> Any:
    """The processor of a model with the image sizes of its arguments, None for a model of texts."""
    from llamafactory.model import load_tokenizer

    with quiet():
        return load_tokenizer(arguments)["processor"]


def image_collator(tokenizer: Any, model: Any, template: Any, processor: Any) -> Any:
    """The collator that makes pixels and positions of a batch, as in training."""
    from llamafactory.data.collator import MultiModalDataCollatorForSeq2Seq

    return MultiModalDataCollatorForSeq2Seq(
        tokenizer=tokenizer, model=model, template=template, processor=processor
    )
