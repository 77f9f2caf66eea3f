"""Names, hyperparameters, row order and vocabulary of the model types that can be exported as GGUF.

llama.cpp selects a pre-tokenizer by its name, each with a fixed regular expression. A tokenizer with another
expression would split text differently than in training, and is refused.
"""

import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.model.adapter import raise_together, wrong_numbers
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import require
from tuneyard.core.language.message import _, joined
from tuneyard.core.llamafactory.prompt import SavedTemplate
from tuneyard.core.llamafactory.prompt.tokenizer_files import TOKENIZER_JSON, read_tokenizer
from tuneyard.core.llamafactory.prompt.trained_files import TrainedFiles
from tuneyard.core.weights.class_defaults import with_defaults

if TYPE_CHECKING:
    from gguf import GGUFWriter, TensorNameMap


OTHERS = _("convert_hf_to_gguf.py of llama.cpp may support it")
KNOWN = ("llama", "qwen2", "qwen3")
Value = TypeVar("Value", bound=np.generic)
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {  # the steps of tokenizer.json: llama.cpp's name (llama-vocab.cpp)
    (_WORDS + r"\p{N}" + _REST, "bytes"): "qwen2",
    (_WORDS + r"\p{N}{1,3}" + _REST, "bytes"): "llama-bpe",
    ("digits", "words and bytes"): "smollm",
    ("words and bytes",): "gpt-2",
}
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # gguf.TokenType
END_NAMES = ("eos", "eot", "eom")  # a GGUF has these places for end tokens
ENDS_BY_NAME = frozenset({
    "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "</s>", "<｜end▁of▁sentence｜>", "[e~[", "<|end|>",
})  # fmt: skip
"""Control tokens at which llama.cpp ends an answer by their names alone, as its log lists them (xllamacpp
2026.10.11549: "EOG token")."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """The fields of a model's config that a GGUF contains; `path` is its config.json, for messages."""

    path: Path
    name: str
    fields: dict[str, Any]

    def count(self, field: str) -> int:
        """A positive whole number of the config; `ContentError` for any other value."""
        raise_together(wrong_numbers({field: self.fields.get(field)}, whole=True), self.path)
        return int(self.fields[field])

    @property
    def key_heads(self) -> int:
        """Number of key and value heads. Without an entry it is the number of all heads."""
        if self.fields.get("num_key_value_heads") is not None:
            return self.count("num_key_value_heads")
        return self.count("num_attention_heads")

    @property
    def head_width(self) -> int:
        """Width of a head."""
        if self.fields.get("head_dim") is not None:
            return self.count("head_dim")
        return self.count("hidden_size") // self.count("num_attention_heads")

    def gguf_name(self, name: str) -> str | None:
        """llama.cpp's name of a tensor or module (`model.norm` → `output_norm`), None if unknown."""
        names = _names(self.name, self.count("num_hidden_layers"))
        gguf_name: str | None = names.get_name(name, (".weight", ".bias"))
        return gguf_name

    def heads(self, gguf_name: str) -> int | None:
        """Number of heads by which a tensor's rows are reordered (Llama's q and k, for RoPE), or None."""
        if self.name == "llama" and ".attn_q." in gguf_name:
            return self.count("num_attention_heads")
        if self.name == "llama" and ".attn_k." in gguf_name:
            return self.key_heads
        return None

    def write(self, writer: "GGUFWriter") -> None:
        """Add the hyperparameters to a GGUF."""
        writer.add_block_count(self.count("num_hidden_layers"))
        writer.add_context_length(self.count("max_position_embeddings"))
        writer.add_embedding_length(self.count("hidden_size"))
        writer.add_feed_forward_length(self.count("intermediate_size"))
        writer.add_head_count(self.count("num_attention_heads"))
        writer.add_head_count_kv(self.key_heads)
        epsilon, theta = self.fields.get("rms_norm_eps"), _rope(self.fields)["rope_theta"]
        raise_together(wrong_numbers({"rms_norm_eps": epsilon, "rope_theta": theta}, whole=False), self.path)
        writer.add_layer_norm_rms_eps(epsilon)
        writer.add_rope_freq_base(theta)
        writer.add_vocab_size(self.count("vocab_size"))
        for add in (writer.add_rope_dimension_count, writer.add_key_length, writer.add_value_length):
            add(self.head_width)


def read_architecture(path: Path, fields: dict[str, Any]) -> Architecture:
    """Check that a config.json can be exported; `ContentError` names the field that cannot.

    Missing fields have the defaults of the model type's class.
    """
    fields = with_defaults(fields)
    kind, rope = fields.get("model_type"), _rope(fields)
    if kind not in KNOWN:
        raise ContentError(
            _(
                "{path}: model_type {kind}: only {names} are written here; {hint}",
                path=path,
                kind=show_value(kind),
                names=joined(KNOWN),
                hint=OTHERS,
            )
        )
    scaling = rope.get("rope_type") or rope.get("type") or "default"
    activation = fields.get("hidden_act")
    refused = {
        _("rope_type {scaling}", scaling=show_value(scaling)): scaling != "default",
        "use_sliding_window": fields.get("use_sliding_window"),
        _("its weights are quantised"): fields.get("quantization_config"),
        _("hidden_act {activation}", activation=show_value(activation)): activation != "silu",
    }
    for reason, applies in refused.items():
        if applies:
            raise ContentError(
                _("{path}: {reason}: not written here; {hint}", path=path, reason=reason, hint=OTHERS)
            )
    return Architecture(path, kind, fields)


@functools.cache
def _names(architecture: str, layers: int) -> "TensorNameMap":
    from gguf import MODEL_ARCH, get_tensor_name_map

    return get_tensor_name_map(MODEL_ARCH[architecture.upper()], layers)


def _rope(fields: dict[str, Any]) -> dict[str, Any]:
    """Settings of rotary embeddings: the field of transformers 5, or the older two."""
    settings = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if not isinstance(settings, dict):
        raise ContentError(
            _("rope_parameters {settings}: expected a map of settings", settings=show_value(settings))
        )
    return {"rope_theta": fields.get("rope_theta")} | settings


def reorder(rows: NDArray[Value], heads: int) -> NDArray[Value]:
    """Interleave the two halves of each head in rows [heads·2·half, …]."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id with their types, and the name of the pre-tokenizer. `composed` normalises text to NFC.

    `ends` are the ids of end tokens by `END_NAMES`; those without a place are `further_ends`.
    """

    folder: Path
    tokens: list[str]
    types: list[int]
    pre: str
    composed: bool
    template: SavedTemplate | None
    ends: dict[str, int]
    further_ends: list[int]

    def write(self, writer: "GGUFWriter", *, for_chats: bool) -> None:
        """Add all of `tokenizer.*` to a GGUF, including the chat template; `for_chats` as in `write_gguf`."""
        from gguf import SpecialVocab

        logging.getLogger("gguf.vocab").setLevel(logging.ERROR)
        special = SpecialVocab(self.folder, load_merges=True, n_vocab=len(self.tokens))
        # gguf prefers an older template in tokenizer_config.json to chat_template.jinja
        special.chat_template = self.template.text if self.template else None
        special.add_special_token.setdefault("bos", False)  # otherwise llama.cpp guesses
        special.special_token_ids.update(self.ends)
        if for_chats:
            special.add_special_token.update(bos=False, eos=False)  # the chat template writes them itself
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        special.add_to_gguf(writer)


def read_vocabulary(trained: TrainedFiles, size: int) -> Vocabulary:
    """Read the tokenizer.json of a training, padded to `size` tokens, the embedding's number of rows.

    `ContentError` if it is not byte-level BPE, or splits text in a way that llama.cpp has no name for.
    """
    folder = trained.folder
    path = require(folder / TOKENIZER_JSON, "tokenizer")
    fields = read_tokenizer([folder])
    model = fields.get("model") or {}
    if model.get("type") != "BPE":
        kind = show_value(model.get("type"))
        raise ContentError(
            _(
                "{path}: {kind}: only byte-level BPE is written here; {hint}",
                path=path,
                kind=kind,
                hint=OTHERS,
            )
        )
    ids = {index: (token, NORMAL) for token, index in (model.get("vocab") or {}).items()}
    for token in fields.get("added_tokens") or []:
        token_type = CONTROL if token.get("special") else USER_DEFINED
        ids[token["id"]] = token["content"], token_type
    if ids and max(ids) >= size:
        raise ContentError(
            _(
                "{path}: token {ids} has id {id}, but the embedding has {size} rows: the tokenizer "
                "belongs to another model",
                path=path,
                ids=show_value(ids[max(ids)][0]),
                id=max(ids),
                size=size,
            )
        )
    every = [ids.get(index, (f"[PAD{index}]", UNUSED)) for index in range(size)]
    steps = tuple(_step(path, step) for step in _parts(fields.get("pre_tokenizer"), "pretokenizers"))
    if steps not in PRE_TOKENIZERS:
        raise ContentError(
            _(
                "{path}: a pre-tokenizer that is none of {names}; {hint} (found: {steps})",
                path=path,
                names=joined(PRE_TOKENIZERS.values()),
                hint=OTHERS,
                steps=joined(steps) or "none",
            )
        )
    kinds = [step.get("type") for step in _parts(fields.get("normalizer"), "normalizers")]
    if set(kinds) - {"NFC"}:
        raise ContentError(
            _(
                "{path}: normalizer {names}: llama.cpp has no such step",
                path=path,
                names=joined(map(str, kinds)),
            )
        )
    tokens, types = [token for token, _unused in every], [kind for _unused, kind in every]
    ends = [end for end in trained.ends if end < size]  # others were never trained
    return Vocabulary(
        folder,
        tokens,
        types,
        PRE_TOKENIZERS[steps],
        bool(kinds),
        trained.template,
        dict(zip(END_NAMES, ends, strict=False)),
        ends[len(END_NAMES) :],
    )


def _step(path: Path, step: dict[str, Any]) -> str:
    """Describe one step of a pre-tokenizer in the terms of `PRE_TOKENIZERS`."""
    kind = step.get("type")
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return str(step.get("pattern", {}).get("Regex"))
    if kind == "Digits" and step.get("individual_digits"):
        return "digits"
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        if step.get("use_regex", True):
            return "words and bytes"
        return "bytes"
    raise ContentError(
        _("{path}: pre-tokenizer {step}: llama.cpp has no such step", path=path, step=show_value(step))
    )


def _parts(step: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    if step.get("type") == "Sequence":
        steps: list[dict[str, Any]] = step.get(inner, [])
        return steps
    return [step]
