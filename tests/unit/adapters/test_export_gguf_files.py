"""What --to gguf refuses, by name, leaving nothing behind; tests/integration reads back what it writes."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from testing.tiny import CHATML
from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import printed
from tests.unit.adapters.commands import call
from tests.unit.adapters.llama import GGUF, TOKENIZER, llama_tensors, make_llama
from tests.unit.adapters.make import factors, gguf_fields, make

pytestmark = pytest.mark.usefixtures("llama")


def test_every_tensor_is_there_once_and_its_values_are():
    from gguf import GGUFReader

    make_llama(
        values={**llama_tensors(), "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2)}
    )  # of old ones
    said, _ = call("export", "model", *GGUF)
    read = {tensor.name: tensor.data for tensor in GGUFReader("out/model.gguf").tensors}
    assert len(read) == 11
    q = llama_tensors()["model.layers.0.self_attn.q_proj.weight"].astype(np.float16)
    assert read["blk.0.attn_q.weight"].tobytes() == q[[0, 2, 1, 3, 4, 6, 5, 7]].tobytes()
    assert read["blk.0.attn_norm.weight"].dtype == np.float32
    assert "out/model.gguf" in said
    assert names("out") == ["model.gguf"]


def test_the_sizes_of_the_config_are_in_the_file():
    make_llama(rope_theta=5000.0)
    call("export", "model", *GGUF)
    fields = gguf_fields("out/model.gguf")
    found = {name.removeprefix("llama."): value for name, value in fields.items() if "llama." in name}
    assert found.pop("attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    assert found == {
        "block_count": 1, "context_length": 64, "embedding_length": 8, "feed_forward_length": 12,
        "attention.head_count": 2, "attention.head_count_kv": 1, "rope.freq_base": 5000.0, "vocab_size": 8,
        "rope.dimension_count": 4, "attention.key_length": 4, "attention.value_length": 4,
    }  # fmt: skip


@pytest.mark.parametrize("where", ["jinja beside an old one", "list", "folder"])
def test_the_chat_template_in_the_file_is_the_one_that_scoring_takes(where):
    make_llama()
    config = Path("model/tokenizer_config.json")
    fields = read_json(config) if config.is_file() else {}
    templates = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    if where == "list":
        write_json(config, {**fields, "chat_template": templates})
    elif where == "folder":
        Path("model/additional_chat_templates").mkdir()
        for item in templates:
            Path(f"model/additional_chat_templates/{item['name']}.jinja").write_text(item["template"])
    else:
        write_json(config, {**fields, "chat_template": "old"})
        Path("model/chat_template.jinja").write_text("D")
    call("export", "model", *GGUF)
    written = {
        name: value for name, value in gguf_fields("out/model.gguf").items() if "chat_template" in name
    }
    assert written == {"tokenizer.chat_template": "D"}


def test_the_end_tokens_in_the_file_are_those_of_scoring():
    make_llama()
    write_json(Path("model/tokenizer_config.json"), {"eos_token": "<s>"})
    write_json(Path("model/generation_config.json"), {"eos_token_id": [2, 3, 1]})
    template = "{% for m in messages %}{{ m['content'] }}x{% endfor %}"
    Path("model/chat_template.jinja").write_text(template)
    _, notes = call("export", "model", *GGUF)
    fields = gguf_fields("out/model.gguf")
    ends = [fields[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")]
    assert ends == [3, 4, 2]
    printed(notes, "3 end tokens", "ids 1")
    words = ("--to", "ollama", "--gguf", "out/model.gguf", "--out", "Modelfile", "--system", "s")
    call("export", "model", *words)
    stops = re.findall('^PARAMETER stop "(.*)"$', Path("Modelfile").read_text(), re.MULTILINE)
    assert stops == ["<s>", "ab", "b", "x"]


def test_four_bits_are_llama_cpps_blocks_and_tables_keep_eight():
    from gguf import GGUFReader

    values = llama_tensors(width=64, keys=32, inner=64)
    composed = {**TOKENIZER, "normalizer": {"type": "NFC"}}
    make_llama("wide", values, composed, hidden_size=64, intermediate_size=64)
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


def test_a_modelfile_is_for_the_model_that_its_gguf_was_made_from():
    words = ["--to", "ollama", "--gguf", "out/model.gguf", "--out", "Modelfile", "--force"]
    for name in ("model", "other"):
        make_llama(name, author=name)
        Path(name, "chat_template.jinja").write_text(CHATML)
    call("export", "model", *GGUF)
    assert "make it again" in call("export", "other", *words, code=2)[1]
    call("export", "model", *words)
    Path("out/model.gguf").write_bytes(b"GGUF of another program")
    call("export", "other", *words)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("model.layers.0.self_attn.sink", np.zeros(2), "has no place in a GGUF of llama"),
        ("model.norm.weight", np.full(8, np.nan), "NaN"),
        ("model.embed_tokens.weight", np.full((8, 8), 1e6), "in f16, which ends at 65,504"),
    ],
)
def test_tensors_that_cannot_be_written_leave_no_file(name, values, reason):
    make_llama(values={**llama_tensors(), name: values})
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
    adapter = make("saves/rte", factors(layers=1), base_model_name_or_path="org/base")
    assert "shape [24, 24], model has [8, 8]" in call("export", adapter, *GGUF, "--base", "model", code=1)[1]
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
    make("saves/strange", strange, target_modules=["q_proj"])
    assert "no module of llama" in call("export", "strange", *GGUF, "--base", "model", code=1)[1]


def test_a_lora_that_fits_its_base_is_written_where_it_fits_on_the_disk(monkeypatch):
    make("small", factors(layers=1, shapes={"q_proj": (8, 8)}), target_modules=["q_proj"])
    assert "--base model --from BASE --to ollama" in call("export", "small", *GGUF, "--base", "model")[1]
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    assert "has 10 bytes free" in call("export", "small", *GGUF, "--force", "--base", "model", code=2)[1]


def test_other_types_are_left_to_llama_cpps_quantiser():
    said = call("export", "model", *GGUF, "--type", "Q4_K_M", code=2)[1]
    assert "the gguf package writes f16, q8_0, q4_0" in said
    assert "llama-quantize out/model.gguf OUT.gguf q4_k_m" in said and not Path("out/model.gguf").exists()
