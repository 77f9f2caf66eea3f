"""--to ollama of an adapter: it is fused into its base, the GGUF is made, and a Modelfile names it."""

from pathlib import Path

import numpy as np
import pytest

from testing.tiny import CHATML
from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import printed_line
from tests.unit.adapters.commands import call
from tests.unit.adapters.llama import llama_tensors, make_llama
from tests.unit.adapters.make import factors, gguf_fields, make
from tests.unit.adapters.test_export_modelfile import parse

OLLAMA = ("--to", "ollama", "--out", "out/Modelfile")
QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def rte(llama):
    """A LoRA of rank 8 and alpha 16 on the queries of the Llama in `model`."""
    Path("model/chat_template.jinja").write_text(CHATML)
    small = factors(layers=1, shapes={"q_proj": (8, 8)})
    make("saves/rte", small, target_modules=["q_proj"], base_model_name_or_path="model")
    return small[QUERY]


def tensors(path):
    from gguf import GGUFReader

    return {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}


def test_an_adapter_is_fused_into_the_gguf_that_its_modelfile_names(rte):
    _, printed = call("export", "rte", *OLLAMA)
    assert names("out") == ["Modelfile", "rte-f16.gguf"]
    assert parse(Path("out/Modelfile"))["FROM"] == ["./rte-f16.gguf"]
    down, up = (factor.astype(np.float64) for factor in rte)
    fused = llama_tensors()[f"{QUERY}.weight"].astype(np.float32) + 16 / 8 * up @ down
    written = tensors("out/rte-f16.gguf")
    order = [0, 2, 1, 3, 4, 6, 5, 7]  # of the rows of two heads, as llama.cpp rotates them
    np.testing.assert_allclose(written["blk.0.attn_q.weight"], fused[order], rtol=1e-3, atol=1e-3)
    assert abs(fused - llama_tensors()[f"{QUERY}.weight"]).max() > 0.1
    keys = llama_tensors()["model.layers.0.self_attn.k_proj.weight"].astype(np.float16)
    assert written["blk.0.attn_k.weight"].tobytes() == keys[[0, 2, 1, 3]].tobytes()
    assert gguf_fields("out/rte-f16.gguf")["general.name"] == "rte"
    assert "next: ollama create rte -f out/Modelfile" in printed
    assert "replace it with --force" in call("export", "rte", *OLLAMA, "--type", "q8_0", code=2)[1]
    call("export", "rte", *OLLAMA, "--force", "--type", "q8_0")
    assert parse(Path("out/Modelfile"))["FROM"] == ["./rte-q8_0.gguf"]


def test_the_gguf_is_that_of_fuse_and_export_by_hand(rte):
    call("export", "rte", *OLLAMA)
    call("fuse", "rte", "--base", "model", "--dtype", "fp32", "--out", "models/rte")
    call("export", "models/rte", "--to", "gguf", "--out", "by-hand.gguf")
    by_hand, made = tensors("by-hand.gguf"), tensors("out/rte-f16.gguf")
    assert {name: data.tobytes() for name, data in by_hand.items()} == {
        name: data.tobytes() for name, data in made.items()
    }


def test_a_whole_model_gets_its_gguf_too(rte):
    call("export", "model", *OLLAMA)
    assert names("out") == ["Modelfile", "model-f16.gguf"]
    assert len(tensors("out/model-f16.gguf")) == 11


def test_a_lora_is_written_for_a_base_in_ollama(rte):
    call("export", "rte", *OLLAMA, "--from", "qwen2.5:0.5b")
    made = parse(Path("out/Modelfile"))
    assert (made["FROM"], made["ADAPTER"]) == (["qwen2.5:0.5b"], ["./rte-lora.gguf"])
    assert {"blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"} == set(tensors("out/rte-lora.gguf"))


@pytest.mark.parametrize("words", [("rte",), ("model",), ("rte", "--from", "qwen2.5:0.5b")])
def test_a_run_that_was_killed_before_its_modelfile_goes_on_with_its_gguf(rte, words):
    call("export", *words, *OLLAMA)
    modelfile = Path("out/Modelfile").read_bytes()
    (gguf,) = Path("out").glob("*.gguf")
    written = gguf.stat().st_mtime_ns
    Path("out/Modelfile").unlink()
    assert f"kept {gguf}" in call("export", *words, *OLLAMA)[1]
    assert Path("out/Modelfile").read_bytes() == modelfile and gguf.stat().st_mtime_ns == written


@pytest.mark.parametrize("changed", ["adapter", "base", "another program"])
def test_a_gguf_of_something_else_is_not_taken_for_that_of_a_killed_run(rte, changed):
    call("export", "rte", *OLLAMA)
    Path("out/Modelfile").unlink()
    if changed == "adapter":
        other = factors(1, layers=1, shapes={"q_proj": (8, 8)})
        make("saves/rte", other, target_modules=["q_proj"], base_model_name_or_path="model")
    elif changed == "base":
        make_llama("model", {**llama_tensors(), "model.norm.weight": np.ones(8, np.float32)})
    else:
        Path("out/rte-f16.gguf").write_bytes(b"GGUF" + b"x" * 9000)
    before = Path("out/rte-f16.gguf").read_bytes()
    assert "rte-f16.gguf: already there" in call("export", "rte", *OLLAMA, code=2)[1]
    assert names("out") == ["rte-f16.gguf"] and Path("out/rte-f16.gguf").read_bytes() == before


def test_a_dora_is_fused_where_hub_and_gguf_refuse_it(rte):
    small = factors(layers=1, shapes={"q_proj": (8, 8)})
    magnitude = {f"base_model.model.{QUERY}.lora_magnitude_vector": np.ones(8, np.float32)}
    make("saves/dora", small, extra=magnitude, use_dora=True, target_modules=["q_proj"],
         base_model_name_or_path="model")  # fmt: skip
    call("export", "dora", *OLLAMA)
    written = tensors("out/dora-f16.gguf")["blk.0.attn_q.weight"].astype(np.float32)
    np.testing.assert_allclose(
        np.linalg.norm(written, axis=1), 1, atol=1e-3
    )  # its rows have these magnitudes
    for words in (("--to", "gguf", "--out", "x.gguf"), ("--to", "hub", "--repo", "a/b", "--dry-run")):
        assert "use_dora" in call("export", "dora", *words, "--base", "model", code=1)[1]
    assert "use_dora" in call("export", "dora", *OLLAMA, "--force", "--from", "qwen2.5:0.5b", code=1)[1]


def cached(repo, commit="0" * 40):
    """Put the Llama into the hub's cache as this repository."""
    from huggingface_hub import constants

    entry = Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")
    (entry / "refs").mkdir(parents=True)
    (entry / "refs/main").write_text(commit)
    (entry / "snapshots").mkdir()
    Path("model").rename(entry / "snapshots" / commit)


def test_the_base_is_the_one_that_the_adapter_names(rte, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config = read_json(Path("saves/rte/adapter_config.json"))
    write_json(Path("saves/rte/adapter_config.json"), {**config, "base_model_name_or_path": "org/base"})
    printed_line(call("export", "rte", *OLLAMA, code=2)[1], "org/base", "--base DIR --same-base")
    printed_line(call("export", "rte", *OLLAMA, "--base", "model", code=1)[1], "org/base", "--same-base")
    call("export", "rte", *OLLAMA, "--base", "model", "--same-base")
    given = Path("out/rte-f16.gguf").read_bytes()
    cached("org/base")
    call("export", "rte", *OLLAMA, "--force")
    assert Path("out/rte-f16.gguf").read_bytes() == given
    call("fuse", "rte", "--dtype", "fp32", "--out", "models/rte")
    assert Path("models/rte/README.md").read_text().partition("\n# ")[2].startswith("org/base with rte (1)\n")
    call("export", "models/rte", "--to", "gguf", "--out", "by-hand.gguf")
    by_hand = {name: data.tobytes() for name, data in tensors("by-hand.gguf").items()}
    assert by_hand == {name: data.tobytes() for name, data in tensors("out/rte-f16.gguf").items()}
    write_json(Path("saves/rte/adapter_config.json"), {**config, "base_model_name_or_path": None})
    for words in (("export", "rte", *OLLAMA, "--force"), ("fuse", "rte", "--out", "models/other")):
        printed_line(call(*words, code=2)[1], "adapter_config.json", "--base DIR")


def test_what_has_no_gguf_is_refused_before_it_is_fused(rte):
    make_llama("model", model_type="mamba")
    Path("model/chat_template.jinja").write_text(CHATML)
    assert "model_type" in call("export", "rte", *OLLAMA, code=1)[1]
    assert not Path("out").exists()
    make("saves/other", factors(), base_model_name_or_path="model")
    make_llama("model")
    Path("model/chat_template.jinja").write_text(CHATML)
    assert "shape" in call("export", "other", *OLLAMA, code=1)[1]
    assert not Path("out").exists()


def test_fuse_takes_the_folder_that_all_adapters_name(rte):
    make("saves/mnli", factors(2, layers=1, shapes={"q_proj": (8, 8)}), target_modules=["q_proj"],
         base_model_name_or_path="model")  # fmt: skip
    call("fuse", "rte=0.5", "mnli=0.5", "--out", "models/named")
    call("fuse", "rte=0.5", "mnli=0.5", "--base", "model", "--out", "models/given")
    named, given = (Path("models", name, "model.safetensors").read_bytes() for name in ("named", "given"))
    assert named == given
    config = read_json(Path("saves/mnli/adapter_config.json"))
    write_json(Path("saves/mnli/adapter_config.json"), {**config, "base_model_name_or_path": "other"})
    printed_line(call("fuse", "rte", "mnli", "--out", "models/x", code=1)[1], "model", "other", "--base DIR")
