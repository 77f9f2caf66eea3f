"""Merge methods beside PEFT's real `add_weighted_adapter`: equal within 1e-6."""

import pytest

from tests.integration.peft_oracle import deltas, error, load, ours, peft_merge

pytestmark = pytest.mark.slow
PRUNING = ("ties", "magnitude_prune")
RANDOM = ("dare_linear", "dare_ties")
WEIGHTS = {
    "halves": (0.5, 0.5),
    "other": (1.0, 0.25),
    "negative": (0.7, -0.7),
    "three": (0.5, 0.3, 0.2),
    "five": (0.5, -0.3, 0.2, 1.5, 0.1),
}
INPUTS = {
    "equal": [{}],
    "alphas": [{"lora_alpha": 8}, {"lora_alpha": 2}, {"lora_alpha": 7}],
    "rslora": [{}, {"use_rslora": True}],  # as the first one, its √r would scale PEFT's result again
    "targets": [{"target_modules": ["q_proj", "down_proj"]}, {"target_modules": ["v_proj", "down_proj"]}],
    "embeddings": [{"target_modules": ["embed_tokens", "q_proj"]}],
    "patterns of alpha": [{"alpha_pattern": {"q_proj": 5}}, {}],
}


@pytest.fixture
def make(save):
    """Adapters with their weights; the fields of `INPUTS` are taken in turn."""

    def adapters(weights, fields=({},)):
        pairs = []
        for number, weight in enumerate(weights):
            folder = save(f"a{number}", seed=number, **fields[number % len(fields)])
            pairs.append((folder, weight))
        return pairs

    return adapters


@pytest.mark.parametrize("density", [1.0, 0.5, 0.2])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("method", PRUNING)
def test_pruning_is_peft_s(base, make, tmp_path, method, weights, density):
    pairs = make(weights)
    merged = deltas(load(base, ours(pairs, tmp_path / "out", method=method, density=density)))
    assert error(merged, peft_merge(base, pairs, method, density=density)) < 1e-6


@pytest.mark.parametrize("fields", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("method", PRUNING)
def test_pruning_of_unlike_adapters_is_peft_s(base, make, tmp_path, method, fields):
    pairs = make((0.6, 0.9, -0.2), fields)
    merged = deltas(load(base, ours(pairs, tmp_path / "out", method=method, density=0.4)))
    assert error(merged, peft_merge(base, pairs, method, density=0.4)) < 1e-6


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("method", RANDOM)
def test_dare_of_density_1_is_peft_s(base, make, tmp_path, method, weights):
    pairs = make(weights)
    merged = deltas(load(base, ours(pairs, tmp_path / "out", method=method, density=1.0)))
    assert error(merged, peft_merge(base, pairs, method, density=1.0)) < 1e-6


SVD = [(method, density) for method in PRUNING for density in (1.0, 0.5, 0.2)]
SVD += [(method, 1.0) for method in RANDOM]
FULL = 128  # at least the smaller side of every module of the tiny model
WHOLE = {"svd_rank": FULL, "svd_full_matrices": False}
ON_DELTA = {"equal": [{"lora_alpha": 4}], "unlike": [{"r": 2, "lora_alpha": 2}, {"r": 8, "lora_alpha": 8}]}


@pytest.mark.parametrize("fields", ON_DELTA.values(), ids=ON_DELTA)
@pytest.mark.parametrize(("method", "density"), SVD)
def test_methods_on_delta_are_peft_s_if_alpha_is_the_rank(base, make, tmp_path, method, density, fields):
    """With a scale of 1, PEFT's second scale changes nothing."""
    pairs = make((0.6, -0.9, 0.3), fields)
    name = f"{method}_svd"
    merged = deltas(load(base, ours(pairs, tmp_path / "out", method=name, density=density, rank=FULL)))
    peft = peft_merge(base, pairs, name, density=density, **WHOLE)
    assert error(merged, peft) < 2e-6


@pytest.mark.parametrize("rank", [1, 5, 12])
@pytest.mark.parametrize("method", PRUNING)
def test_the_rank_cuts_off_what_peft_s_cuts_off(base, make, tmp_path, method, rank):
    pairs = make((0.6, 0.3), [{"lora_alpha": 4}])
    name = f"{method}_svd"
    whole = peft_merge(base, pairs, name, density=0.5, **WHOLE)
    merged = deltas(load(base, ours(pairs, tmp_path / "out", method=name, density=0.5, rank=rank)))
    peft = peft_merge(base, pairs, name, density=0.5, svd_rank=rank, svd_full_matrices=False)
    assert error(merged, whole) == pytest.approx(error(peft, whole), rel=1e-5)
    assert error(merged, peft) < 1e-4


@pytest.mark.parametrize("method", PRUNING)
def test_the_scale_is_applied_once(base, make, tmp_path, method):
    """PEFT multiplies the weight by α/r too: with the weights divided by it, PEFT gives what is right."""
    scales = (2.0, 0.5)
    pairs = make((0.6, 0.3), [{"lora_alpha": 8}, {"lora_alpha": 2}])
    name = f"{method}_svd"
    merged = deltas(load(base, ours(pairs, tmp_path / "out", method=name, density=0.5, rank=FULL)))
    twice = [(folder, weight / scale) for (folder, weight), scale in zip(pairs, scales, strict=True)]
    assert error(merged, peft_merge(base, twice, name, density=0.5, **WHOLE)) < 2e-6
    assert error(merged, peft_merge(base, pairs, name, density=0.5, **WHOLE)) > 0.1


def test_a_lora_that_was_merged_into_its_base_is_extracted_again(base, make, tmp_path):
    """PEFT merges it, transformers saves the model; the extracted LoRA has PEFT's ΔW and its logits."""
    import copy

    import torch

    from tests.integration.peft_oracle import IDS
    from tuneyard.adapters.merge.extract import ExtractRequest, plan_extraction, write_lora

    ((folder, _),) = make((1.0,), [{"target_modules": "all-linear"}])
    merged = load(base, folder).merge_and_unload()
    merged.save_pretrained(tmp_path / "tuned")
    copy.deepcopy(base).save_pretrained(tmp_path / "base")
    request = ExtractRequest(tmp_path / "tuned", tmp_path / "base", 4, tmp_path / "out")
    write_lora(plan_extraction(request), lambda _: None, [])
    model = load(base, tmp_path / "out")
    assert error(deltas(model), deltas(load(base, folder))) < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, merged(IDS).logits, atol=1e-4, rtol=0)
