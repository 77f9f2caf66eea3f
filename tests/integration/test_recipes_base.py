"""The embedded model: its tokenizer, and that LLaMA-Factory trains on the tokens of its chat template."""

import json

import pytest

from tests.json_files import read_json, write_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def test_the_folder_is_complete(smollm):
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                 "chat_template.jinja", "model.safetensors", "README.md", "origin.json"):  # fmt: skip
        assert (smollm / name).stat().st_mode & 0o044 == 0o044, name
    card = (smollm / "README.md").read_text()
    assert "Apache-2.0" in card and "HuggingFaceTB" in card
    settings = read_json(smollm / "tokenizer_config.json")
    assert not [key for key in settings if key.endswith("_id") or key.startswith("is_local")]


def test_tokenizer_facts(smollm):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.tokenize("a 3.14 2025") == ["a", "Ġ", "3", ".", "1", "4", "Ġ", "2", "0", "2", "5"]
    for text in ("don 't  stop , now .", "▁x\n\n y", "不确定 é 🙂", " leading"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    asked = [{"role": "user", "content": "Hi"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    turns = ["system\n" + SYSTEM, "user\nHi"]
    assert prompt == "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns) + "<|im_start|>assistant\n"


def test_weights_are_finite_and_answer(smollm):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(smollm), AutoTokenizer.from_pretrained(smollm)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert model.generation_config.eos_token_id == 2
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**ids, max_new_tokens=16, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)


def test_training_sees_the_tokens_of_the_chat_template(smollm, tmp_path, forks):
    rows = [
        {"instruction": 'Does "Två män  går." imply "No."? Answer 3.14.', "input": "", "output": "yes"}
    ] * 3
    write_json(tmp_path / "a.json", rows)
    write_json(tmp_path / "dataset_info.json", {"a": {"file_name": "a.json"}})
    changes = [
        f"model_name_or_path={smollm}",
        f"dataset_dir={tmp_path}",
        "dataset=a",
        f"output_dir={tmp_path / 'o'}",
    ]
    done = forks.run("recipes", "check", "--json", "recipes/demo-rte.yaml", *changes)
    facts = json.loads(done.stdout)["facts"]
    assert (facts["template"], facts["template_error"]) == ([], "")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm)
    talk = [{"role": "user", "content": rows[0]["instruction"]}, {"role": "assistant", "content": "yes"}]
    assert facts["data"]["a"]["tokens"]["longest"] == len(
        tokenizer.apply_chat_template(talk, return_dict=False)
    )
