"""What we ask of vLLM: a stand-in of its offline interface that takes what vLLM takes, and nothing else.

Where vLLM is installed the stand-in is held against it. How well vLLM answers is not shown here.
"""

import inspect
import json
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT
from tests.messages import raises
from tests.unit.eval_backends.test_apply import write as write_adapter
from tuneyard.core.errors import RequestError
from tuneyard.eval.backends.engine import RANKS
from tuneyard.eval.nli import cli

ROWS = [{"instruction": f"Is {n} even?", "output": "no" if n % 2 else "yes"} for n in range(5)]


# Of vllm/engine/arg_utils.py, vllm/config/lora.py and vllm/config/model.py (github.com/vllm-project/vllm).
OPTIONS = {"dtype", "seed", "generation_config", "enable_lora", "max_loras", "max_lora_rank"}
LORA_RANKS = {1, 8, 16, 32, 64, 128, 256, 320, 512}
DTYPES = {"auto", "half", "float16", "bfloat16", "float", "float32"}


@dataclass
class SamplingParams:
    """The settings that we give, with vLLM's defaults: it samples unless it is told not to."""

    temperature: float = 1.0
    max_tokens: int | None = 16


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str

    def __post_init__(self):
        if self.lora_int_id < 1:
            raise ValueError(f"id must be > 0, got {self.lora_int_id}")


class LLM:
    """The options and the calls of vllm.LLM that we use; says `No.` with an adapter, `Yes.` without."""

    made: list["LLM"] = []  # noqa: RUF012

    def __init__(self, model: str, **options: object) -> None:
        assert set(options) <= OPTIONS and options["dtype"] in DTYPES
        assert options.get("max_lora_rank", 16) in LORA_RANKS
        self.model, self.options, self.calls = model, options, []
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=100))
        self.made.append(self)

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None):  # noqa: ARG002
        assert lora_request is None or self.options.get("enable_lora")
        self.calls.append((prompts, sampling_params, lora_request))
        answer = "No." if lora_request else "Yes."
        return [SimpleNamespace(outputs=[SimpleNamespace(text=answer)]) for _ in prompts]


@pytest.fixture
def asked(monkeypatch):
    """Put the stand-in in vLLM's place and return the models that are made."""
    package, request = ModuleType("vllm"), ModuleType("vllm.lora.request")
    package.LLM, package.SamplingParams, request.LoRARequest = LLM, SamplingParams, LoRARequest
    modules = {"vllm": package, "vllm.lora": ModuleType("vllm.lora"), "vllm.lora.request": request}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(LLM, "made", [])
    return LLM.made


def test_the_stand_in_is_vllm():
    vllm = pytest.importorskip("vllm")
    from vllm.engine.arg_utils import EngineArgs
    from vllm.lora.request import LoRARequest as TheirRequest

    assert set(inspect.signature(EngineArgs).parameters) >= OPTIONS
    assert (
        list(inspect.signature(LoRARequest).parameters)
        == list(inspect.signature(TheirRequest).parameters)[:3]
    )
    theirs = vllm.SamplingParams()
    assert (theirs.temperature, theirs.max_tokens) == (
        SamplingParams().temperature,
        SamplingParams().max_tokens,
    )
    assert set(inspect.signature(vllm.LLM.generate).parameters) >= {"lora_request", "use_tqdm"}


def test_every_rank_that_we_ask_for_is_one_of_theirs():
    assert set(RANKS) <= LORA_RANKS


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
    (made,) = asked
    assert made.options == {
        "dtype": "bfloat16", "seed": 0, "generation_config": "vllm",
        "enable_lora": True, "max_loras": 1, "max_lora_rank": 16,
    }  # fmt: skip
    base, first, second = made.calls
    assert [call[2] and (call[2].lora_int_id, call[2].lora_path) for call in made.calls] == [
        None, (1, str(one)), (2, str(two))
    ]  # fmt: skip
    texts = [row["instruction"] for row in ROWS]
    assert [model.tokenizer.decode(p["prompt_token_ids"]) for p in first[0]] == texts
    assert vars(second[1]) == {"temperature": 0.0, "max_tokens": 7}
    assert all("<|im_start|>user" in model.tokenizer.decode(p["prompt_token_ids"]) for p in base[0])
    results = json.loads((out / "two" / "even" / "results.json").read_text())
    assert (results["accuracy"], results["too_long"], results["device"]) == (2 / 6, 1, "vllm")


@pytest.mark.parametrize(
    ("more", "facts"),
    [
        (["--mode", "choice"], "--backend"),
        (["--mode", "generate", "--quantize", "4"], "--backend; --quantize"),
        (["--mode", "generate", "--adapter", "half=ADAPTER:0.5"], "vLLM"),
    ],
)
def test_what_vllm_cannot_do_is_refused(asked, nli, tmp_path, more, facts) -> None:
    adapter = str(write_adapter(tmp_path / "one"))
    with raises(RequestError, *facts.split("; ")):
        nli(*[text.replace("ADAPTER", adapter) for text in more])
    assert not (tmp_path / "out").exists()


def test_without_vllm_the_way_out_is_named(nli, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with raises(RequestError, "GPU", ".[vllm]", "/pip"):
        nli("--mode", "generate")
    assert not (tmp_path / "out").exists()


def test_the_extra_takes_no_vllm_of_2023() -> None:
    """Without a bound pip took 0.1.2 beside LLaMA-Factory 0.9.5, the only one that wants no newer torch."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = map(Requirement, extras["vllm"])
    tried = {
        version: version in wanted.specifier for version in ("0.1.2", "0.19.1", "0.20.0", "0.24.0", "0.33.0")
    }
    assert list(tried.values()) == [False, False, True, True, True]
