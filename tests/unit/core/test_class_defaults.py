"""Defaults of model classes by hand: published configs leave keys out, and the class decides."""

import numpy as np
import pytest

from tests.messages import raises
from tests.unit.adapters.make import base_tensors, make_base
from tuneyard.core.errors import ContentError
from tuneyard.core.weights.base_models import open_base
from tuneyard.core.weights.class_defaults import (
    is_tied,
    longest_sequence,
    tied_names,
    untied,
    with_defaults,
    with_vocabulary,
)

TIE = "tie_word_embeddings"
HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"model_type": "gemma"}, True),
        ({"model_type": "gpt2"}, True),
        ({"model_type": "llama"}, False),
        ({"model_type": "qwen3", TIE: True}, True),
        ({"model_type": "gemma2", TIE: False}, False),
        ({"model_type": "gemma3", "text_config": {}}, True),
        ({"model_type": "gemma3", "text_config": {TIE: False}}, True),  # the model's own config decides
        ({"model_type": "qwen2_5_vl", "text_config": {TIE: True}}, False),
        ({"model_type": "llava", "text_config": {TIE: True}}, True),  # saved there by older versions
        ({"model_type": "llava", "text_config": {"model_type": "gemma"}}, True),
        ({"model_type": "shieldgemma2", "text_config": {TIE: False}}, False),
        ({"model_type": "qwen2_audio", TIE: True, "text_config": {}}, False),  # Qwen2 inside decides
        ({"model_type": "lfm2", "tie_embedding": False}, False),
        ({"model_type": "t5", TIE: False}, True),
        ({"model_type": "internlm2"}, None),
        ({"model_type": ["gemma"]}, None),
        ({}, None),
        ({"model_type": "internlm2", "text_config": {TIE: True}}, True),
    ],
)
def test_the_class_decides_if_the_config_is_silent(config, tied):
    assert is_tied(config) is tied
    if config.get("model_type") != "t5":
        assert is_tied(untied(config)) is False


def test_a_wrapped_model_has_the_names_of_its_own_class():
    names = tied_names({"model_type": "blip-2", "text_config": {"model_type": "llama"}})
    assert names == {f"language_model.{HEAD}": f"language_model.{TABLE}"}
    assert "decoder" in str(tied_names({"model_type": "blip-2"}))


def test_a_new_vocabulary_is_where_the_class_looks_for_it():
    assert with_vocabulary({"model_type": "gemma"}, 9) == {"model_type": "gemma", "vocab_size": 9}
    nested = with_vocabulary({"model_type": "gemma3", "text_config": {"hidden_size": 4}}, 9)
    assert nested == {"model_type": "gemma3", "text_config": {"hidden_size": 4, "vocab_size": 9}}


def test_limits_of_classes():
    assert longest_sequence({"model_type": "gpt2"}) == 1024
    assert longest_sequence({"model_type": "llama", "max_position_embeddings": 9}) == 9
    assert longest_sequence({"model_type": "llava", "text_config": {"model_type": "mistral"}}) == 131072
    assert longest_sequence({"model_type": "internlm2"}) is None
    assert with_defaults({"model_type": "qwen3", "hidden_size": 7})["head_dim"] == 128
    assert with_defaults({"model_type": "llama"})["num_key_value_heads"] is None


def test_two_stored_tables_of_different_values_are_not_tied(tmp_path):
    """Mistral 3's class ties by default, and its published checkpoints have a head of their own."""
    table = base_tensors()[TABLE]
    other = make_base(tmp_path / "other", {**base_tensors(), HEAD: table + 1}, tie_word_embeddings=True)
    assert open_base(other).ties == {}
    equal = make_base(tmp_path / "equal", {**base_tensors(), HEAD: table}, tie_word_embeddings=True)
    assert open_base(equal).ties == {HEAD: TABLE}
    longer = make_base(
        tmp_path / "longer", {**base_tensors(), HEAD: np.vstack([table, table])}, tie_word_embeddings=True
    )
    assert open_base(longer).ties == {}


def test_a_checkpoint_of_the_inner_model_has_no_prefix(tmp_path):
    tensors = {"wte.weight": np.ones((5, 4)), "h.0.attn.c_attn.weight": np.ones((4, 12))}
    base = open_base(make_base(tmp_path / "base", tensors, model_type="gpt2"))
    assert base.stored_name("transformer.h.0.attn.c_attn.weight") == "h.0.attn.c_attn.weight"
    assert base.module_name("h.0.attn.c_attn.weight") == "transformer.h.0.attn.c_attn.weight"
    assert base.module_name(HEAD) == HEAD
    assert base.ties == {HEAD: "wte.weight"}
    assert base.find(HEAD) == "wte.weight"
    assert (base.is_transposed("transformer.h.0.attn.c_attn"), base.is_transposed("lm_head")) == (True, False)


@pytest.mark.parametrize("kind", ["internlm2", "mimo", None])
def test_a_class_of_the_model_s_own_code_must_say_if_it_ties(tmp_path, kind):
    base = open_base(make_base(tmp_path / "base", base_tensors(), model_type=kind))
    base.require_tying(["model.layers.0.self_attn.q_proj.weight"])
    with raises(ContentError, "config.json", TIE, HEAD):
        base.require_tying([TABLE])
    with_head = {**base_tensors(), HEAD: base_tensors()[TABLE] + 1}
    open_base(make_base(tmp_path / "head", with_head, model_type=kind)).require_tying([TABLE])
