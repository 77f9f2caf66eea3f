"""A GGUF file as a model to prompt: transformers reads its weights of any type, and its tokenizer."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ContentError, RequestError
from eval.backends.load import DTYPES, Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_gguf(path: Path) -> None:
    """Raise `RequestError` unless the file begins as a GGUF does and the reader is installed."""
    import importlib.util

    if not path.is_file() or path.open("rb").read(4) != b"GGUF":
        raise RequestError(f"{path}: no GGUF file; python -m adapters export --to gguf writes one")
    if importlib.util.find_spec("gguf") is None:
        raise RequestError("reading GGUF needs the package gguf: run `make setup`")


def load_gguf(path: Path, like: Model) -> Model:
    """Load the weights in the dtype and on the device of `like`, whose tokenizer the model keeps.

    `ContentError` says what transformers cannot read.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        net = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=getattr(torch, DTYPES[like.dtype]),
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise ContentError(f"{path}: transformers cannot read it: {str(error).splitlines()[0]}") from error
    net = net.to(like.device).eval().requires_grad_(False)
    net.generation_config = like.net.generation_config
    return replace(like, net=net)


def load_gguf_tokenizer(path: Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer, with its chat template, that the file holds; `ContentError` as for the weights."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, NotImplementedError) as error:
        raise ContentError(f"{path}: transformers cannot read its tokenizer: {error}") from error
