"""Models whose answer would depend on its batch: recurrent ones, and weights in 8 bits. One row at a time."""

from pathlib import Path

import pytest

from tests.cli import scoring
from tests.json_files import read_lines, write_json
from tests.unit.eval_models.test_batches_choice import one_by_one
from tuneyard.eval.models.load import load_model
from tuneyard.eval.nli import cli

ROWS = [
    {"instruction": f'Does "{text}" imply that "A person is outside."?', "output": output}
    for text, output in (("A man is walking a dog.", "yes"), ("A man sleeps.", "no"), ("dog " * 9, "maybe"))
]
SMALL = {"hidden_size": 32, "num_hidden_layers": 3}


@pytest.fixture(scope="module", params=["mamba", "recurrent_gemma"])
def recurrent(request, tiny_model: Path, tmp_path_factory) -> Path:
    """A random recurrent model with the tiny tokenizer."""
    import torch
    from transformers import AutoTokenizer, MambaConfig, MambaForCausalLM
    from transformers import RecurrentGemmaConfig as GemmaConfig
    from transformers import RecurrentGemmaForCausalLM as GemmaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    if request.param == "mamba":
        net = MambaForCausalLM(MambaConfig(**SMALL, **ids, state_size=8))
    else:
        heads = {"num_attention_heads": 4, "intermediate_size": 64, "lru_width": 32}
        net = GemmaForCausalLM(GemmaConfig(**SMALL, **ids, **heads, attention_window_size=16))
    folder = tmp_path_factory.mktemp("recurrent") / request.param
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def score_rows(tmp_path: Path):
    """`score(model, "--mode", "generate")` scores the rows and returns the predictions."""
    write_json(tmp_path / "rows.json", ROWS)

    def call(model: Path, *more: object) -> list[dict]:
        out = tmp_path / "-".join(map(str, ("out", *more)))
        scoring.call(cli, "--model", model, "--data", tmp_path / "rows.json", "--out", out, *more)
        return read_lines(out / "base/rows/predictions.jsonl")

    return call


def prompt(model, row: int) -> list[int]:
    talk = [{"role": "user", "content": ROWS[row]["instruction"]}]
    return model.tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)


def test_recurrent_models_choose_as_one_prompt_at_a_time(recurrent, score_rows) -> None:
    model = load_model(recurrent, "fp32")
    for row, found in enumerate(score_rows(recurrent, "--variants", "none")):
        for label, log in found["choices"].items():
            ids = model.tokenizer(label)["input_ids"]
            assert log == pytest.approx(one_by_one(model, prompt(model, row), ids), abs=2e-5)


def test_recurrent_models_generate_as_one_prompt_at_a_time(recurrent, score_rows) -> None:
    import torch

    model = load_model(recurrent, "fp32")
    for row, found in enumerate(score_rows(recurrent, "--mode", "generate", "--max-new-tokens", 5)):
        ids = prompt(model, row)
        begin = len(ids)
        while len(ids) < begin + 5 and ids[-1] != model.tokenizer.eos_token_id:
            ids.append(model.net(torch.tensor([ids])).logits[0, -1].argmax().item())
        assert found["model_output"] == model.tokenizer.decode(ids[begin:], skip_special_tokens=True)


def test_models_that_attend_are_scored_in_batches(model) -> None:
    assert not model.alone


def test_scores_in_8_bits_do_not_depend_on_the_other_rows(score_rows, tiny_model, tmp_path) -> None:
    """LLM.int8() multiplies whole columns apart when any row of the batch has an outlier in them."""
    pytest.importorskip("bitsandbytes")
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    folder = tmp_path / "outliers"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    dog = AutoTokenizer.from_pretrained(folder)(" dog")["input_ids"]
    tensors["model.embed_tokens.weight"][dog, 5] = 30.0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    every = score_rows(folder, "--quantize", 8)
    assert score_rows(folder, "--quantize", 8, "--limit", 2) == every[:2]
    assert load_model(folder, None, 8).alone
