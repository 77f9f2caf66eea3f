"""`adapter serve` starts a real llama.cpp server whose base and adapters answer as in this process.

The server is the program `llama-server`, or where it is not on PATH the llama.cpp of the package xllamacpp.
"""

import json
import os
import shutil
import signal
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from testing.llama_server import llama_server, write_program
from testing.tiny import CHATML, make_tiny
from tests.cli.scoring import call
from tests.integration.served_model import BOS, TEMPLATE, TURN, labels, make_trained
from tests.integration.templates import TEMPLATES
from tests.json_files import read_json, write_json
from tests.serving import free_port, running
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.adapters.serve.template import trained_template
from tuneyard.core.llamafactory.prompt import chat_renderer
from tuneyard.core.llamafactory.prompt.rendering import template_renderer
from tuneyard.eval import nli
from tuneyard.eval.prove.__main__ import cli as prove
from tuneyard.eval.prove.modelfile import read_modelfile

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow
NAMES = ("walks", "plain")
NATS = 0.02  # f16 weights and states against fp32
NATS_TOGETHER = 0.04  # the same in slots of one batch, for labels of low probability: 0.014 to 0.025 seen
MESSAGES = [{"role": "user", "content": "Is it so?"}]


@pytest.fixture(scope="module")
def rslora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a trained adapter with rsLoRA and a pattern, and one of the same factors without either."""
    home = tmp_path_factory.mktemp("serve")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads of so small a model wait for one another
    trained = make_trained(home)
    torch.set_num_threads(threads)
    plain = shutil.copytree(trained.adapter, home / "plain")
    config = read_json(plain / "adapter_config.json")
    config |= {"use_rslora": False, "alpha_pattern": {}, "lora_alpha": 16}
    write_json(plain / "adapter_config.json", config)
    return home


@contextmanager
def serving(home: Path, *adapters: str) -> Iterator[str]:
    """The address of a server that `tuneyard adapter serve` runs. Ctrl-C ends it with exit code 0."""
    port = free_port()
    folders = [str(home / name) for name in adapters]
    command = [sys.executable, "-m", "tuneyard.adapters", "serve", *folders, "--engine", "llama.cpp"]
    command += ["--port", str(port), "--out", str(home / "serving")]
    url, log = f"http://127.0.0.1:{port}/v1", home / "server.log"
    paths = f"{os.environ['PATH']}:{write_program(home / 'bin')}"
    with running(command, url, log, {"PATH": paths}) as server:
        yield url
        server.send_signal(signal.SIGINT)
        assert server.wait() == 0, log.read_text()
    printed = log.read_text()
    assert f"result: {url}\n" in printed and f"--url {url}" in printed


def ask(url: str, path: str, body: object = None) -> dict:
    """Send a request to the server and read its JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url.removesuffix("/v1") + path, data)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def scored(home: Path, out: Path, *words: str) -> Path:
    """Score the rows by choice, by default in this process with base and adapters in fp32."""
    model, data = str(home / "base"), str(home / "walks.json")
    call(nli.cli, "--model", model, "--data", data, "--out", out, *words)
    return out


def served_labels(home: Path, url: str, out: Path) -> list[dict[str, float]]:
    """Labels of a request that chooses no adapter."""
    there = scored(home, out, "--backend", "openai", "--url", url, "--mode", "choice", "--timeout", "60")
    return labels(there / "base")


def assert_equal(found: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    for row, expected_row in zip(found, expected, strict=True):
        assert row == pytest.approx(expected_row, abs=NATS)


def test_base_and_two_adapters_answer_as_they_were_trained(rslora, tmp_path) -> None:
    here = scored(rslora, tmp_path / "here", "--dtype", "fp32")
    with serving(rslora, *NAMES) as url:
        props = ask(url, "/props")
        params = props["default_generation_settings"]["params"]
        assert [params[name] for name in ("temperature", "top_k", "top_p", "min_p")] == [0, 0, 1, 0]
        assert props["default_generation_settings"]["n_ctx"] == 2048
        prompt = ask(url, "/apply-template", {"messages": MESSAGES})["prompt"]
        assert prompt.startswith(f"{BOS}{TURN}system\n") and prompt.endswith("</think>\n\n")
        assert_equal(served_labels(rslora, url, tmp_path / "there"), labels(here / "base"))
        named = [word for name in NAMES for word in ("--adapter", f"{name}={rslora / name}")]
        command = ["--model", rslora / "base", *named, "--url", url, "--data", rslora / "walks.json"]
        call(prove, *command, "--out", tmp_path / "proof")
    proof = read_json(tmp_path / "proof" / "prove.json")
    assert proof["proved"]
    compared = {name: [one for one in proof["answers"] if one["model"].startswith(name)] for name in NAMES}
    for name in NAMES:
        assert [one["largest"] < NATS_TOGETHER for one in compared[name]] == [True], proof["answers"]
    print({one["model"]: (one["n"], one["largest"]) for one in proof["answers"]})
    of_base = [one for one in proof["answers"] if "without an adapter" in one["model"]]
    assert [one["largest"] < NATS for one in of_base] == [True]


def test_a_modelfile_answers_as_trained(rslora) -> None:
    """llama.cpp instead of Ollama: TEMPLATE rendered as Ollama does, greedy as its PARAMETERs say."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    fused, gguf, file = rslora / "fused", rslora / "fused.gguf", rslora / "Modelfile"
    for words in (
        ["fuse", rslora / "walks", "--base", rslora / "base", "--dtype", "fp32", "--out", fused],
        ["export", fused, "--to", "gguf", "--out", gguf],
        ["export", fused, "--to", "ollama", "--gguf", gguf, "--out", file, "--parameter", "num_ctx=1024"],
    ):
        call(adapters, *words)
    served = read_modelfile(file)
    lines = file.read_text().splitlines()
    assert {"PARAMETER num_ctx 1024", "PARAMETER temperature 0", "PARAMETER repeat_penalty 1"} <= {*lines}
    settings = {"temperature": 0, "repeat_penalty": 1}
    rows = read_json(rslora / "walks.json")
    tokenizer = AutoTokenizer.from_pretrained(fused)
    model = AutoModelForCausalLM.from_pretrained(fused).eval()
    render = chat_renderer(tokenizer, TEMPLATE)
    with llama_server(gguf, slots=1, settings={"sampling.temp": 0.0}) as url:
        for row in rows:
            talk = [{"role": "user", "content": row["instruction"]}]
            prompt = served.render(talk)
            ids = tokenizer(render(talk, True), return_tensors="pt", add_special_tokens=False)["input_ids"]
            asked = {"content": prompt, "add_special": True, "parse_special": True}
            assert ask(url, "/tokenize", asked)["tokens"] == ids[0].tolist()
            answer = ask(url, "/completion", {"prompt": prompt, "n_predict": 8, **settings})
            mask = torch.ones_like(ids)  # this tokenizer pads with BOS
            greedy = model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
            greedy = greedy[0, ids.shape[1] :]
            assert answer["content"] == tokenizer.decode(greedy, skip_special_tokens=True)
            assert answer["stop_type"] in ("eos", "word") and greedy[-1] == tokenizer.eos_token_id


def test_the_template_is_the_one_that_gives_llamafactorys_token_ids(tmp_path) -> None:
    folder = make_tiny(tmp_path / "model")
    qwen = TEMPLATES["qwen"]
    for saved, trained in ((qwen, ("qwen", None)), (CHATML, ("", None))):
        (folder / "chat_template.jinja").write_text(saved)
        assert trained_template(folder, trained, saved, think=False) == saved
    for trained in (("qwen", "Be brief."), ("llama2", None)):  # the saved template writes other prompts
        text = trained_template(folder, trained, qwen, think=False)
        assert text != qwen
        prompt = template_renderer(text, {}, think=True)(MESSAGES, True)
        assert ("Be brief." in prompt) == (trained[1] is not None) and ("[INST]" in prompt) == (
            not trained[1]
        )
