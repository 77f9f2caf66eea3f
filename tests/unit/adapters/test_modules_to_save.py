"""Tensors that adapters save in full, larger vocabularies, biases: added up by hand, or refused."""

from pathlib import Path

import numpy as np
import pytest

from tests.messages import printed
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import (
    PREFIX,
    base_tensors,
    factors,
    make,
    make_base,
)
from tuneyard.adapters.model.store import open_adapter
from tuneyard.core.weights.base_models import open_base

pytestmark = pytest.mark.usefixtures("two_adapters")
HEAD = np.arange(50 * 24, dtype=np.float32).reshape(50, 24) / 1024


def test_modules_to_save_that_clash_or_do_not_fit():
    shape = (50, 24)
    make_base("full/base", {**base_tensors(), "lm_head.weight": np.ones(shape, np.float32)}, "F32")
    head = {"base_model.model.lm_head.weight": np.ones((40, 24), np.float32)}
    make("saves/a", factors(1), extra=head, modules_to_save=["lm_head"])
    assert (
        "a: lm_head.weight: saved with shape [40, 24], full/base has [50, 24]"
        in call("merge", "a=1", "--base", "full/base", "--out", "x", code=1)[1]
    )
    fine = {"base_model.model.lm_head.weight": np.ones(shape, np.float32)}
    make("saves/b", factors(1), extra=fine, modules_to_save=["lm_head"])
    pair = {"lm_head": (np.ones((8, 24), np.float32), np.ones((50, 8), np.float32))}
    make("saves/c", {**factors(2), **pair}, target_modules=["q_proj", "v_proj", "lm_head"])
    words = call("merge", "b=1", "c=1", "--base", "full/base", "--out", "x", code=1)[1]
    printed(words, "lm_head", "c", "b")
    words = call("merge", "b=1", "--base", "base", "--out", "x", code=1)[1]
    printed(words, "b: lm_head.weight", "base")


def test_a_bias_trained_with_the_base_is_merged_like_other_full_tensors():
    extra = {
        "base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias": np.full(24, 3, np.float32),
        "base_model.model.model.layers.1.self_attn.q_proj.base_layer.bias": np.full(24, 3, np.float32),
    }
    make("saves/a", factors(1), extra=extra, bias="all")
    make_base("full/base", {k: v * 0 + 1 for k, v in base_tensors().items()}, "F32")
    assert "bias" in call("merge", "a=0.5", "--out", "x", code=2)[1]
    call("merge", "a=0.5", "mnli=1", "--base", "full/base", "--out", "x")
    result = open_adapter("./x")
    assert result.config.raw["bias"] == "all"
    assert (result.full_tensor("model.layers.0.self_attn.q_proj.base_layer.bias") == 2).all()


def test_bias_all_of_a_model_without_biases_is_no_bias():
    make("saves/a", factors(1), bias="all")
    plain = {name: value for name, value in base_tensors().items() if not name.endswith(".bias")}
    make_base("plain/base", plain)
    call("fuse", "a", "--base", "plain/base", "--out", "x")
    said = call("fuse", "a", "--base", "base", "--out", "y", code=1)[1]
    printed(said, "bias", "model.layers.0.self_attn.q_proj.bias", "base")
    call("merge", "a=1", "mnli=1", "--out", "z")
    assert open_adapter("./z").config.raw["bias"] == "none"


def larger(seed):
    """An embedding and a head with 60 rows, 10 of them for new tokens."""
    rng = np.random.default_rng(seed)
    names = ("model.embed_tokens.weight", "lm_head.weight")
    return {f"{PREFIX}{name}": rng.standard_normal((60, 24)).astype(np.float32) for name in names}


def test_larger_vocabularies_are_added_up_where_their_weights_make_1():
    """tests/integration/test_adapters_peft.py has a single one, which takes the place of the base's rows."""
    make_base("full/base", {**base_tensors(), "lm_head.weight": HEAD}, "F32", vocab_size=50)
    kept = {"modules_to_save": ["embed_tokens", "lm_head"]}
    one, other = larger(1), larger(2)
    doubles = {  # which PEFT saves too
        name.replace(".weight", f".{double}.weight"): value + (double != "modules_to_save")
        for name, value in one.items()
        for double in ("modules_to_save", "original_module")
    }
    make("saves/a", factors(1), extra={**one, **doubles}, **kept)
    make("saves/b", factors(2), extra=other, **kept)
    words = ("--base", "full/base", "--out")
    call("fuse", "a=0.25", "b=0.75", *words, "half")
    call("merge", "a=0.25", "b=0.75", *words, "merged")
    call("fuse", "./merged", *words, "again")
    for name, values in one.items():
        expected = 0.25 * values + 0.75 * other[name]
        for folder in ("half", "again"):
            np.testing.assert_allclose(
                open_base(Path(folder)).read(name.removeprefix(PREFIX)), expected, atol=1e-6
            )
    said = call("fuse", "a=0.5", "b=0.25", *words, "no", code=1)[1]
    assert "60 rows, 50 in full/base" in said
    assert "must add up to 1" in said


def test_a_larger_vocabulary_of_one_side_alone_is_refused():
    make_base("full/base", {**base_tensors(), "lm_head.weight": HEAD}, "F32", vocab_size=50)
    extra = larger(1)
    extra.pop(f"{PREFIX}lm_head.weight")
    make("saves/a", factors(1), extra=extra, modules_to_save=["embed_tokens"])
    said = call("fuse", "a", "--base", "full/base", "--out", "x", code=1)[1]
    printed(said, "lm_head.weight 50", "model.embed_tokens.weight 60")
