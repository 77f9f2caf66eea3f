"""The tokenizer of a training, loaded by transformers as `read_trained` finds it, and its end tokens."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt import Tokenizer
from tuneyard.core.llamafactory.prompt.tokenizer_files import check_tokenizer_files
from tuneyard.core.llamafactory.prompt.trained_files import read_trained, tokenizer_folder, trained_special


def open_trained(folders: Sequence[Path], base: Tokenizer) -> tuple[Tokenizer, list[int]]:
    """The tokenizer of the training of adapters, and its end tokens. `base` is the tokenizer of their base.

    An answer ends at the end token of each adapter's tokenizer, and at those that the base lists.
    `RequestError` if two adapters have other ids for a token, `ContentError` for a damaged tokenizer.
    """
    if not folders:
        raise ValueError(_("no adapter, whose tokenizer is to be opened"))
    base_folder = Path(base.name_or_path)
    tokenizers: list[Tokenizer] = []
    ends: set[int] = set()
    for folder in folders:
        tokenizer = _open(folder, base)
        if tokenizers:
            _check_equal(folders[0], tokenizers[0], folder, tokenizer)
        tokenizers.append(tokenizer)
        ends.update(read_trained(folder, base_folder).ends)
        if tokenizer.eos_token_id is not None:  # of a vocabulary that transformers alone reads
            ends.add(tokenizer.eos_token_id)
    return tokenizers[0], sorted(ends)


def _open(folder: Path, base: Tokenizer) -> Tokenizer:
    """Load the tokenizer of an adapter's training: its own, or the base's with its special tokens."""
    base_folder = Path(base.name_or_path)
    if tokenizer_folder(folder, base_folder) == folder:
        return _load(folder, base_folder)
    special = trained_special(folder, base_folder, base.get_vocab())
    changed = {name: text for name, text in special.items() if text != getattr(base, name)}
    if not changed:
        return base
    tokenizer = copy.deepcopy(base)
    tokenizer.add_special_tokens(changed)
    return tokenizer


def _load(folder: Path, base: Path) -> Tokenizer:
    from transformers import AutoConfig, AutoTokenizer

    check_tokenizer_files(folder)
    options: dict[str, Any] = {}
    try:
        if (base / "config.json").is_file():  # it chooses the class if the tokenizer names none
            options["config"] = AutoConfig.from_pretrained(base, trust_remote_code=False)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        first_line = str(error).partition("\n")[0]
        raise ContentError(
            _(
                "{folder}: its tokenizer cannot be loaded: {problem}; copy it again from the "
                "training's output_dir",
                folder=folder,
                problem=first_line,
            )
        ) from error


def _check_equal(first: Path, one: Tokenizer, folder: Path, other: Tokenizer) -> None:
    """`RequestError` if two tokenizers have other ids for a token: they read a prompt differently."""
    ids, other_ids = one.get_vocab(), other.get_vocab()
    differing = sorted(token for token in {*ids, *other_ids} if ids.get(token) != other_ids.get(token))
    if differing:
        raise RequestError(
            _(
                "{name} and {folder} were trained with different tokenizers: {token} has the "
                "id {number} in one and {other} in the other; score each adapter on its own",
                name=first,
                folder=folder,
                token=show_value(differing[0]),
                number=ids.get(differing[0]),
                other=other_ids.get(differing[0]),
            )
        )
