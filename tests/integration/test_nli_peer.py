"""Choice mode beside lm-evaluation-harness: the same log-probabilities and the same answers in fp32."""

from pathlib import Path

import pytest

from testing.peer_lm_eval import lm_eval
from tests.json_files import read_lines, write_json

pytestmark = [pytest.mark.peer, pytest.mark.slow]
CUES = {"dog": "A", "outside": "B", "不确定": "C"}  # each one token of the tiny model
WORDS = ["man", "sings", "bread", "kitchen", "house", "cat", "person", "walking", "她", "loud", "and", "a"]
ROWS = [
    {"instruction": f"Does {first} imply {'a ' * n}{first} {cue}?", "output": answer}
    for n, first in enumerate(WORDS)
    for cue, answer in CUES.items()
]


def tune(model_folder: Path, folder: Path) -> Path:
    """Train a LoRA on some of the rows, until its answers differ from row to row."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    net = AutoModelForCausalLM.from_pretrained(model_folder)
    config = LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    net = get_peft_model(net, config)
    optimizer = torch.optim.Adam((p for p in net.parameters() if p.requires_grad), lr=5e-3)
    asked = _asked(model_folder)[:12]
    for _ in range(60):
        for ids, answer in asked:
            logits = net(torch.tensor([ids])).logits[0, -1]
            torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).backward()
        optimizer.step()
        optimizer.zero_grad()
    net.save_pretrained(folder)
    return folder


def test_log_probabilities_and_answers_are_those_of_the_harness(forks, tiny_model, tmp_path) -> None:
    data, out = tmp_path / "rows.json", tmp_path / "out"
    write_json(data, ROWS)
    adapter = tune(tiny_model, tmp_path / "mine")
    words = ["--model", tiny_model, "--adapter", f"mine={adapter}", "--data", data, "--variants", "none"]
    forks.run("eval.nli", *words, "--out", out)
    of_both = iter(lm_eval(tiny_model, f"-,{adapter}", data, tmp_path / "theirs.json")["rows"])
    for name, path in (("base", None), ("mine", adapter)):
        ours = read_lines(out / name / "rows" / "predictions.jsonl")
        for row, their, newline in zip(ours, of_both, _newlines(tiny_model, path), strict=False):
            for label, log in their.items():
                # It counts the newline that ends the prompt as a part of the choice.
                assert row["choices"][label] + newline == pytest.approx(log, abs=1e-4)
            assert row["predicted_output"] == max(their, key=their.get)
    assert list(of_both) == []
    assert len({row["predicted_output"] for row in ours}) > 1  # a model that always says no proves little


def _newlines(model_folder: Path, adapter: Path | None) -> list[float]:
    """The log-probability of each prompt's last token, by a plain forward pass of PEFT's model."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    net = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    net = PeftModel.from_pretrained(net, str(adapter)) if adapter else net
    found = []
    for ids, _ in _asked(model_folder):
        assert tokenizer.decode(ids[-1:]) == "\n"
        with torch.inference_mode():
            logs = net(torch.tensor([ids])).logits[0].log_softmax(-1)
        found.append(logs[-2, ids[-1]].item())
    return found


def _asked(model_folder: Path) -> list[tuple[list[int], int]]:
    """Each row's prompt as ids, and the first id of its answer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    pairs = []
    for row in ROWS:
        talk = [{"role": "user", "content": row["instruction"]}]
        ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
        pairs.append((ids, tokenizer(row["output"])["input_ids"][0]))
    return pairs
