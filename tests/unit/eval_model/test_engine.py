"""Our side of vLLM: what we ask of it. A stand-in of its offline API takes its place, since it needs a GPU;
that vLLM itself answers so is not shown here."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from core.errors import RequestError
from eval.nli import cli
from tests.unit.eval_model.test_live import write as write_adapter

ROWS = [{"instruction": f"Is {n} even?", "output": "no" if n % 2 else "yes"} for n in range(5)]


@pytest.fixture
def asked(monkeypatch):
    """vllm with LLM, SamplingParams and LoRARequest as its documentation has them; returns what it heard."""
    heard = SimpleNamespace(models=[], calls=[])

    class LLM:
        def __init__(self, model: str, **options: object) -> None:
            heard.models.append((model, options))
            self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=100))

        def generate(self, prompts, sampling_params, *, lora_request=None, use_tqdm=True):  # noqa: ARG002
            heard.calls.append((prompts, sampling_params, lora_request))
            answer = "No." if lora_request else "Yes."
            return [SimpleNamespace(outputs=[SimpleNamespace(text=answer)]) for _ in prompts]

    def lora(lora_name: str, lora_int_id: int, lora_path: str):
        return SimpleNamespace(name=lora_name, number=lora_int_id, path=lora_path)

    package, request = ModuleType("vllm"), ModuleType("vllm.lora.request")
    package.LLM, package.SamplingParams, request.LoRARequest = LLM, SimpleNamespace, lora
    for name, module in (
        ("vllm", package),
        ("vllm.lora", ModuleType("vllm.lora")),
        ("vllm.lora.request", request),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    return heard


@pytest.fixture
def nli(tmp_path: Path, tiny_model: Path):
    (tmp_path / "even.json").write_text(json.dumps([*ROWS, {"instruction": "dog " * 200, "output": "no"}]))

    def call(*more: object) -> Path:
        given = ["--model", tiny_model, "--data", tmp_path / "even.json", "--out", tmp_path / "out"]
        given += ["--backend", "vllm", "--max-new-tokens", 7, *more]
        cli.main(list(map(str, given)), standalone_mode=False)
        return tmp_path / "out"

    return call


def test_the_same_ids_are_asked_greedily_of_the_base_and_each_adapter(asked, nli, tmp_path, model) -> None:
    two, one = write_adapter(tmp_path / "two", rank=12, alpha=3), write_adapter(tmp_path / "one")
    for folder in (one, two):
        (folder / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    out = nli("--mode", "generate", "--adapter", f"one={one}", "--adapter", f"two={two}")
    ((_, options),) = asked.models
    assert options == {
        "dtype": "bfloat16", "seed": 0, "generation_config": "vllm",
        "enable_lora": True, "max_loras": 1, "max_lora_rank": 16,
    }  # fmt: skip
    base, first, second = asked.calls
    assert [call[2] and (call[2].number, call[2].path) for call in asked.calls] == [
        None, (1, str(one)), (2, str(two))
    ]  # fmt: skip
    texts = [row["instruction"] for row in ROWS]
    assert [model.tokenizer.decode(p["prompt_token_ids"]) for p in first[0]] == texts
    assert vars(second[1]) == {"temperature": 0.0, "max_tokens": 7}
    assert all("<|im_start|>user" in model.tokenizer.decode(p["prompt_token_ids"]) for p in base[0])
    results = json.loads((out / "two" / "even" / "results.json").read_text())
    assert (results["accuracy"], results["refused"], results["device"]) == (2 / 6, 1, "vllm")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--mode", "choice"], "--backend vllm only generates"),
        (["--mode", "generate", "--quantize", "4"], "--backend vllm takes no --quantize"),
        (["--mode", "generate", "--adapter", "half=ADAPTER:0.5"], "vLLM takes no weights"),
    ],
)
def test_what_vllm_cannot_do_is_refused(asked, nli, tmp_path, more, said) -> None:
    adapter = str(write_adapter(tmp_path / "one"))
    with pytest.raises(RequestError, match=said):
        nli(*[text.replace("ADAPTER", adapter) for text in more])
    assert not (tmp_path / "out").exists()


def test_without_vllm_the_way_out_is_named(nli, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(RequestError, match="pip install vllm where a GPU is, or leave --backend out"):
        nli("--mode", "generate")
    assert not (tmp_path / "out").exists()
