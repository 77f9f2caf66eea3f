"""A byte-level BPE tokenizer as llama.cpp wants it: tokens with types, merges, special ids, pre-tokenizer.

llama.cpp knows pre-tokenizers by name alone, each with a regular expression of its own. A tokenizer
whose expression is not one of those below would cut text otherwise than in training, and is refused.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.export.architecture import OTHERS
from core.errors import ContentError, show_value
from core.files import read_object, require

if TYPE_CHECKING:
    from gguf import GGUFWriter

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {  # the steps of tokenizer.json: llama.cpp's name (llama-vocab.cpp)
    (_WORDS + r"\p{N}" + _REST, "bytes"): "qwen2",
    (_WORDS + r"\p{N}{1,3}" + _REST, "bytes"): "llama-bpe",
    ("digits", "words and bytes"): "smollm",
    ("words and bytes",): "gpt-2",
}
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # gguf.TokenType


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id with their types, and the name of the pre-tokenizer; `composed`: text becomes NFC."""

    folder: Path
    tokens: list[str]
    types: list[int]
    pre: str
    composed: bool

    def write(self, writer: "GGUFWriter") -> None:
        """Add all of `tokenizer.*` to a GGUF, the chat template too."""
        from gguf import SpecialVocab

        logging.getLogger("gguf.vocab").setLevel(logging.ERROR)
        special = SpecialVocab(self.folder, load_merges=True, n_vocab=len(self.tokens))
        special.add_special_token.setdefault("bos", False)  # else llama.cpp guesses from the pre-tokenizer
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        special.add_to_gguf(writer, quiet=True)


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Read tokenizer.json; `size` is the embedding's number of rows, to which tokens are filled up.

    `ContentError` where it is no byte-level BPE, or cuts text in a way that llama.cpp has no name for.
    """
    path = require(folder / "tokenizer.json", "tokenizer")
    fields: dict[str, Any] = read_object(path)
    model = fields.get("model") or {}
    if model.get("type") != "BPE":
        raise ContentError(
            f"{path}: {show_value(model.get('type'))}: only byte-level BPE is written here; {OTHERS}"
        )
    ids = {index: (token, NORMAL) for token, index in (model.get("vocab") or {}).items()}
    for token in fields.get("added_tokens") or []:
        ids[token["id"]] = token["content"], CONTROL if token.get("special") else USER_DEFINED
    if ids and max(ids) >= size:
        raise ContentError(
            f"{path}: token {show_value(ids[max(ids)][0])} has id {max(ids)}, but the embedding has {size} "
            "rows: the tokenizer belongs to another model"
        )
    every = [ids.get(index, (f"[PAD{index}]", UNUSED)) for index in range(size)]
    steps = tuple(_step(path, step) for step in _parts(fields.get("pre_tokenizer"), "pretokenizers"))
    if steps not in PRE_TOKENIZERS:
        raise ContentError(
            f"{path}: a pre-tokenizer that is none of {', '.join(PRE_TOKENIZERS.values())}; {OTHERS} "
            f"(found: {', '.join(steps) or 'none'})"
        )
    kinds = [step.get("type") for step in _parts(fields.get("normalizer"), "normalizers")]
    if set(kinds) - {"NFC"}:
        raise ContentError(f"{path}: normalizer {', '.join(map(str, kinds))}: llama.cpp has no such step")
    tokens, types = [token for token, _ in every], [kind for _, kind in every]
    return Vocabulary(folder, tokens, types, PRE_TOKENIZERS[steps], bool(kinds))


def _step(path: Path, step: dict[str, Any]) -> str:
    """Return what one step of a pre-tokenizer does, in the terms of `PRE_TOKENIZERS`."""
    kind = step.get("type")
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return str(step["pattern"].get("Regex"))
    if kind == "Digits" and step.get("individual_digits"):
        return "digits"
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return "words and bytes" if step.get("use_regex", True) else "bytes"
    raise ContentError(f"{path}: pre-tokenizer {show_value(step)}: llama.cpp has no such step")


def _parts(step: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return step[inner] if step.get("type") == "Sequence" else [step]
