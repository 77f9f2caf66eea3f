"""What we ask of vLLM: a stand-in of its offline interface that takes what vLLM takes, and nothing else.

The stand-in computes the tiny model's own log-probabilities, so that labels score as with `--backend hf`. The
real vLLM is held against it where it is installed, and scores in tests/integration/test_vllm.py.
"""

import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from packaging.requirements import Requirement

from testing.tiny import write_adapter
from tests.cli.scoring import call, even_rows
from tests.conftest import PROJECT
from tests.exams import HEAD, ROW, write_exam
from tests.json_files import read_json, read_lines, write_json
from tests.messages import raises
from tuneyard.adapters.model.lora import VLLM_RANKS
from tuneyard.core.errors import ContentError, RequestError, ResumableError
from tuneyard.eval.cmmlu import __main__ as cmmlu
from tuneyard.eval.models import engine
from tuneyard.eval.models.engine import steps_of
from tuneyard.eval.models.load import load_model
from tuneyard.eval.nli import cli
from tuneyard.eval.qa.__main__ import cli as qa

ROWS = even_rows(5)
TOO_LONG = {"instruction": "dog " * 200, "output": "no"}


# Of vllm/engine/arg_utils.py, vllm/config/lora.py and vllm/config/model.py (github.com/vllm-project/vllm).
OPTIONS = {
    "dtype", "seed", "generation_config", "enable_lora", "max_loras", "max_lora_rank", "enforce_eager",
    "enable_prefix_caching", "tensor_parallel_size", "pipeline_parallel_size",
}  # fmt: skip
LORA_RANKS = {1, 8, 16, 32, 64, 128, 256, 320, 512}
DTYPES = {"auto", "half", "float16", "bfloat16", "float", "float32"}
FEWEST = {  # without adapters
    "dtype": "float32", "seed": 0, "generation_config": "vllm", "enforce_eager": True,
    "enable_prefix_caching": True, "tensor_parallel_size": 1, "pipeline_parallel_size": 1,
}  # fmt: skip


@dataclass
class SamplingParams:
    """The settings that we give, with vLLM's defaults: it samples unless it is told not to."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int | None = 16
    stop_token_ids: list[int] = field(default_factory=list)
    logprob_token_ids: list[int] | None = None
    detokenize: bool = True


@dataclass(frozen=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str

    def __post_init__(self):
        if self.lora_int_id < 1:
            raise ValueError(f"id must be > 0, got {self.lora_int_id}")


@dataclass
class PEFTHelper:
    """As in 0.26: it knows no patterns."""

    r: int
    lora_alpha: int


class LLM:
    """The options and the calls of vllm.LLM that we use; says `No.` with an adapter, `Yes.` without."""

    made: list["LLM"] = []  # noqa: RUF012
    scale = 1.0
    context = 100

    def __init__(self, model: str, **options: object) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        assert set(options) <= OPTIONS and options["dtype"] in DTYPES
        assert options.get("max_lora_rank", 16) in LORA_RANKS
        self.model, self.options, self.calls = model, options, []
        self.net = AutoModelForCausalLM.from_pretrained(model).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=self.context))
        self.cached = False
        self.made.append(self)

    def reset_prefix_cache(self) -> bool:
        self.cached = False
        return True

    def generate(self, prompts, sampling_params, *, use_tqdm=True, lora_request=None):  # noqa: ARG002
        assert lora_request is None or self.options.get("enable_lora")
        assert not self.cached, "what a call leaves in the cache would change the next one's last digits"
        self.cached = True
        self.calls.append((prompts, sampling_params, lora_request))
        loras = lora_request or [None] * len(prompts)
        assert len({lora is None for lora in loras}) == 1, "rows of the base go wrong beside an adapter's"
        return [self.answer(*asked) for asked in zip(prompts, sampling_params, loras, strict=True)]

    def answer(self, prompt, sampling, lora):
        import torch

        logprobs = None
        if sampling.logprob_token_ids:
            ids = torch.tensor([prompt["prompt_token_ids"]])
            with torch.inference_mode():
                logits = self.net(ids).logits[0, -1] * self.scale
            logs = (logits * (1 + (lora.lora_int_id if lora else 0))).log_softmax(-1)
            listed = [*sampling.logprob_token_ids, int(logs.argmax())]  # the sampled token, too
            logprobs = [{token: SimpleNamespace(logprob=float(logs[token])) for token in listed}]
        ids = self.tokenizer("No." if lora else "Yes.")["input_ids"]
        output = SimpleNamespace(token_ids=[*ids, *sampling.stop_token_ids[:1]], logprobs=logprobs)
        return SimpleNamespace(outputs=[output])


@pytest.fixture
def asked(monkeypatch):
    """Put the stand-in in vLLM's place and return the models that are made."""
    package, request = ModuleType("vllm"), ModuleType("vllm.lora.request")
    helper = ModuleType("vllm.lora.peft_helper")
    package.LLM, package.SamplingParams, package.__version__ = LLM, SamplingParams, "0.26.0"
    request.LoRARequest, helper.PEFTHelper = LoRARequest, PEFTHelper
    modules = {
        "vllm": package,
        "vllm.lora": ModuleType("vllm.lora"),
        "vllm.lora.request": request,
        "vllm.lora.peft_helper": helper,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(LLM, "made", [])
    monkeypatch.setattr(LLM, "scale", 1.0)
    for name in engine.VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
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
    assert all(getattr(theirs, name) == value for name, value in vars(SamplingParams()).items())
    assert set(inspect.signature(vllm.LLM.generate).parameters) >= {"lora_request", "use_tqdm"}


def test_every_rank_that_we_ask_for_is_one_of_theirs():
    assert set(VLLM_RANKS) <= LORA_RANKS


def nli_call(folder: Path, model: Path, *more: object, out: str = "out") -> Path:
    call(cli, "--model", model, "--data", folder / "even.json", "--out", folder / out, *more)
    return folder / out


@pytest.fixture
def nli(tmp_path: Path, tiny_model: Path):
    write_json(tmp_path / "even.json", [*ROWS, TOO_LONG])
    return lambda *more, out="out": nli_call(tmp_path, tiny_model, "--backend", "vllm", *more, out=out)


def adapters_of(folder: Path) -> list[str]:
    """Options for two adapters that are prompted with the question alone."""
    options = []
    for name, rank in (("one", 4), ("two", 12)):
        write_adapter(folder / name, rank=rank, alpha=3)
        (folder / name / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
        options += ["--adapter", f"{name}={folder / name}"]
    return options


def lines_of(out: Path, candidate: str) -> list[dict]:
    return read_lines(out / candidate / "even/predictions.jsonl")


@pytest.mark.parametrize("end", ["<|endoftext|>", "a", "<|beyond|>"])
def test_an_adapter_gets_the_tokens_and_the_ends_of_its_training(asked, nli, tiny_model, tmp_path, end):
    from transformers import AutoTokenizer

    adapter = write_adapter(tmp_path / "one")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    base_end = tokenizer.eos_token_id
    tokenizer.add_special_tokens({"eos_token": end})
    tokenizer.save_pretrained(adapter)
    (adapter / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    rows = read_json(tiny_model / "config.json")["vocab_size"]
    expected = sorted({base_end, *(number for number in [tokenizer.eos_token_id] if number < rows)})
    assert (len(expected) == 1) == (end == "<|beyond|>")
    nli("--mode", "generate", "--check-generate", 5, "--adapter", f"one={adapter}")
    (made,) = asked
    base, one = (sampling[0] for _, sampling, _ in (made.calls[1], made.calls[3]))
    assert (base.stop_token_ids, one.stop_token_ids) == ([base_end], expected)
    for _, sampling, _ in made.calls:
        for settings in sampling:
            assert all(token < rows for token in settings.logprob_token_ids or ())


def test_the_same_ids_are_asked_greedily_of_the_base_and_of_both_adapters(
    asked, nli, tmp_path, model
) -> None:
    out = nli("--mode", "generate", "--check-generate", 5, "--max-new-tokens", 7, *adapters_of(tmp_path))
    (made,) = asked
    assert made.options == {**FEWEST, "enable_lora": True, "max_loras": 2, "max_lora_rank": 16}
    by_choice, base, _, one, _, two = made.calls  # each model's answers are checked by choice first
    assert by_choice[1][0].logprob_token_ids
    assert base[2] == [None] * 5
    for number, (name, (_, _, loras)) in enumerate((("one", one), ("two", two)), 1):
        assert [(lora.lora_int_id, lora.lora_path) for lora in loras] == [(number, str(tmp_path / name))] * 5
    assert one[2][0].lora_name != two[2][0].lora_name
    texts = [row["instruction"] for row in ROWS]
    for prompts, sampling, _ in (one, two):
        assert [model.tokenizer.decode(p["prompt_token_ids"]) for p in prompts] == texts
        assert vars(sampling[0]) == vars(
            SamplingParams(
                temperature=0.0, max_tokens=7, stop_token_ids=[model.tokenizer.eos_token_id], detokenize=False
            )
        )
    assert all("<|im_start|>user" in model.tokenizer.decode(p["prompt_token_ids"]) for p in base[0])
    results = read_json(out / "two/even/results.json")
    assert (results["accuracy"], results["too_long"], results["device"]) == (2 / 6, 1, "vllm")
    assert results["versions"]["vllm"] == "0.26.0"


def test_labels_of_one_and_more_tokens_score_as_with_transformers(asked, nli, tmp_path, tiny_model) -> None:
    words = ("--choices", "yes,no,yes of course", "--variants", "none", "--dtype", "fp32")
    there = nli(*words, *adapters_of(tmp_path), "--check-generate", 2)
    here = nli_call(tmp_path, tiny_model, *words, out="here")
    for line, expected in zip(lines_of(there, "base")[:5], lines_of(here, "base")[:5], strict=True):
        assert line["choices"] == pytest.approx(expected["choices"], abs=1e-5)
        assert line["predicted_output"] == expected["predicted_output"]
    assert "too_long" in lines_of(there, "base")[5]
    scores = [[line.get("choices") for line in lines_of(there, name)] for name in ("base", "one", "two")]
    assert scores[0] != scores[1] != scores[2]
    results = read_json(there / "one/even/results.json")
    assert results["check_generate"]["n"] == 2


def test_of_many_adapters_eight_are_in_memory_at_a_time(asked, nli, tmp_path) -> None:
    options = []
    for number in range(9):
        folder = write_adapter(tmp_path / str(number) / "last")  # all have the same name
        options += ["--adapter", f"a{number}={folder}"]
    nli("--limit", 1, *options)
    assert asked[0].options["max_loras"] == 8
    assert len({lora.lora_name for _, _, loras in asked[0].calls[1:] for lora in loras}) == 9


def test_many_tokens_after_one_beginning_are_asked_in_parts(monkeypatch) -> None:
    monkeypatch.setattr(engine, "TOKENS_AT_ONCE", 2)
    assert steps_of([[1], [2], [3, 4], [3, 5], [3]]) == [((), (1, 2)), ((), (3,)), ((3,), (4, 5))]


def test_cmmlu_is_scored(asked, tiny_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(LLM, "context", 2000)
    data = write_exam(tmp_path / "exams", "anatomy", test=HEAD + ROW * 6)
    words = ["--model", tiny_model, "--data", data, "--subjects", "anatomy", "--backend", "vllm"]
    call(cmmlu.cli, *words, "--out", tmp_path / "out")
    results = read_json(tmp_path / "out/base/anatomy/results.json")
    assert (results["n"], results["too_long"]) == (6, 0)


def test_a_resumed_run_makes_the_same_calls_to_the_same_bytes(asked, nli, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(engine, "AT_ONCE", 2)
    adapters = adapters_of(tmp_path)
    whole = nli(*adapters, out="whole")
    answers, calls = engine.Engine.answers, []

    def killed(self, prompts, sampling):
        calls.append(prompts)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return answers(self, prompts, sampling)

    monkeypatch.setattr(engine.Engine, "answers", killed)
    with pytest.raises(ResumableError):
        nli(*adapters)
    monkeypatch.setattr(engine.Engine, "answers", answers)
    one = tmp_path / "out/one/even/predictions.jsonl"
    assert len(one.read_text().splitlines()) == 2
    out = nli(*adapters, "--resume")
    for path in whole.rglob("predictions.jsonl"):
        assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes()
    first, _, resumed = asked
    assert resumed.calls == first.calls[4:]


REFUSED = [
    (["--quantize", "4"], "--backend; --quantize"),
    (["--adapter", "half=ADAPTER:0.5"], "vLLM; weights"),
    (["--adapter", "sum=ADAPTER:1+OTHER:1"], "vLLM; weights"),
    (["--adapter", "one=PATTERNS"], "vLLM; 0.26.0; alpha_pattern"),
]


@pytest.mark.parametrize("mode", ["choice", "generate"])
@pytest.mark.parametrize(("more", "facts"), REFUSED)
def test_what_vllm_cannot_do_is_refused(asked, nli, tmp_path, mode, more, facts) -> None:
    folders = {"ADAPTER": {}, "OTHER": {}, "PATTERNS": {"alpha_pattern": {"q_proj": 2}}}
    for name, config in folders.items():
        write_adapter(tmp_path / name, **config)
    texts = more
    for name in folders:
        texts = [text.replace(name, str(tmp_path / name)) for text in texts]
    with raises(RequestError, facts):
        nli("--mode", mode, *texts)
    assert not (tmp_path / "out").exists()


def test_a_newer_vllm_reads_patterns(asked, nli, tmp_path, monkeypatch) -> None:
    @dataclass
    class Newer(PEFTHelper):
        alpha_pattern: dict | None = None

    monkeypatch.setattr(sys.modules["vllm.lora.peft_helper"], "PEFTHelper", Newer)
    folder = write_adapter(tmp_path / "one", alpha_pattern={"q_proj": 2})
    assert nli("--adapter", f"one={folder}").exists()


@pytest.mark.parametrize("option", [("--workers", "2"), ("--ray", "auto")])
def test_workers_are_refused(asked, nli, option) -> None:
    with raises(RequestError, option[0], "--tensor-parallel"):
        nli(*option)
    assert nli("--workers", "1").exists()


def test_weights_that_overflow_are_named(asked, nli, monkeypatch) -> None:
    monkeypatch.setattr(LLM, "scale", float("nan"))
    with raises(ContentError, "row 0", "nan"):
        nli()


def test_the_parts_of_a_model_are_passed_on(asked, nli) -> None:
    out = nli("--tensor-parallel", 2, "--limit", 2)
    assert asked[0].options == {**FEWEST, "tensor_parallel_size": 2}
    with raises(RequestError, "tensor_parallel"):
        nli("--limit", 2, "--resume")
    assert out.exists()


def test_only_vllm_is_divided(tmp_path, tiny_model) -> None:
    write_json(tmp_path / "even.json", ROWS)
    with raises(RequestError, "--tensor-parallel", "--backend vllm"):
        nli_call(tmp_path, tiny_model, "--tensor-parallel", 2)


def test_without_vllm_the_way_out_is_named(nli, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with raises(RequestError, "make setup-vllm", ".venv-vllm"):
        nli("--mode", "generate")
    assert not (tmp_path / "out").exists()


def test_the_extra_takes_the_vllm_that_was_tested() -> None:
    """Without a bound pip took 0.1.2 beside LLaMA-Factory 0.9.5, the only one that wants no newer torch."""
    extras = PROJECT["optional-dependencies"]
    (wanted,) = map(Requirement, extras["vllm"])
    tried = {version: version in wanted.specifier for version in ("0.1.2", "0.25.0", "0.26.0", "0.32.0")}
    assert list(tried.values()) == [False, False, True, True]


def test_a_temperature_goes_to_the_engine_with_its_seed(asked, tmp_path, tiny_model) -> None:
    write_json(tmp_path / "even.json", ROWS)
    given = ["--model", tiny_model, "--backend", "vllm", "--data", tmp_path / "even.json"]
    given += ["--max-new-tokens", 7, "--temperature", 0.7, "--top-p", 0.9, "--seed", 3]
    call(qa, *given, "--out", tmp_path / "out")
    (made,) = asked
    drawn = {
        (each.temperature, each.top_p, each.top_k, each.seed)
        for _, params, _ in made.calls
        for each in params
    }
    assert drawn == {(0.7, 0.9, 0, 3)}


def test_answers_keep_the_spaces_of_their_tokens(tiny_model: Path) -> None:
    tokenizer = load_model(tiny_model, "fp32").tokenizer
    tokenizer.clean_up_tokenization_spaces = True  # transformers' default of some models: `a!= b`
    ids = tokenizer("a != b , c . Do n't", add_special_tokens=False)["input_ids"]
    model = engine.Engine(llm=None, adapters=[], tokenizer=tokenizer, ends=[tokenizer.eos_token_id])
    assert model._text([*ids, tokenizer.eos_token_id]) == "a != b , c . Do n't"
