"""Quantised bases on the CPU: what is quantised, and adapters that stay exact beside it."""

import pytest

from testing.tiny import SHAPES, write_adapter
from tuneyard.adapters.model.store import open_adapter
from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.eval.models.apply import applied, check_fits
from tuneyard.eval.models.load import load_model


@pytest.fixture(scope="module", params=[4, 8])
def quantised(tiny_model, request):
    pytest.importorskip("bitsandbytes")
    return load_model(tiny_model, "fp32", request.param)


def test_linears_but_the_head_are_quantised_close_to_what_they_were(model, quantised) -> None:
    import torch

    path = "model.layers.0.mlp.up_proj"
    ours, plain = (net.get_submodule(path) for net in (quantised.net, model.net))
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    off = (ours(x) - plain(x)).norm() / plain(x).norm()
    assert 1e-4 < off < 0.15
    assert torch.equal(quantised.net.lm_head.weight, model.net.lm_head.weight)


def test_an_adapter_adds_its_exact_change_to_quantised_linears(quantised, tmp_path) -> None:
    import torch

    adapter = open_adapter(write_adapter(tmp_path / "a"))
    check_fits(quantised, adapter)
    for path, (_, inputs) in SHAPES.items():
        module = quantised.net.get_submodule(path)
        x = torch.randn(3, inputs, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            before = module(x)
            with applied(quantised, [WeightedAdapter(adapter, 0.5)]):
                within = module(x)
            assert torch.equal(module(x), before)
        a, b = map(torch.from_numpy, adapter.factors(path))
        change = 0.5 * 8 / 4 * x @ a.T @ b.T  # weight · α / r
        torch.testing.assert_close(within, before + change, rtol=1e-4, atol=1e-4)
