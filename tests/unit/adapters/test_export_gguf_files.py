"""What --to gguf refuses, by name, leaving nothing behind; tests/integration reads back what it writes."""

from pathlib import Path

import numpy as np
import pytest

from tests.folders import names
from tests.json_files import write_json
from tests.messages import printed
from tests.unit.adapters.make import factors, gguf_fields, make, make_base, tensors_of
from tests.unit.adapters.test_commands import call
from tuneyard.adapters.export.architecture import _REST, _WORDS, read_vocabulary, reorder

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


def tensors(width=8, keys=4, inner=12):
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


def write(folder="model", values=None, tokenizer=TOKENIZER, **config):
    """Write the model; keywords replace fields of its config."""
    make_base(folder, tensors() if values is None else values, "F32", **{**CONFIG, **config})
    write_json(Path(folder, "tokenizer.json"), tokenizer)


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write()


def split(regex):
    """A pre-tokenizer that cuts by a regular expression, then goes to bytes."""
    cut = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [cut, {**TOKENIZER["pre_tokenizer"], "use_regex": False}]}


def test_halves_of_heads_are_interleaved_by_hand():
    rows = np.array([[0], [1], [2], [3], [4], [5], [6], [7]])
    assert reorder(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert reorder(rows.ravel(), 1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_every_tensor_is_there_once_and_its_values_are():
    from gguf import GGUFReader

    write(values={**tensors(), "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2)})  # of old ones
    said, _ = call("export", "model", *GGUF)
    read = {tensor.name: tensor.data for tensor in GGUFReader("out/model.gguf").tensors}
    assert len(read) == 11
    q = tensors()["model.layers.0.self_attn.q_proj.weight"].astype(np.float16)
    assert read["blk.0.attn_q.weight"].tobytes() == q[[0, 2, 1, 3, 4, 6, 5, 7]].tobytes()
    assert read["blk.0.attn_norm.weight"].dtype == np.float32
    assert "out/model.gguf" in said
    assert names("out") == ["model.gguf"]


def test_the_sizes_of_the_config_are_in_the_file():
    write(rope_theta=5000.0)
    call("export", "model", *GGUF)
    fields = gguf_fields("out/model.gguf")
    found = {name.removeprefix("llama."): value for name, value in fields.items() if "llama." in name}
    assert found.pop("attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    assert found == {
        "block_count": 1, "context_length": 64, "embedding_length": 8, "feed_forward_length": 12,
        "attention.head_count": 2, "attention.head_count_kv": 1, "rope.freq_base": 5000.0, "vocab_size": 8,
        "rope.dimension_count": 4, "attention.key_length": 4, "attention.value_length": 4,
    }  # fmt: skip


def test_four_bits_are_llama_cpps_blocks_and_tables_keep_eight():
    from gguf import GGUFReader

    values = tensors(width=64, keys=32, inner=64)
    composed = {**TOKENIZER, "normalizer": {"type": "NFC"}}
    write("wide", values, composed, hidden_size=64, intermediate_size=64)
    _, notes = call("export", "wide", *GGUF, "--type", "q4_0")
    assert "send it composed text" in notes
    reader = GGUFReader("out/model.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds.pop("token_embd.weight") == "Q8_0" and kinds.pop("output_norm.weight") == "F32"
    assert {kind for name, kind in kinds.items() if "norm" not in name} == {"Q4_0"}
    assert reader.get_field("general.file_type").contents() == 2  # LLAMA_FTYPE_MOSTLY_Q4_0
    blocks = next(t for t in reader.tensors if t.name == "blk.0.ffn_up.weight").data.reshape(-1, 18)
    scale = blocks[:, :2].copy().view(np.float16).astype(float)
    low, high = blocks[:, 2:] & 15, blocks[:, 2:] >> 4  # the first 16 weights of a block, then the others
    read = (np.concatenate([low, high], axis=1).astype(float) - 8) * scale
    asked = values["model.layers.0.mlp.up_proj.weight"].astype(np.float32).reshape(-1, 32)
    assert (abs(read - asked) <= 1.001 * abs(scale)).all() and 0.05 < abs(read - asked).mean() < 0.1


def test_vocabulary_by_hand():
    found = read_vocabulary(Path("model"), 6)
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
    write(tokenizer={**TOKENIZER, "pre_tokenizer": step})
    assert read_vocabulary(Path("model"), 8).pre == name


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
    write(tokenizer={**TOKENIZER, **change})
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
    write(**change)
    _, said = call("export", "model", *GGUF, code=1)
    assert reason in said
    assert not list(Path().glob("out/*"))


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("model.layers.0.self_attn.sink", np.zeros(2), "has no place in a GGUF of llama"),
        ("model.norm.weight", np.full(8, np.nan), "NaN"),
        ("model.embed_tokens.weight", np.full((8, 8), 1e6), "in f16, which ends at 65,504"),
    ],
)
def test_tensors_that_cannot_be_written_leave_no_file(name, values, reason):
    write(values={**tensors(), name: values})
    _, said = call("export", "model", *GGUF, code=1)
    assert reason in said
    assert not Path("out").exists() or not list(Path("out").iterdir())


def test_an_existing_file_is_kept_without_force_and_one_of_another_kind_with_it():
    file = Path("out/model.gguf")
    file.parent.mkdir()
    file.write_bytes(b"GGUF, an old one")
    assert "replace it with --force" in call("export", "model", *GGUF, code=2)[1]
    assert file.read_bytes() == b"GGUF, an old one"
    call("export", "model", *GGUF, "--force", "--type", "q8_0")
    assert file.read_bytes()[:4] == b"GGUF"
    file.write_bytes(b"old results")
    assert "--force" not in call("export", "model", *GGUF, code=2)[1]
    assert "--force will not replace it" in call("export", "model", *GGUF, "--force", code=2)[1]
    assert file.read_bytes() == b"old results"


def test_adapters_are_to_be_fused_first_or_need_their_base():
    adapter = make("saves/rte", factors(), base_model_name_or_path="org/base")
    _, said = call("export", adapter, *GGUF, code=2)
    printed(said, "adapter fuse saves/rte --base BASE --out DIR")
    assert "--type" in call("export", adapter, *GGUF, "--base", "model", "--type", "f16", code=2)[1]
    head = {"lm_head": (np.ones((8, 8), np.float32), np.ones((8, 8), np.float32))}
    make("saves/head", head, target_modules=["lm_head"])
    assert (
        "no GGUF LoRA for embeddings and head" in call("export", "head", *GGUF, "--base", "model", code=1)[1]
    )
    whole = {"base_model.model.model.norm.weight": np.ones(8)}
    make("saves/whole", factors(), extra=whole, modules_to_save=["norm"])
    assert "a full tensor" in call("export", "whole", *GGUF, "--base", "model", code=1)[1]
    strange = {"model.vision.0.q_proj": factors(layers=1)["model.layers.0.self_attn.q_proj"]}
    assert tensors_of(strange)
    make("saves/strange", strange, target_modules=["q_proj"])
    assert "no module of llama" in call("export", "strange", *GGUF, "--base", "model", code=1)[1]


def test_other_types_are_left_to_llama_cpps_quantiser():
    said = call("export", "model", *GGUF, "--type", "Q4_K_M", code=2)[1]
    assert "the gguf package writes f16, q8_0, q4_0" in said
    assert "llama-quantize out/model.gguf OUT.gguf q4_k_m" in said and not Path("out/model.gguf").exists()
