"""A Llama of one layer whose tokenizer a GGUF can hold, with sizes that are worked out by hand."""

from pathlib import Path

import numpy as np

from tests.json_files import write_json
from tests.unit.adapters.make import make_base

CONFIG = {
    "model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}  # fmt: skip
TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    "added_tokens": [
        {"id": 3, "content": "<s>", "special": True},
        {"id": 4, "content": "x", "special": False},
    ],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
}
GGUF = ("--to", "gguf", "--out", "out/model.gguf")
"""Words of `export`."""


def llama_tensors(width=8, keys=4, inner=12):
    """The tensors of a Llama of one layer."""
    rng = np.random.default_rng(0)
    shapes = {
        "embed_tokens": (8, width), "norm": (width,), "layers.0.input_layernorm": (width,),
        "layers.0.post_attention_layernorm": (width,), "layers.0.self_attn.q_proj": (width, width),
        "layers.0.self_attn.k_proj": (keys, width), "layers.0.self_attn.v_proj": (keys, width),
        "layers.0.self_attn.o_proj": (width, width), "layers.0.mlp.gate_proj": (inner, width),
        "layers.0.mlp.up_proj": (inner, width), "layers.0.mlp.down_proj": (width, inner),
    }  # fmt: skip
    return {f"model.{name}.weight": rng.standard_normal(shape) for name, shape in shapes.items()}


def make_llama(folder="model", values=None, tokenizer=TOKENIZER, **config):
    """Write the model; keywords replace fields of its config."""
    make_base(folder, llama_tensors() if values is None else values, "F32", **{**CONFIG, **config})
    write_json(Path(folder, "tokenizer.json"), tokenizer)
