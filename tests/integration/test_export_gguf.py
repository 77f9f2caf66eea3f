"""What --to gguf writes is read back by transformers: same logits, same token ids, same chat template."""

from pathlib import Path

import numpy as np
import pytest

from testing.tiny import CHATML, SIZES, make_tiny
from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import raises
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import delta, factors, gguf_fields, make
from tuneyard.adapters.export.architecture import _REST, _WORDS, Architecture, reorder
from tuneyard.core.errors import RequestError
from tuneyard.eval.models.load import check_gguf

pytestmark = pytest.mark.slow
HARD = [
    "In 2024, 1234567 people paid 3.14 each; isn't it?",
    "任务：根据事件描述判断故障组件。 2024年12月 ４５６",
    "<|im_start|>user\nyes no<|im_end|>\n<|im_start|>assistant\n",
    "  two  spaces\n\n\ttab\r\n café ümlaut 👍🏽 don't I'LL ",
    "",
]
WORDS_BY_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
QWEN2 = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {"Regex": _WORDS + r"\p{N}" + _REST},
            "behavior": "Isolated",
            "invert": False,
        },
        {**WORDS_BY_GPT2, "use_regex": False},
    ],
}


def make_qwen2(folder, tied):
    """A tiny Qwen2 with Qwen's pre-tokenizer and more embedding rows than tokens."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    make_tiny(folder, tied=tied)
    path = folder / "tokenizer.json"
    write_json(path, {**read_json(path), "pre_tokenizer": QWEN2})
    config = Qwen2Config.from_pretrained(folder)
    config.vocab_size += 13
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(config)
    for name, values in model.named_parameters():  # biases and norms begin as 0 and 1: nothing to get wrong
        values.data.add_(torch.randn_like(values) * (0.02 if name.endswith("weight") else 0.3))
    model.save_pretrained(folder)
    return folder


def make_qwen3(folder, tied):
    """A tiny Qwen3: norms of q and k by head, heads wider than the model's width gives them, no biases."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    make_qwen2(folder, tied)
    size = read_json(folder / "config.json")["vocab_size"]
    torch.manual_seed(3)
    config = Qwen3Config(
        **SIZES,
        vocab_size=size,
        head_dim=128,  # Qwen3's own; transformers' reader knows no other
        tie_word_embeddings=tied,
        eos_token_id=2,
    )
    model = Qwen3ForCausalLM(config)
    for values in model.parameters():
        values.data.add_(torch.randn_like(values) * 0.1)
    model.save_pretrained(folder)
    return folder


def make_llama(folder, tied):
    """A tiny Llama with 4 heads over 2 key heads, in bf16 and three shards; GPT-2's pre-tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    make_tiny(folder, tied=tied)
    size = read_json(folder / "config.json")["vocab_size"]
    torch.manual_seed(2)
    config = LlamaConfig(
        **SIZES,
        vocab_size=size,
        tie_word_embeddings=tied,
        rope_theta=50000.0,
        bos_token_id=0,  # transformers' reader of Llama's GGUF fails without one
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    for values in model.parameters():
        values.data.add_(torch.randn_like(values) * 0.02)
    (folder / "model.safetensors").unlink()
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="150KB")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Both kinds, tied and untied."""
    home = tmp_path_factory.mktemp("models")
    makers = {"qwen2": make_qwen2, "qwen3": make_qwen3, "llama": make_llama}
    return {
        (kind, tied): makers[kind](home / f"{kind}-{tied}", tied) for kind in makers for tied in (True, False)
    }


def logits(folder, **where):
    """Next-token logits of a model for a fixed row of ids, in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **where).eval()
    ids = torch.tensor([[5, 300, 17, 44, 260, 7, 99, 120, 3, 8, 61]])
    with torch.no_grad():
        return model(ids).logits[0].numpy()


# q8_0 keeps 8 bits of each block of 32 weights: errors of 1/254 of the block's largest, about 0.4 %.
@pytest.mark.parametrize(("kind", "tolerance"), [("f16", 2e-3), ("q8_0", 0.03), ("q4_0", 0.4)])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_logits_survive(models, tmp_path, family, tied, kind, tolerance):
    folder, out = models[family, tied], tmp_path / "model.gguf"
    call("export", folder, "--to", "gguf", "--type", kind, "--out", out)
    wanted, found = logits(folder), logits(tmp_path, gguf_file=out.name)
    assert wanted.shape == found.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()
    assert names(tmp_path) == ["model.gguf"]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_token_ids_and_template_survive(models, tmp_path, family):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder, out = models[family, True], tmp_path / "model.gguf"
    call("export", folder, "--to", "gguf", "--out", out)
    wanted = PreTrainedTokenizerFast.from_pretrained(folder)
    found = AutoTokenizer.from_pretrained(tmp_path, gguf_file=out.name)
    for text in HARD:
        assert found(text, add_special_tokens=False).input_ids == wanted(text).input_ids, text
    assert found.chat_template == CHATML
    assert gguf_fields(out)["tokenizer.ggml.eos_token_id"] == wanted.eos_token_id == 2
    assert gguf_fields(out)["tokenizer.ggml.add_bos_token"] is False
    assert gguf_fields(out)["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]


def test_a_lora_beside_llama_is_the_same_change(models, tmp_path):
    """ΔW of q and k in the GGUF is the adapter's with rows reordered as those of W are."""
    from gguf import GGUFReader

    folder = models["llama", True]
    shapes = {"q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64)}
    pairs = factors(rank=4, shapes=shapes)
    adapter = make(
        tmp_path / "lora",
        pairs,
        r=4,
        use_rslora=True,
        target_modules=list(shapes),
        alpha_pattern={"v_proj": 3},
    )
    out = tmp_path / "lora.gguf"
    call("export", adapter, "--to", "gguf", "--base", folder, "--out", out)
    reader = GGUFReader(out)
    read = {tensor.name: tensor.data.astype(np.float64) for tensor in reader.tensors}
    fields = gguf_fields(out)
    alpha = fields["adapter.lora.alpha"]
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    with raises(RequestError, "adapter fuse"):  # eval prove --gguf
        check_gguf(out)

    from tuneyard.adapters.model.store import open_adapter

    opened = open_adapter(adapter)
    architecture = Architecture(Path("x"), "llama", read_json(folder / "config.json"))
    for module in pairs:
        name = f"{architecture.gguf_name(module)}.weight"
        a, b = read[f"{name}.lora_a"], read[f"{name}.lora_b"]
        wanted = delta(opened, module)
        if "v_proj" not in module:
            wanted = reorder(wanted, 4 if "q_proj" in module else 2)
        np.testing.assert_allclose(alpha / a.shape[0] * (b @ a), wanted, rtol=1e-5, atol=1e-5)
