"""eval prove --url with real llama.cpp servers: equal ones are proved, with figures worked out anew."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.llama_server import llama_server
from tests.messages import raises
from tests.tiny import make_tiny
from tests.unit.adapters.make import make
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.core.errors import ContentError
from tuneyard.eval.metrics.labels import spellings
from tuneyard.eval.prove.command import cli

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow
LABELS = ("no", "yes")
ROWS = [
    {"instruction": f'Does "{number} men walk" imply "it is so"?', "output": LABELS[number % 2]}
    for number in range(6)
]
GREEDY = {"sampling.temp": 0.0}


@dataclass(frozen=True)
class Home:
    """A base, two adapters of it, the first one fused, and all of them as GGUF files."""

    folder: Path

    def prove(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run the command; prove.json."""
        out = self.folder / "proof"
        command = ["--model", str(self.folder / "base"), "--data", str(self.folder / "rows.json")]
        command += ["--max-new-tokens", "4", "--timeout", "60", "--out", str(out), *words]
        if code:
            with raises(ContentError, "prove.md"):
                cli.main(command, standalone_mode=False)
        else:
            cli.main(command, standalone_mode=False)
        proof: dict[str, Any] = json.loads((out / "prove.json").read_text())
        assert proof["proved"] == (code == 0)
        return proof


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("prove_url")
    base = make_tiny(folder / "base")
    (folder / "rows.json").write_text(json.dumps(ROWS))
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        pairs = {}
        for module, outputs in (("q_proj", 64), ("v_proj", 32)):
            for layer in range(2):
                a, b = random.standard_normal((4, 64)), random.standard_normal((outputs, 4))
                pairs[f"model.layers.{layer}.self_attn.{module}"] = (
                    (a / 3).astype(np.float32),
                    (b / 3).astype(np.float32),
                )
        make(folder / name, pairs, r=4, base_model_name_or_path=str(base))
        run_adapters(
            "export", folder / name, "--base", base, "--to", "gguf", "--out", folder / f"{name}.gguf"
        )
    run_adapters("fuse", folder / "one", "--base", base, "--out", folder / "fused")
    for name in ("base", "fused"):
        run_adapters("export", folder / name, "--to", "gguf", "--out", folder / f"{name}.gguf")
    yield Home(folder)


def run_adapters(*words: object) -> None:
    adapters.main([*map(str, words)], standalone_mode=False)


def label_logs(distribution: Any, tokenizer: Any) -> dict[str, float]:
    """Log-probabilities of the labels by `distribution(ids after the prompt)`, token by token."""
    logs = {}
    for label in LABELS:
        total = 0.0
        for text in spellings(label):
            ids, log = [], 0.0
            for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
                log += distribution(ids)[token]
                ids.append(token)
            total += math.exp(log)
        logs[label] = math.log(total)
    return logs


def test_an_equal_server_is_proved_and_the_figures_are_right(home: Home) -> None:
    import httpx
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(home.folder / "fused")
    net = AutoModelForCausalLM.from_pretrained(home.folder / "fused", dtype=torch.float32)
    with llama_server(home.folder / "fused.gguf", settings=GREEDY) as url, httpx.Client(timeout=60) as client:
        proof = home.prove("--adapter", f"one={home.folder / 'one'}", "--url", url)
        differences = []
        for row in ROWS:
            talk = [{"role": "user", "content": row["instruction"]}]
            text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
            prompt = tokenizer(text, add_special_tokens=False)["input_ids"]

            def here(ids: list[int], prompt: list[int] = prompt) -> list[float]:
                with torch.inference_mode():
                    logits = net(torch.tensor([[*prompt, *ids]])).logits[0, -1]
                return logits.double().log_softmax(-1).tolist()

            def there(ids: list[int], prompt: list[int] = prompt) -> dict[int, float]:
                body = {"prompt": [*prompt, *ids], "n_predict": 1, "n_probs": len(tokenizer)}
                body["logit_bias"] = [[tokenizer("a")["input_ids"][0], 1e6]]
                answer = client.post(f"{url.removesuffix('/v1')}/completion", json=body).json()
                (step,) = answer["completion_probabilities"]
                return {top["id"]: top["logprob"] for top in step["top_logprobs"]}

            expected, served = label_logs(here, tokenizer), label_logs(there, tokenizer)
            differences += [abs(expected[label] - served[label]) for label in LABELS]
    (server,), (prompts,), (answers,), (chat,) = (
        proof[part] for part in ("servers", "prompts", "answers", "chats")
    )
    assert (server["engine"], server["file_type"], server["context"]) == ("llama.cpp", "F16", 1024)
    assert prompts["equal"] and (prompts["n"], prompts["differing"]) == (6, 0)
    assert answers["flips"] == [] and answers["differing"] == 0
    assert answers["largest"] == pytest.approx(max(differences), abs=5e-5) and answers["largest"] > 1e-6
    assert chat["differing"] == 0 and chat["finishes"] == {"length": 6}
    assert proof["causes"] == []
