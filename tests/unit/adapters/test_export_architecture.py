"""The types of models and tokenizers that a GGUF has a name for, by hand; others are refused by name."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from tests.json_files import write_json
from tests.unit.adapters.commands import call
from tests.unit.adapters.llama import CONFIG, GGUF, TOKENIZER, llama_tensors, make_llama
from tests.unit.adapters.make import gguf_fields, make_base
from tuneyard.adapters.export.architecture import _REST, _WORDS, read_vocabulary, reorder
from tuneyard.core.llamafactory.prompt.trained_files import read_trained

pytestmark = pytest.mark.usefixtures("llama")


def split(regex):
    """A pre-tokenizer that cuts by a regular expression, then goes to bytes."""
    cut = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [cut, {**TOKENIZER["pre_tokenizer"], "use_regex": False}]}


def test_halves_of_heads_are_interleaved_by_hand():
    rows = np.array([[0], [1], [2], [3], [4], [5], [6], [7]])
    assert reorder(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert reorder(rows.ravel(), 1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_a_qwen3_without_head_dim_has_the_heads_of_its_class():
    """128 wide by default, whatever hidden_size is; also key heads, epsilon and rope's base are left out."""
    values = llama_tensors(keys=32 * 128)
    values["model.layers.0.self_attn.q_proj.weight"] = np.ones((32 * 128, 8))
    values["model.layers.0.self_attn.o_proj.weight"] = np.ones((8, 32 * 128))
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "tie_word_embeddings")
    config = {"model_type": "qwen3", **{field: CONFIG[field] for field in sizes}}
    make_base("model", values, "F32", **config)
    write_json(Path("model/tokenizer.json"), TOKENIZER)
    call("export", "model", *GGUF)
    fields = gguf_fields(Path("out/model.gguf"))
    assert fields["qwen3.attention.key_length"] == fields["qwen3.attention.value_length"] == 128
    assert fields["qwen3.attention.head_count"] == fields["qwen3.attention.head_count_kv"] == 32
    assert fields["qwen3.context_length"] == 32768
    assert fields["qwen3.rope.freq_base"] == 10000
    assert fields["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)


def test_a_head_of_its_own_is_written_though_the_config_ties():
    """transformers does not tie two stored tables of different values."""
    values = llama_tensors()
    make_llama(values={**values, "lm_head.weight": values["model.embed_tokens.weight"] + 1})
    call("export", "model", *GGUF)
    assert "output.weight" in {tensor.name for tensor in GGUFReader("out/model.gguf").tensors}


def test_vocabulary_by_hand():
    found = read_vocabulary(read_trained(Path("model")), 6)
    assert found.tokens == ["a", "b", "ab", "<s>", "x", "[PAD5]"]
    assert found.types == [1, 1, 1, 3, 4, 5]
    assert (found.pre, found.composed) == ("gpt-2", False)


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (split(_WORDS + r"\p{N}" + _REST), "qwen2"),
        (split(_WORDS + r"\p{N}{1,3}" + _REST), "llama-bpe"),
        (
            {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, TOKENIZER["pre_tokenizer"]],
            },
            "smollm",
        ),
    ],
)
def test_pre_tokenizers_are_known_by_what_they_do(step, name):
    make_llama(tokenizer={**TOKENIZER, "pre_tokenizer": step})
    assert read_vocabulary(read_trained(Path("model")), 8).pre == name


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pre_tokenizer": split("[a-z]+")}, "a pre-tokenizer that is none of"),
        ({"pre_tokenizer": None}, "a pre-tokenizer that is none of"),
        ({"pre_tokenizer": {**TOKENIZER["pre_tokenizer"], "add_prefix_space": True}}, "no such step"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer Lowercase"),
        ({"model": {"type": "Unigram", "vocab": []}}, "only byte-level BPE"),
        ({"model": {"type": "BPE", "vocab": {"a": "0"}}}, "model.vocab.a: found"),
        ({"added_tokens": True}, "added_tokens: found true"),
        ({"added_tokens": [{"id": 99, "content": "<far>", "special": True}]}, "has id 99"),
    ],
)
def test_tokenizers_that_would_read_otherwise_are_refused(change, reason):
    make_llama(tokenizer={**TOKENIZER, **change})
    _, said = call("export", "model", *GGUF, code=1)
    assert reason in said
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "gemma2"}, "only llama, qwen2, qwen3"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, 'rope_type "llama3"'),
        ({"rope_scaling": {"type": "yarn"}}, 'rope_type "yarn"'),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"num_hidden_layers": 2}, "no tensor for blk.1.attn_norm"),
        ({"num_hidden_layers": 10**9}, "too few for num_hidden_layers 1000000000"),
        ({"num_attention_heads": 3}, "config.json makes it [2, 8]"),
        ({"num_key_value_heads": 2}, "config.json makes it [8, 8]"),
        ({"vocab_size": 10**12}, "config.json makes it [1000000000000, 8]"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps"),
        ({"rope_theta": "fast"}, 'rope_theta "fast"'),
        ({"rope_parameters": [1]}, "rope_parameters [1]"),
        ({"num_hidden_layers": "two"}, 'num_hidden_layers "two"'),
        ({"tie_word_embeddings": False}, "no tensor for output.weight"),
    ],
)
def test_models_that_are_not_written_here_are_refused(change, reason):
    make_llama(**change)
    _, said = call("export", "model", *GGUF, code=1)
    assert reason in said
    assert not list(Path().glob("out/*"))
