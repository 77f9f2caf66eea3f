"""Adapters in force: live equals the weights with ΔW added, folding rounds, and both leave no trace."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from testing.tiny import SHAPES, write_adapter
from tests.messages import raises
from tuneyard.adapters.export.rename import RenameRequest, rename
from tuneyard.adapters.model.store import open_adapter
from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.core.errors import ContentError
from tuneyard.eval.models.apply import applied, check_fits

IDS = [[5, 9, 300, 7, 41]]


def logits(model):
    import torch

    with torch.inference_mode():
        return model.net(torch.tensor(IDS)).logits


def dense(model, *parts):
    """The oracle: W + Σ share·B·A in a copy of the weights, each sum in fp64 before it is rounded."""
    import copy

    import torch

    twin = copy.deepcopy(model.net)
    for adapter, share in parts:
        for path in adapter.modules:
            a, b = (torch.from_numpy(x).double() for x in adapter.factors(path))
            weight = twin.get_submodule(path).weight
            weight.data = (weight.double() + share * b @ a).float()
    with torch.inference_mode():
        return twin(torch.tensor(IDS)).logits


def torch_close(found, expected) -> None:
    import torch

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fold", [False, True])
def test_adapters_answer_as_the_dense_sum_by_weight_and_leave_no_trace(model, tmp_path, fold) -> None:
    import torch

    few = {path: SHAPES[path] for path in list(SHAPES)[:2]}
    one = open_adapter(write_adapter(tmp_path / "a", alpha=3))
    two = open_adapter(write_adapter(tmp_path / "b", few, rank=2, seed=1, use_rslora=True))
    before, weights = logits(model), {k: v.clone() for k, v in model.net.state_dict().items()}
    with applied(model, [WeightedAdapter(one, 0.7), WeightedAdapter(two, -1.5)], merged=fold):
        within = logits(model)
    torch_close(within, dense(model, (one, 0.7 * 3 / 4), (two, -1.5 * 8 / 2**0.5)))
    assert (within - before).abs().max() > 0.1
    assert torch.equal(logits(model), before)
    assert all(torch.equal(weights[k], v) for k, v in model.net.state_dict().items())


@pytest.mark.parametrize("merged", [False, True])
def test_a_tied_head_keeps_its_weight_as_in_training(model, tmp_path, merged) -> None:
    import copy

    import peft
    import torch

    tied = model.net
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    before = logits(model)
    config = peft.LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"], init_lora_weights=False)
    live = peft.get_peft_model(copy.deepcopy(tied), config).eval()
    live.save_pretrained(tmp_path / "a")  # with a copy of the embedding
    with torch.inference_mode():
        expected = live(torch.tensor(IDS)).logits
    adapter = open_adapter(tmp_path / "a")
    assert adapter.full_tensors == ["model.embed_tokens.base_layer.weight"]
    check_fits(model, adapter)
    with applied(model, [WeightedAdapter(adapter, 1.0)], merged=merged):
        torch_close(logits(model), expected)
    assert (expected - before).abs().max() > 0.1
    assert torch.equal(logits(model), before)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight


def test_wholes_are_weighed_by_their_change_from_the_base(model, tmp_path) -> None:
    head = model.net.lm_head.weight.detach().clone()
    parts = []
    for name, value, share in (("a", 1.0, 0.25), ("b", -2.0, 0.5)):
        folder = write_adapter(tmp_path / name, modules_to_save=["lm_head"])
        tensors = load_file(folder / "adapter_model.safetensors")
        whole = np.full(tuple(head.shape), value, "f4")
        save_file({**tensors, "base_model.model.lm_head.weight": whole}, folder / "adapter_model.safetensors")
        parts.append(WeightedAdapter(open_adapter(folder), share))
    with applied(model, parts):
        torch_close(model.net.lm_head.weight, head * 0.25 + 0.25 * 1.0 + 0.5 * -2.0)


def test_a_head_that_was_trained_whole_replaces_the_bases_but_not_its_twin(model, tmp_path) -> None:
    import torch

    folder = write_adapter(tmp_path / "a", modules_to_save=["lm_head"])
    tensors = load_file(folder / "adapter_model.safetensors")
    head = np.zeros(tuple(model.net.lm_head.weight.shape), "f4")
    save_file({**tensors, "base_model.model.lm_head.weight": head}, folder / "adapter_model.safetensors")
    embeddings = model.net.get_input_embeddings().weight.clone()
    with applied(model, [WeightedAdapter(open_adapter(folder), 1.0)]):
        assert logits(model).abs().max() == 0
        assert torch.equal(model.net.get_input_embeddings().weight, embeddings)
    assert logits(model).abs().max() > 0
    assert model.net.lm_head.weight is model.net.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ({"model.layers.0.self_attn.q_proj": (96, 96)}, "96; 64"),
        ({"model.layers.7.self_attn.q_proj": (64, 64)}, ""),
    ],
)
def test_an_adapter_of_another_base_is_refused_by_module(model, tmp_path, shapes, found) -> None:
    adapter = open_adapter(write_adapter(tmp_path / "a", shapes, base_model_name_or_path="other/base"))
    with raises(ContentError, found, "other/base"):
        check_fits(model, adapter)


@pytest.mark.slow
def test_live_equals_peft(model, tmp_path) -> None:
    peft = pytest.importorskip("peft")
    import copy

    import torch

    folder = write_adapter(
        tmp_path / "a", rank_pattern={"down_proj": 4}, alpha_pattern={"q_proj": 3}, task_type="CAUSAL_LM"
    )
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(model.net), str(folder)).eval()
    with torch.inference_mode(), applied(model, [WeightedAdapter(open_adapter(folder), 1.0)]):
        torch.testing.assert_close(logits(model), theirs(torch.tensor(IDS)).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("front", ["model.language_model.", "language_model.model.", "", "thinker.model."])
def test_an_adapter_of_another_class_of_the_model_is_refused_and_renamed(model, tmp_path, front) -> None:
    names = {path: front + path.removeprefix("model.") for path in SHAPES}
    plain = write_adapter(tmp_path / "plain")
    folder = write_adapter(tmp_path / "a", {names[path]: shape for path, shape in SHAPES.items()})
    with raises(ContentError, f"tuneyard adapter rename {folder} --base {model.folder}"):
        check_fits(model, open_adapter(folder))
    rename(RenameRequest(str(folder), tmp_path / "renamed", model.folder))
    renamed = open_adapter(tmp_path / "renamed")
    check_fits(model, renamed)
    with applied(model, [WeightedAdapter(open_adapter(plain), 1.0)]):
        expected = logits(model)
    with applied(model, [WeightedAdapter(renamed, 1.0)]):
        torch_close(logits(model), expected)


@pytest.mark.slow
@pytest.mark.parametrize("front", ["_orig_mod.", "module."])
def test_a_renamed_adapter_is_what_peft_has_in_its_live_model(model, tmp_path, front) -> None:
    """PEFT reads nothing under the names of a wrapped model, and all of it in the renamed copy."""
    peft = pytest.importorskip("peft")
    import copy

    import torch

    folder = write_adapter(tmp_path / "a", {front + path: shape for path, shape in SHAPES.items()})
    rename(RenameRequest(str(folder), tmp_path / "renamed"))
    answers = {}
    for name in ("a", "renamed"):
        theirs = peft.PeftModel.from_pretrained(copy.deepcopy(model.net), str(tmp_path / name)).eval()
        with torch.inference_mode():
            answers[name] = theirs(torch.tensor(IDS)).logits
    torch_close(answers["a"], logits(model))
    with applied(model, [WeightedAdapter(open_adapter(tmp_path / "renamed"), 1.0)]):
        torch_close(answers["renamed"], logits(model))
    assert (answers["renamed"] - answers["a"]).abs().max() > 0.1
