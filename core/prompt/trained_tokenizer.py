"""The tokenizer and the end tokens of a training: those saved beside the adapter, otherwise the base's.

LLaMA-Factory adds its template's tokens to the base's tokenizer, replaces its end token ("Replace eos token:
<|im_end|>") and saves it beside the adapter. An answer ends in training at this token, which the base may not
know as an end.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import read_object
from tuneyard.core.prompt import Tokenizer
from tuneyard.core.prompt.tokenizer_files import (
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
    listed_ends,
    read_tokenizer,
    special_texts,
)

VOCABULARIES = (TOKENIZER_JSON, "tokenizer.model", "vocab.json")


def has_tokenizer(folder: Path) -> bool:
    """True if a folder has a whole tokenizer, and not the settings of one alone."""
    return any((folder / name).is_file() for name in VOCABULARIES)


def open_trained(folders: Sequence[Path], base: Tokenizer) -> tuple[Tokenizer, list[int]]:
    """The tokenizer of the training of adapters, and its end tokens. `base` is the tokenizer of their base.

    An answer ends at the end token of each adapter's tokenizer, and at those that the base lists.
    `RequestError` if two adapters have other ids for a token, `ContentError` for a damaged tokenizer.
    """
    if not folders:
        raise ValueError("no adapter, whose tokenizer is to be opened")
    tokenizers = [_open(folder, base) for folder in folders]
    ends = set(listed_ends(Path(base.name_or_path)))
    for folder, tokenizer in zip(folders, tokenizers, strict=True):
        _check_equal(folders[0], tokenizers[0], folder, tokenizer)
        ends.add(tokenizer.eos_token_id)
    return tokenizers[0], sorted(ends - {None})


def _open(folder: Path, base: Tokenizer) -> Tokenizer:
    """Open the tokenizer in an adapter's folder.

    Without a vocabulary of its own it is the base's, with the special tokens of the adapter's settings.
    """
    if has_tokenizer(folder):
        return _load(folder, Path(base.name_or_path))
    special = special_texts([folder])
    changed = {name: text for name, text in special.items() if text != getattr(base, name)}
    if not changed:
        return base
    vocabulary = base.get_vocab()
    for name, text in changed.items():
        if text not in vocabulary:
            raise ContentError(
                f"{folder / TOKENIZER_CONFIG}: {name} is {show_value(text)}, expected a token of the "
                f"base's vocabulary; copy the training's {TOKENIZER_JSON} into {folder}"
            )
    tokenizer = copy.deepcopy(base)
    tokenizer.add_special_tokens(changed)
    return tokenizer


def _load(folder: Path, base: Path) -> Tokenizer:
    from transformers import AutoConfig, AutoTokenizer

    read_tokenizer([folder])  # its errors have a place
    options: dict[str, Any] = {}
    if (folder / TOKENIZER_CONFIG).is_file():
        read_object(folder / TOKENIZER_CONFIG)
    try:
        if (base / "config.json").is_file():  # it chooses the class if the tokenizer names none
            options["config"] = AutoConfig.from_pretrained(base, trust_remote_code=False)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        first_line = str(error).partition("\n")[0]
        raise ContentError(
            f"{folder}: its tokenizer cannot be loaded: {first_line}; copy it again from the training's "
            "output_dir"
        ) from error


def _check_equal(first: Path, one: Tokenizer, folder: Path, other: Tokenizer) -> None:
    """`RequestError` if two tokenizers have other ids for a token: they read a prompt differently."""
    ids, other_ids = one.get_vocab(), other.get_vocab()
    differing = sorted(token for token in {*ids, *other_ids} if ids.get(token) != other_ids.get(token))
    if differing:
        raise RequestError(
            f"{first} and {folder} were trained with different tokenizers: {show_value(differing[0])} has "
            f"the id {ids.get(differing[0])} in one and {other_ids.get(differing[0])} in the other; "
            "score each adapter on its own"
        )
