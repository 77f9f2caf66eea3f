"""`adapter show`: sizes, norms and spectra by their definitions, and how an adapter was configured."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.folders import names
from tests.json_files import read_json
from tests.messages import printed_line
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import dense, factors, make

pytestmark = pytest.mark.usefixtures("two_adapters")


def test_show_prints_the_document_s_figures():
    shapes = {"q_proj": (2048, 2048), "v_proj": (256, 2048)}
    make("saves/doc", factors(1, layers=36, shapes=shapes))
    out, _ = call("show", "doc")
    printed_line(out, "72 modules", "144 tensors", "1,843,200 parameters")
    assert "(7.1 MiB)" in out
    row = printed_line(out, "q_proj", "1,179,648").replace("|", " ").split()
    assert row[:7] == ["q_proj", "36", "8", "2", "8×2048", "2048×8", "1,179,648"]


def test_show_says_how_an_adapter_was_configured():
    make("saves/doc", factors(1), lora_dropout=0.05)
    out, _ = call("show", "doc")
    assert "doc  base org/base  F32" in out
    said = "config: type LORA, task CAUSAL_LM, rank 8, alpha 16, dropout 0.05, bias none, "
    assert f"{said}target modules q_proj v_proj\n\n" in out  # and no tensor is saved in full
    found = json.loads(call("show", "doc", "--json")[0])["adapters"][0]
    assert found["config"] == read_json(Path("saves/doc/adapter_config.json"))
    embedding = {"base_model.model.model.embed_tokens.weight": np.zeros((6, 24))}
    make("saves/doc", factors(1), extra=embedding, lora_dropout=None, target_modules=[*factors(1)])
    out, notes = call("show", "doc")
    printed_line(out, "dropout not given", "target modules q, v of layers 0–1")
    assert "next: tuneyard adapter fuse saves/doc --base org/base" in notes  # no GGUF has the embedding


def test_show_writes_a_config_as_json_however_deep_it_is():
    path = make("saves/deep") / "adapter_config.json"
    path.write_text(path.read_text().replace("{", f'{{"corda_config": {"[" * 600}{"]" * 600},', 1))
    assert call("show", "deep", "--json")[0].count("[") > 600


def test_show_measures_by_definition():
    out = json.loads(call("show", "rte", "mnli", "--json")[0])
    one, other = dense(factors(1)), dense(factors(2))
    for found in out["adapters"][0]["modules"]:
        values = np.linalg.svd(one[found["path"]], compute_uv=False)[:8]
        np.testing.assert_allclose(found["singular_values"], values, rtol=1e-6)
        assert found["norm"] == pytest.approx(np.linalg.norm(values))
        shares = values / values.sum()
        assert found["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    flat = [np.concatenate([d[m].ravel() for m in one]) for d in (one, other)]
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    assert out["cosine"][0][1] == out["cosine"][1][0] == pytest.approx(cosine)
    assert out["cosine"][0][0] == pytest.approx(1)
    counts = {(h["target"], h["side"]): sum(h["counts"]) for h in out["adapters"][0]["histograms"]}
    assert counts == {("q_proj", "A"): 384, ("q_proj", "B"): 384, ("v_proj", "A"): 384, ("v_proj", "B"): 192}


@pytest.mark.slow
def test_show_draws_pictures():
    call("show", "rte", "mnli", "--plot", "pictures")
    assert names("pictures") == [
        "cosine.png", "norms.png", "spectrum.png", "values-mnli.png", "values-rte.png",
    ]  # fmt: skip
    assert all(Path(f"pictures/{p}").read_bytes()[:4] == b"\x89PNG" for p in names("pictures"))


def test_show_compares_adapters_that_nothing_else_would_take_together():
    make(
        "saves/wide",
        factors(1, shapes={"q_proj": (30, 24), "v_proj": (12, 24)}),
        base_model_name_or_path="x/y",
    )
    make("saves/other", {"lm_head": (np.ones((8, 24)), np.ones((50, 8)))}, target_modules=["lm_head"])
    out, _ = call("show", "rte", "wide", "other")
    last = [line.replace("|", " ").split() for line in out.splitlines()[-3:]]
    assert last[0] == ["rte", "1", "–", "0"]
