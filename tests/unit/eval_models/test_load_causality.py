"""A model that reads ahead is refused when it is loaded: Doge, whose sdpa attention has no causal mask."""

from pathlib import Path

import pytest

from testing.tiny import SIZES
from tests.cli.scoring import call, even_rows
from tests.json_files import write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.eval.models.load import check_causal, load_model
from tuneyard.eval.nli import cli

ROWS = even_rows(4)


@pytest.fixture(scope="module")
def doge(tiny_model: Path, tmp_path_factory) -> Path:
    """A random Doge with the tiny tokenizer."""
    import torch
    from transformers import AutoTokenizer, DogeConfig, DogeForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    config = DogeConfig(
        **SIZES, vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id
    )
    folder = tmp_path_factory.mktemp("doge") / "model"
    DogeForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_model_that_reads_ahead_is_refused(doge, dtype) -> None:
    with raises(ContentError, "doge", "not causal"):
        load_model(doge, dtype)


def test_it_is_refused_before_anything_is_written(doge, tmp_path) -> None:
    write_json(tmp_path / "rows.json", ROWS)
    given = ["--model", doge, "--data", tmp_path / "rows.json", "--out", tmp_path / "out"]
    with raises(ContentError, "doge", "not causal"):
        call(cli, *given)
    assert not (tmp_path / "out").exists()


def assert_refused_once_it_reads_ahead(net, folder: Path) -> None:
    """The same model with the logits of a text's last token added to those of all its tokens."""
    forward = net.forward

    def reads_ahead(**inputs):
        output = forward(**inputs)
        output.logits = output.logits + output.logits[:, -1:]
        return output

    net.forward = reads_ahead
    for exact in (True, False):
        with raises(ContentError, str(folder), "not causal"):
            check_causal(net, folder, exact=exact)


def test_the_same_weights_under_causal_attention_are_not_refused(doge) -> None:
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(doge, attn_implementation="eager").eval()
    check_causal(net, doge, exact=True)
    assert_refused_once_it_reads_ahead(net, doge)


EXPERTS = {"num_experts": 4, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64}
KINDS = {
    "qwen2_moe": EXPERTS,
    "gpt2": {"n_head": 4},
    "gemma3_text": {"head_dim": 16, "sliding_window": 4},
    "mamba": {},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_causal_architectures_pass(kind, dtype) -> None:
    """Experts, positions that are learned, windows and recurrent states among them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES, **KINDS[kind], vocab_size=300)
    net = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()
    check_causal(net, Path(kind), exact=dtype == "float32")
    assert_refused_once_it_reads_ahead(net, Path(kind))
