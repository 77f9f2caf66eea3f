"""A LoRA of a base model answers alike in five ways: scored, summed, fused, as a GGUF and in llama.cpp.

The real LLaMA-Factory trains it with its template's end token, which the base does not end at. The oracle is
LLaMA-Factory's own do_predict.
"""

import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from testing.forks import Forks
from testing.llama_server import llama_server, write_program
from testing.tiny import make_tiny
from tests.cli.scoring import call
from tests.json_files import read_json, read_lines, write_json
from tests.serving import free_port, running
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.prove.__main__ import cli as prove
from tuneyard.eval.prove.modelfile import read_modelfile
from tuneyard.eval.qa.__main__ import cli as qa

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow
LONGEST = 16  # tokens of an answer
ANSWERS = ("no", "no no", "yes")
"""The first begins the second."""
TEMPLATES = ("qwen", "llama3", "ernie_nothink")
"""LLaMA-Factory's templates. Their end tokens are one of the base, and two that fill spare embedding rows,
of which llama.cpp knows one by its name."""


@dataclass(frozen=True)
class Trained:
    """A base, a LoRA of it, its rows, and LLaMA-Factory's own answers to them."""

    home: Path
    template: str
    answers: list[str]

    @property
    def base(self) -> Path:
        return self.home / "base"

    @property
    def lora(self) -> Path:
        return self.home / "lora"

    @property
    def rows(self) -> Path:
        return self.home / "rows.json"

    def talks(self) -> list[list[dict[str, str]]]:
        return [[{"role": "user", "content": row["instruction"]}] for row in read_json(self.rows)]


@pytest.fixture(scope="module", params=TEMPLATES)
def trained(
    request: pytest.FixtureRequest, llamafactory: Forks, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    home = tmp_path_factory.mktemp(request.param)
    make_base_model(home / "base")
    rows = []
    for number in range(12):
        question = f'Does "{number} men walk" imply that "{number + number % 3} people are outside"?'
        rows.append({"instruction": question, "input": "", "output": ANSWERS[number % len(ANSWERS)]})
    write_json(home / "rows.json", rows)
    write_json(home / "dataset_info.json", {"rows": {"file_name": "rows.json"}})
    common = {
        "model_name_or_path": str(home / "base"), "template": request.param, "stage": "sft",
        "finetuning_type": "lora", "dataset_dir": str(home), "cutoff_len": 256, "use_cpu": True,
        "report_to": "none",
    }  # fmt: skip
    training = {
        "do_train": True, "dataset": "rows", "output_dir": str(home / "lora"), "lora_target": "all",
        "lora_rank": 8, "lora_alpha": 16, "learning_rate": 5e-3, "lr_scheduler_type": "constant",
        "max_steps": 200, "per_device_train_batch_size": 12, "save_strategy": "no",
    }  # fmt: skip
    write_json(home / "train.yaml", {**common, **training})
    llamafactory.run("llamafactory.cli", "train", home / "train.yaml")
    predicting = {
        "do_predict": True, "predict_with_generate": True, "eval_dataset": "rows",
        "adapter_name_or_path": str(home / "lora"), "output_dir": str(home / "predicted"),
        "per_device_eval_batch_size": 12, "max_new_tokens": LONGEST, "do_sample": False,
    }  # fmt: skip
    write_json(home / "predict.yaml", {**common, **predicting})
    llamafactory.run("tests.integration.do_predict", home / "predict.yaml")
    predictions = read_lines(home / "predicted/generated_predictions.jsonl")
    answers = [row["predict"] for row in predictions]
    assert answers == [row["output"] for row in rows]  # it learned to answer, and to end
    return Trained(home, request.param, answers)


def make_base_model(folder: Path) -> None:
    """A base (not Instruct) without a chat template, which ends at <|endoftext|>. Spare rows embed nothing.

    Its embedding is large, so that a LoRA can make an answer certain.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_tiny(folder, vocab_size=1024)
    (folder / "chat_template.jinja").unlink()
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(10)
    model.config.eos_token_id = model.generation_config.eos_token_id = 0
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)


def ask(url: str, path: str, body: object) -> dict:
    request = urllib.request.Request(url.removesuffix("/v1") + path, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def chat_answers(url: str, trained: Trained, **more: object) -> list[str]:
    """What a server answers to the messages alone, by its own chat template and end tokens."""
    texts = []
    for talk in trained.talks():
        body = {"messages": talk, "max_tokens": LONGEST, "temperature": 0, **more}
        (choice,) = ask(url, "/v1/chat/completions", body)["choices"]
        assert choice["finish_reason"] == "stop"
        texts.append(choice["message"]["content"])
    return texts


def scored(trained: Trained, out: Path, name: str, *words: object) -> list[str]:
    """The answers that `eval qa` keeps of a model."""
    call(qa, "--data", trained.rows, "--max-new-tokens", LONGEST, "--out", out, *words)
    return [row["model_output"] for row in read_lines(out / name / "rows/predictions.jsonl")]


@pytest.fixture(scope="module")
def fused(trained: Trained) -> Path:
    folder = trained.home / "fused"
    call(adapters, "fuse", trained.lora, "--base", trained.base, "--dtype", "fp32", "--out", folder)
    return folder


@pytest.fixture(scope="module")
def gguf(trained: Trained, fused: Path) -> Path:
    file = trained.home / "fused.gguf"
    call(adapters, "export", fused, "--to", "gguf", "--out", file)
    return file


def test_the_adapter_is_scored_with_llamafactorys_answers(trained: Trained, tmp_path: Path) -> None:
    half = f"{trained.lora}:0.5"
    words = ("--model", trained.base, "--adapter", f"one={trained.lora}", "--adapter", f"sum={half}+{half}")
    assert scored(trained, tmp_path / "out", "one", *words) == trained.answers
    summed = read_lines(tmp_path / "out/sum/rows/predictions.jsonl")
    assert [row["model_output"] for row in summed] == trained.answers


def test_a_merge_answers_alike(trained: Trained, tmp_path: Path) -> None:
    call(adapters, "merge", f"{trained.lora}=0.5", f"{trained.lora}=0.5", "--out", tmp_path / "merged")
    words = ("--model", trained.base, "--adapter", f"one={tmp_path / 'merged'}", "--no-base")
    assert scored(trained, tmp_path / "out", "one", *words) == trained.answers


def test_the_fused_model_answers_alike(trained: Trained, fused: Path, tmp_path: Path) -> None:
    assert scored(trained, tmp_path / "out", "base", "--model", fused) == trained.answers


def test_a_label_that_begins_another_is_scored_with_its_end(trained: Trained, tmp_path: Path) -> None:
    words = ("--model", trained.base, "--adapter", f"one={trained.lora}", "--no-base")
    call(nli, "--data", trained.rows, *words, "--variants", "none", "--out", tmp_path / "out")
    rows = read_lines(tmp_path / "out/one/rows/predictions.jsonl")
    assert [max(row["choices"], key=row["choices"].get) for row in rows] == trained.answers
    # each trained answer has a probability near 1 with its end, which no other answer has
    assert min(max(row["choices"].values()) for row in rows) > -0.1


def test_the_gguf_of_the_fused_model_answers_alike(trained: Trained, gguf: Path) -> None:
    with llama_server(gguf, settings={"use_jinja": True}) as url:
        assert chat_answers(url, trained) == trained.answers


def test_a_modelfile_answers_alike(trained: Trained, gguf: Path, fused: Path) -> None:
    """llama.cpp instead of Ollama: TEMPLATE rendered as Ollama does, with its stop words."""
    file = trained.home / "Modelfile"
    call(adapters, "export", fused, "--to", "ollama", "--gguf", gguf, "--out", file)
    served = read_modelfile(file)
    stops = [
        json.loads(line.removeprefix("PARAMETER stop "))
        for line in file.read_text().splitlines()
        if line.startswith("PARAMETER stop ")
    ]
    with llama_server(gguf) as url:
        texts = []
        for talk in trained.talks():
            body = {"prompt": served.render(talk), "n_predict": LONGEST, "temperature": 0, "stop": stops}
            answer = ask(url, "/completion", body)
            assert answer["stop_type"] in ("eos", "word")
            texts.append(answer["content"])
    assert texts == trained.answers


@contextmanager
def served(trained: Trained, words: Sequence[object]) -> Iterator[str]:
    """The address of a llama.cpp server that `tuneyard adapter serve` runs."""
    port = free_port()
    command = [sys.executable, "-m", "tuneyard.adapters", "serve", *map(str, words), "--engine", "llama.cpp"]
    command += ["--port", str(port), "--out", str(trained.home / "serving")]
    url, log = f"http://127.0.0.1:{port}/v1", trained.home / "server.log"
    variables = {"PATH": f"{os.environ['PATH']}:{write_program(trained.home / 'bin')}"}
    with running(command, url, log, variables) as server:
        yield url
        server.send_signal(signal.SIGINT)
        assert server.wait() == 0, log.read_text()


def test_llama_cpp_serves_the_adapter_with_the_same_answers(trained: Trained) -> None:
    with served(trained, [trained.lora, "--base", trained.base]) as url:
        assert chat_answers(url, trained) == trained.answers


def test_prove_finds_training_scoring_and_serving_equal(
    trained: Trained, gguf: Path, fused: Path, tmp_path: Path
) -> None:
    words = ["--model", trained.base, "--adapter", f"lora={trained.lora}", "--template", trained.template]
    words += ["--fused", fused, "--gguf", gguf, "--data", trained.rows, "--max-new-tokens", LONGEST]
    with served(trained, [trained.lora, "--base", trained.base]) as url:
        call(prove, *words, "--url", url, "--out", tmp_path / "proof")
    proof = read_json(tmp_path / "proof/prove.json")
    assert proof["proved"]
    assert [one["flips"] for one in proof["answers"]] == [[], [], []]
    assert [one["within"] for one in proof["chats"]] == [True]
