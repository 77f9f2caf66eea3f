"""TIES, DARE and magnitude pruning against sums by hand; PEFT itself is the oracle of the slow tests."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from tests.json_files import read_json
from tests.messages import printed, raises
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, delta, dense, factors, make, make_base
from tuneyard.adapters.methods import methods
from tuneyard.adapters.model.store import open_adapter
from tuneyard.core.errors import RequestError

ROOT = math.sqrt(2)  # of the scale α/r = 2 that the adapters have
PLAIN = ("ties", "magnitude_prune", "dare_linear", "dare_ties")


@pytest.fixture
def three(working_folder):
    """Adapters a and b of rank 8, c of rank 4, and their factors."""
    pairs = {"a": factors(1), "b": factors(2), "c": factors(3, rank=4)}
    for name, of_modules in pairs.items():
        make(f"saves/{name}", of_modules, r=4 if name == "c" else 8)
    return pairs


def merge(*words, out="saves/out"):
    call("merge", *words, "--out", out)
    return open_adapter(Path(out))


def trimmed(matrix, density):
    """The elements of largest magnitude, the others 0, by sorting."""
    count = int(density * matrix.size)
    places = sorted(range(matrix.size), key=lambda place: -abs(matrix.flat[place]))[:count]
    result = np.zeros(matrix.shape)
    for place in places:
        result.flat[place] = matrix.flat[place]
    return result


def elected(matrices, weights):
    """The mean of the weighted elements that have the sign of the sum, element by element."""
    result = np.zeros(matrices[0].shape)
    for place in np.ndindex(result.shape):
        values = [matrix[place] for matrix in matrices]
        sign = 1 if sum(values) >= 0 else -1
        agreeing = [weight * value for weight, value in zip(weights, values, strict=True) if value * sign > 0]
        if agreeing:
            result[place] = sum(agreeing) / len(agreeing)
    return result


@pytest.mark.parametrize("density", [0.1, 0.5, 1])
def test_ties_is_trim_elect_and_mean_of_a_and_of_b(three, density):
    result = merge("a=0.5", "b=2", "--method", "ties", "--density", density)
    roots = [ROOT * math.sqrt(0.5), ROOT * ROOT]
    for module in three["a"]:
        sides = []
        for side in (0, 1):
            matrices = [trimmed(three[name][module][side], density) for name in "ab"]
            sides.append(elected(matrices, roots))
        np.testing.assert_allclose(delta(result, module), sides[1] @ sides[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("names", ["ab", "ac", "abc"])
def test_ties_on_delta_of_any_ranks(three, names):
    words = [f"{name}={weight}" for name, weight in zip(names, (0.5, -2, 1), strict=False)]
    result = merge(*words, "--method", "ties_svd", "--density", "0.3", "--rank", "24")
    weights = (0.5, -2, 1)[: len(names)]
    for module in three["a"]:
        matrices = [trimmed(dense({module: three[name][module]}, alpha=16)[module], 0.3) for name in names]
        np.testing.assert_allclose(delta(result, module), elected(matrices, weights), rtol=0, atol=1e-4)


def test_a_pruned_sum_on_delta_and_what_its_rank_loses(three):
    """The default rank is that of the exact sum; a pruned ΔW has more, and merge.json has what is lost."""
    for rank in (None, 3):
        out = f"saves/out{rank}"
        words = ["a=0.5", "c=1", "--method", "magnitude_prune_svd", "--density", "0.5"]
        result = merge(*words, *(["--rank", rank] if rank else []), out=out)
        assert result.config.rank == (rank or 8 + 4)
        lost, whole = 0.0, 0.0
        for module in three["a"]:
            one, other = (dense({module: three[name][module]})[module] for name in "ac")
            pruned = 0.5 * trimmed(one, 0.5) + trimmed(other, 0.5)
            values = np.linalg.svd(pruned, compute_uv=False)
            lost += (values[result.config.rank :] ** 2).sum()
            whole += (values**2).sum()
            difference = np.linalg.norm(delta(result, module) - pruned)
            cut_off = math.sqrt((values[result.config.rank :] ** 2).sum())
            assert difference == pytest.approx(cut_off, rel=1e-4, abs=1e-4)
        record = read_json(Path(out) / "merge.json")["result"]
        assert record["error"] == pytest.approx(math.sqrt(lost / whole), rel=1e-4)
        assert record["compared_with"] == "method's result of full rank"
        text = (Path(out) / "README.md").read_text()
        assert "method's result of full rank" in text and "not the weighted sum" in text


def test_what_a_rank_loses_is_printed(three):
    words = ("merge", "a=0.5", "b=0.5", "--method", "ties_svd", "--density", "0.5")
    printed(call(*words, "--rank", "2", "--out", "saves/x")[0], "Merged", "rank 2", "ties_svd")
    cut = call(*words, "--rank", "2", "--out", "saves/y")[0]
    whole = call(*words, "--rank", "99", "--out", "saves/z")[0]
    assert "cuts off" in cut and "cuts off" not in whole
    assert "rank 24" in whole  # the larger of the smaller sides: a larger rank has nothing to keep


def test_dare_keeps_a_share_of_the_elements_and_divides_by_it(three):
    """A of one adapter with the other's B = 0 would be 0: the elements of A and B are seen in the file."""
    result = merge("a=1", "b=1", "--method", "dare_linear", "--density", "0.25")
    kept, count = 0, 0
    for module, (a, _) in three["a"].items():
        other, _ = three["b"][module]
        merged, _ = result.factors(module)
        for place in np.ndindex(a.shape):
            terms = (ROOT * a[place] / 0.25, ROOT * other[place] / 0.25)
            possible = {0: 0.0, 1: terms[0], 2: terms[1], 3: sum(terms)}
            nearest = min(possible, key=lambda which: abs(possible[which] - merged[place]))
            assert abs(possible[nearest] - merged[place]) < 1e-5
            kept += nearest.bit_count()
            count += 2
    assert abs(kept / count - 0.25) < 4 * math.sqrt(0.25 * 0.75 / count)


def test_dare_on_delta_has_the_expected_value_of_the_sum(three):
    """The mean over 200 seeds is within five standard errors of the exact sum, for nearly all elements."""
    module = next(iter(three["a"]))
    exact = 0.5 * dense(three["a"])[module] + dense(three["c"])[module]
    results = []
    for seed in range(200):
        words = ("a=0.5", "c=1", "--method", "dare_linear_svd", "--density", "0.5", "--rank", "24")
        results.append(delta(merge(*words, "--seed", seed, out=f"saves/o{seed}"), module))
    errors = np.std(results, axis=0) / math.sqrt(len(results))
    assert (abs(np.mean(results, axis=0) - exact) < 5 * errors).all()
    assert np.std(results, axis=0).min() > 0


def test_the_seed_decides_and_only_the_seed(three):
    for method in ("dare_linear", "dare_ties", "dare_linear_svd", "dare_ties_svd"):
        words = ("a=1", "b=1", "--method", method, "--density", "0.5")
        files = []
        for number, seed in enumerate((42, None, 7)):
            out = f"saves/{method}{number}"
            merge(*words, *([] if seed is None else ["--seed", seed]), out=out)
            files.append(Path(out, "adapter_model.safetensors").read_bytes())
        assert files[0] == files[1] != files[2]
        assert read_json(Path(out, "merge.json"))["parameters"]["seed"] == 7


@pytest.mark.parametrize("method", PLAIN)
def test_different_ranks_are_refused_with_the_form_on_delta(three, method):
    _, error = call("merge", "a=1", "c=1", "--method", method, "--density", "1", "--out", "x", code=1)
    printed(error, "8 (a)", "4 (c)", f"--method {method}_svd")
    assert not Path("x").exists()


def test_ranks_may_differ_between_modules(working_folder):
    """A module of rank 2 next to one of rank 8 in both adapters: each is averaged by itself."""

    def rank(module):
        return 2 if "v_proj" in module else 8

    pairs = [factors(seed, rank=rank) for seed in (1, 2)]
    for name, of_modules in zip("ab", pairs, strict=True):
        make(f"saves/{name}", of_modules, rank_pattern={"v_proj": 2}, alpha_pattern={"v_proj": 4})
    result = merge("a=1", "b=1", "--method", "linear")
    for module in pairs[0]:
        (a, b), (other_a, other_b) = (each[module] for each in pairs)
        expected = ROOT * (b + other_b).astype(float) @ (ROOT * (a + other_a).astype(float))
        np.testing.assert_allclose(delta(result, module), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", [*PLAIN, *(f"{name}_svd" for name in PLAIN)])
def test_densities_and_numbers_of_adapters_that_do_not_fit(three, method):
    words = ("merge", "a=1", "b=1", "--method", method, "--out", "x")
    printed(call(*words, code=2)[1], method, "--density")
    for density in ("0", "1.1", "-1", "nan", "many"):
        printed(call(*words, "--density", density, code=2)[1], "--density", "found")
    for other in ("b=0", "c=0"):
        one = ("merge", "a=1", other, "--method", method, "--density", "0.5", "--out", "x")
        printed(call(*one, code=2)[1], 1, "2 or more")
    assert call(*words, "--density", "0.0001", code=2)[1].count("none of the") == 1
    assert not Path("x").exists()


def test_a_negative_weight_of_averaged_factors_is_noted(three):
    words = ("merge", "a=1", "b=-0.5", "--density", "0.5")
    for method, is_noted in itertools.product(PLAIN, (True, False)):
        name = method if is_noted else f"{method}_svd"
        _, error = call(*words, "--method", name, "--out", f"saves/{name}")
        assert ("weight -0.5" in error) == is_noted
    assert "weight -0.5" in call("merge", "a=1", "b=-0.5", "--method", "linear", "--out", "saves/l")[1]


def test_of_equal_elements_the_first_are_kept():
    from tuneyard.adapters.methods.pruning import largest

    ones = np.array([[1, -1, 1], [2, 1, -1]], np.float32)
    (kept,) = largest([ones], {"density": 0.5}, "m")
    np.testing.assert_array_equal(kept, [[1, -1, 0], [2, 0, 0]])
    with raises(RequestError, "0.1", 6, "m"):
        list(largest([ones], {"density": 0.1}, "m"))


def flat_slerp(one, other, share):
    """Spherical interpolation of two vectors by the formula of Shoemake."""
    cosine = np.vdot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other))
    angle = np.arccos(cosine)
    return (np.sin((1 - share) * angle) * one + np.sin(share * angle) * other) / np.sin(angle)


@pytest.mark.parametrize(("left", "right"), [(1, 1), (0.3, 0.1), (0.2, 5)])
@pytest.mark.parametrize("name", ["b", "c"])
def test_slerp_of_each_module(three, name, left, right):
    result = merge(f"a={left}", f"{name}={right}", "--method", "slerp")
    assert result.config.rank == 8 + (8 if name == "b" else 4)
    for module in three["a"]:
        one, other = (dense({module: three[each][module]})[module] for each in ("a", name))
        expected = flat_slerp(one, other, right / (left + right))
        np.testing.assert_allclose(delta(result, module), expected, rtol=0, atol=1e-4)


def test_slerp_of_unit_vectors_is_scipy_s(working_folder):
    from scipy.spatial import geometric_slerp

    pairs = []
    for seed, name in ((1, "a"), (2, "b")):
        of_modules = factors(seed)
        for module, matrix in dense(of_modules, alpha=8).items():
            a, b = of_modules[module]
            of_modules[module] = a, (b / np.linalg.norm(matrix)).astype(np.float32)
        make(f"saves/{name}", of_modules, lora_alpha=8)
        pairs.append(dense(of_modules, alpha=8))
    result = merge("a=0.25", "b=0.75", "--method", "slerp")
    for module in result.modules:
        one, other = (matrices[module].ravel() / np.linalg.norm(matrices[module]) for matrices in pairs)
        expected = geometric_slerp(one, other, 0.75)
        np.testing.assert_allclose(delta(result, module).ravel(), expected, rtol=0, atol=1e-6)


def test_slerp_where_there_is_no_angle(working_folder):
    """Parallel ΔW, one that is 0, and a module that one adapter does not have: a straight line."""
    one = factors(1)
    first = next(iter(one))
    make("saves/a", one)
    make("saves/double", {module: (a, 2 * b) for module, (a, b) in one.items()})
    make("saves/zero", {module: (a, 0 * b) for module, (a, b) in one.items()})
    make("saves/q", {m: p for m, p in factors(2).items() if "q_proj" in m}, target_modules=["q_proj"])
    for name, factor in (("double", 0.75 + 0.25 * 2), ("zero", 0.75)):
        result = merge("a=3", f"{name}=1", "--method", "slerp", out=f"saves/out-{name}")
        for module, expected in dense(one).items():
            np.testing.assert_allclose(delta(result, module), factor * expected, rtol=1e-5, atol=1e-4)
    result = merge("a=1", "q=3", "--method", "slerp")
    for module, expected in dense(one).items():
        if "v_proj" in module:
            np.testing.assert_allclose(delta(result, module), 0.25 * expected, rtol=1e-5, atol=1e-4)
    make("saves/opposite", {module: (a, -b) for module, (a, b) in one.items()})
    _, error = call("merge", "a=1", "opposite=1", "--method", "slerp", "--out", "x", code=1)
    printed(error, first, "opposite", "--method exact")


def test_slerp_takes_two_adapters_with_positive_weights(three):
    for words in (("a=1",), ("a=1", "b=0"), ("a=1", "b=-1"), ("a=1", "b=1", "c=1")):
        _, error = call("merge", *words, "--method", "slerp", "--out", "x", code=2)
        printed(error, "slerp", "expected", "--method exact")


@pytest.mark.parametrize("method", [*PLAIN, *(f"{name}_svd" for name in PLAIN), "slerp"])
def test_tensors_saved_in_full_are_refused_as_peft_refuses_them(working_folder, method):
    """A weighted sum of them, next to averaged or normalised ΔW, would be another mixture."""
    base = base_tensors()
    make_base("base", base, dtype="F32")
    name = "model.layers.0.norm.weight"
    for seed, folder in enumerate("ab"):
        extra = {f"base_model.model.{name}": base[name] + 1}
        make(f"saves/{folder}", factors(seed), extra=extra, modules_to_save=["layers.0.norm"])
    words = ["merge", "a=1", "b=1", "--base", "base", "--same-base", "--method", method, "--out", "x"]
    if method != "slerp":
        words += ["--density", "0.5"]
    printed(call(*words, code=1)[1], name, method, "--method exact")
    assert not Path("x").exists()


@pytest.mark.parametrize("method", ["ties", "dare_ties", "magnitude_prune_svd", "dare_linear_svd", "slerp"])
@pytest.mark.parametrize("kind", ["dora", "oft"])
def test_kinds_that_need_the_base_are_refused_by_every_method(three, method, kind):
    fields = {"dora": {"use_dora": True}, "oft": {"peft_type": "OFT"}}[kind]
    make("saves/other", **fields)
    words = ["merge", "a=1", "other=1", "--method", method, "--out", "x"]
    if method != "slerp":
        words += ["--density", "0.5"]
    printed(call(*words, code=1)[1], "adapter fuse")
    assert not Path("x").exists()


def test_every_method_has_a_line_in_the_documents():
    from tests.conftest import ROOT as CHECKOUT

    page = (CHECKOUT / "docs/adapters.md").read_text(encoding="utf-8")
    for name in methods():
        assert f"`{name}`" in page or f"`{name} " in page or name.endswith("_svd"), name
    assert "_svd`" in page


def test_a_damaged_module_of_a_pruned_merge_leaves_nothing(three):
    pairs = factors(2)
    pairs["model.layers.1.self_attn.v_proj"][1][3, 2] = np.inf
    make("saves/damaged", pairs)
    words = ("merge", "a=1", "damaged=1", "--method", "ties_svd", "--density", "0.5", "--out", "x")
    printed(call(*words, code=1)[1], "v_proj", "infinite")
    assert not Path("x").exists()
