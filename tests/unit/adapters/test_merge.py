"""Merges against oracles: the dense sum in fp64, a 2×2 by hand, the identity, PEFT's own definitions."""

import math
import threading

import numpy as np
import pytest
from safetensors import safe_open

from tests.folders import names
from tests.json_files import read_json
from tests.messages import raises
from tests.unit.adapters.make import PREFIX, bf16_bits, delta, dense, factors, make, stored
from tuneyard.adapters.merge import merge as merging
from tuneyard.adapters.merge.merge import MergeRequest, error_sentence, plan_merging, relative, write_merge
from tuneyard.adapters.methods import find_method
from tuneyard.adapters.model.store import open_adapter
from tuneyard.core.errors import ContentError, RequestError


def merged(wanted, out, **how):
    """Merge (folder, weight) pairs by a method and its parameters; the opened result and its errors."""
    fields = {name: how.pop(name) for name in ("method", "dtype") if name in how}
    request = MergeRequest(wanted, out, parameters=how, **fields)
    errors = write_merge(plan_merging(request), lambda _: None, [])
    return open_adapter(out), errors


def error_of(adapter, expected):
    """Return the largest relative Frobenius distance of a module from the expected dense ΔW."""
    assert set(adapter.modules) == set(expected)
    return max(
        np.linalg.norm(delta(adapter, m) - expected[m]) / np.linalg.norm(expected[m]) for m in expected
    )


def test_full_disks_are_noticed_before_a_merge_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with raises(RequestError, "kB", "10 bytes free"):
        merged([(make(tmp_path / "a"), 1)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_and_zero_gives_back_the_adapter(tmp_path):
    make(tmp_path / "a", factors(1))
    make(tmp_path / "b", factors(2))
    result, errors = merged([(tmp_path / "a", 1), (tmp_path / "b", 0)], tmp_path / "out")
    assert {m.rank for m in result.modules.values()} == {8}
    for module, expected in dense(factors(1)).items():
        np.testing.assert_array_equal(delta(result, module), expected)
    assert relative(errors.values()) == 0
    with safe_open(result.weights.path, "numpy") as opened:
        assert opened.metadata() == {"format": "pt"}


def tsv_m(deltas, counts):
    """TSV-M of dense ΔW (Gargiulo et al., CVPR 2025, algorithm 1), with the whitening U·(UᵀU)^(-1/2).

    The paper shows that whitening and Procrustes are the same. `counts` are the numbers of singular vectors.
    """
    lefts, sigmas, rights = [], [], []
    for matrix, count in zip(deltas, counts, strict=True):
        left, sigma, right = np.linalg.svd(matrix)
        lefts.append(left[:, :count])
        sigmas += sigma[:count].tolist()
        rights.append(right[:count].T)
    return whitened(np.hstack(lefts)) @ np.diag(sigmas) @ whitened(np.hstack(rights)).T


def whitened(vectors):
    values, axes = np.linalg.eigh(vectors.T @ vectors)
    inverse = [value**-0.5 if value > 1e-10 else 0 for value in values]
    return vectors @ axes @ np.diag(inverse) @ axes.T


@pytest.mark.parametrize(("weights", "keep"), [((0.5, 0.5), None), ((1, -0.25), 1), ((2, 0.75), 0.5)])
def test_tsvm_is_that_of_the_dense_matrices(tmp_path, weights, keep):
    """v_proj has 12 outputs and gets 14 directions: they cannot all be orthogonal."""
    one, other = factors(1), factors(2, rank=6)
    make(tmp_path / "a", one)
    make(tmp_path / "b", other, r=6, lora_alpha=3, use_rslora=True)
    parameters = {"keep": keep} if keep else {}
    pairs = [(tmp_path / "a", weights[0]), (tmp_path / "b", weights[1])]
    result, _ = merged(pairs, tmp_path / "out", method="tsvm", **parameters)
    counts = (4, 3) if keep == 0.5 else (8, 6)
    first, second = dense(one), dense(other, alpha=3, rslora=True)
    expected = {}
    for module, matrix in first.items():
        expected[module] = tsv_m([weights[0] * matrix, weights[1] * second[module]], counts)
    assert error_of(result, expected) < 1e-6
    assert {module.rank for module in result.modules.values()} == {sum(counts)}


def test_tsvm_of_an_adapter_alone_with_itself_and_with_an_untrained_one_is_the_adapter(tmp_path):
    one = factors(1)
    untrained = {module: (a, 0 * b) for module, (a, b) in factors(2).items()}
    for name, pairs in (("a", one), ("same", one), ("untrained", untrained)):
        make(tmp_path / name, pairs)
    for number, others in enumerate(([], ["same"], ["untrained"])):
        pairs = [(tmp_path / name, 1) for name in ("a", *others)]
        result, _ = merged(pairs, tmp_path / f"out{number}", method="tsvm")
        assert error_of(result, dense(one)) < 1e-6, others


@pytest.mark.parametrize("shape", [(6, 24), (24, 6)])
def test_tsvm_of_a_rank_above_the_outputs_or_inputs(tmp_path, shape):
    one = factors(1, shapes={"k_proj": shape})
    make(tmp_path / "a", one, target_modules=["k_proj"])
    result, _ = merged([(tmp_path / "a", 0.5)], tmp_path / "out", method="tsvm")
    assert error_of(result, {module: 0.5 * matrix for module, matrix in dense(one).items()}) < 1e-6


def test_tsvm_of_untrained_adapters_is_0(tmp_path):
    make(tmp_path / "a", {module: (a, 0 * b) for module, (a, b) in factors(1).items()})
    result, _ = merged([(tmp_path / "a", 1)], tmp_path / "out", method="tsvm")
    assert not any(delta(result, module).any() for module in result.modules)


def test_a_method_that_is_not_the_sum_is_not_reported_by_its_error_against_the_sum(tmp_path):
    make(tmp_path / "a", factors(1))
    make(tmp_path / "b", factors(2))
    for method, formula in (("tsvm", False), ("exact", True)):
        _, errors = merged([(tmp_path / "a", 1), (tmp_path / "b", 1)], tmp_path / method, method=method)
        line = error_sentence(find_method(method), errors)
        assert (line == "Merged exactly") == formula and ("not the weighted sum" in line) != formula
        assert ("Σ weight" in (tmp_path / method / "README.md").read_text()) == formula
        record = read_json(tmp_path / method / "merge.json")
        assert record["result"]["error"] < 1e-6


def test_copies_of_the_base_embedding_are_carried_if_equal(tmp_path):
    pair = {"model.embed_tokens": (np.ones((4, 50)), np.ones((24, 4)))}
    name = PREFIX + "model.embed_tokens.base_layer.weight"
    for folder, value in (("a", 1), ("b", 1), ("c", 2)):
        make(
            tmp_path / folder,
            pair,
            extra={name: np.full((50, 24), value)},
            r=4,
            target_modules=["embed_tokens"],
        )
    result, _ = merged([(tmp_path / "a", 1), (tmp_path / "b", 1)], tmp_path / "out")
    assert (result.full_tensor("model.embed_tokens.base_layer.weight") == 1).all()
    with raises(ContentError, "embed_tokens", "a", "c"):
        merged([(tmp_path / "a", 1), (tmp_path / "c", 1)], tmp_path / "out2")


@pytest.mark.parametrize("rank", [1, 5, 12, 16, 40])
def test_svd_is_the_dense_optimum(tmp_path, rank):
    one, other = factors(1), factors(2)
    make(tmp_path / "a", one)
    make(tmp_path / "b", other)
    result, errors = merged(
        [(tmp_path / "a", 0.5), (tmp_path / "b", 0.5)], tmp_path / "out", method="svd", rank=rank
    )
    for module in one:
        expected = 0.5 * (dense(one)[module] + dense(other)[module])
        values = np.linalg.svd(expected, compute_uv=False)
        optimum = np.sqrt((values[rank:] ** 2).sum()) / np.linalg.norm(values)
        found = np.linalg.norm(delta(result, module) - expected) / np.linalg.norm(values)
        assert abs(found - optimum) < 1e-6
        assert abs(relative([errors[module]]) - found) < 1e-6
    assert result.config.rank == min(rank, 16)


def test_energy_finds_the_smallest_rank_that_keeps_it(tmp_path):
    module = "model.layers.0.self_attn.q_proj"
    a, b = np.zeros((4, 24)), np.zeros((24, 4))
    for i, value in enumerate([8, 4, 2, 1]):  # squares 64, 16, 4, 1 of 85
        a[i, i], b[i, i] = value, 0.25
    make(tmp_path / "a", {module: (a, b)}, r=4, target_modules=["q_proj"])
    for energy, rank in ((64 / 85, 1), (0.76, 2), (0.95, 3), (0.99, 4), (1, 4)):
        result, _ = merged([(tmp_path / "a", 1)], tmp_path / f"out{energy}", method="svd", energy=energy)
        assert result.config.rank == rank, energy


def test_bf16_output_is_rounded_to_nearest_and_the_loss_is_said(tmp_path):
    pairs = factors(1)
    make(tmp_path / "a", pairs)
    _, errors = merged([(tmp_path / "a", 1)], tmp_path / "out", dtype="BF16")
    result = open_adapter(tmp_path / "out")
    for module, (a, b) in pairs.items():
        merged_a, merged_b = (result.weights.tensors[f"{PREFIX}{module}.lora_{side}.weight"] for side in "AB")
        np.testing.assert_array_equal(stored(merged_a), bf16_bits(a))
        np.testing.assert_array_equal(stored(merged_b), bf16_bits(2 * b))
    assert 1e-3 < relative(errors.values()) < 1e-2
    assert abs(relative(errors.values()) - error_all(result, dense(pairs))) < 1e-6


def error_all(adapter, expected):
    missing = np.sqrt(sum(np.linalg.norm(delta(adapter, m) - d) ** 2 for m, d in expected.items()))
    return missing / np.sqrt(sum(np.linalg.norm(d) ** 2 for d in expected.values()))


@pytest.mark.parametrize(
    ("how", "facts"),
    [
        ({"method": "svd"}, "--rank; --energy"),
        ({"method": "svd", "rank": 4, "energy": 0.9}, ""),
        ({"method": "exact", "rank": 4}, "--rank; --method"),
        ({"method": "svd", "rank": 0}, "--rank; found 0"),
        ({"method": "svd", "energy": 0.0}, "--energy; found 0.0"),
        ({"method": "svd", "energy": float("nan")}, "--energy; found NaN"),
    ],
)
def test_method_arguments_that_do_not_fit(tmp_path, how, facts):
    make(tmp_path / "a")
    with raises(RequestError, facts):
        merged([(tmp_path / "a", 1)], tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_linear_refuses_different_ranks(tmp_path):
    make(tmp_path / "a", factors(1))
    make(tmp_path / "b", factors(2, rank=4), r=4)
    with raises(ContentError, "4", "8"):
        merged([(tmp_path / "a", 1), (tmp_path / "b", 1)], tmp_path / "out", method="linear")


def test_nan_in_a_source_leaves_nothing_behind(tmp_path):
    pairs = factors(1)
    pairs["model.layers.1.self_attn.v_proj"][1][3, 2] = np.nan
    make(tmp_path / "a", pairs)
    with raises(ContentError, "1 values", "v_proj.lora_B.weight", "NaN", "3", "2"):
        merged([(tmp_path / "a", 1)], tmp_path / "out")
    assert names(tmp_path) == ["a"]


def test_a_merge_that_fails_leaves_no_thread_while_its_error_is_known(tmp_path, monkeypatch):
    """The garbage collector once joined such a thread from another that was starting, and hung."""
    adapter = make(tmp_path / "a", factors(layers=8))
    plan = plan_merging(MergeRequest([(str(adapter), 1.0)], tmp_path / "out"))

    def full(_path, _specs, values):
        next(iter(values))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging, "write_weights", full)
    threads = threading.active_count()
    with pytest.raises(OSError, match="No space left") as error:
        plan.write(lambda _: None)
    assert error.traceback and threading.active_count() == threads


def test_what_is_missing_is_told_relative_to_the_whole():
    found = {"a": (3.0, 0.6), "b": (4.0, 0.8), "c": (0.0, 0.0)}
    assert relative(found.values()) == pytest.approx(0.2)
    assert relative([found["a"]]) == pytest.approx(0.2)
    assert relative([found["c"]]) == 0.0
    assert relative([(0.0, 1.0)]) == math.inf
    norms = {"a": (1.0, 0.1), "b": (1.0, 0.2)}
    assert error_sentence(find_method("exact"), norms).endswith("at most 2.0e-01 (b)")
    assert error_sentence(find_method("linear"), norms).endswith("which is not the weighted sum")
