"""A real vLLM server, as `adapter serve` starts it and with the mistakes that only vLLM shows.

It wants `.venv-vllm` (`make setup-vllm`, where vLLM's build for CPUs is enough), or the folder that
TUNEYARD_VLLM names.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.scoring import call, invoke
from tests.integration.served_model import labels, make_trained
from tests.json_files import read_json
from tests.messages import raises
from tests.serving import free_port, running
from tests.unit.adapters.make import factors, make
from tests.unit.eval_prove.test_diagnosis import RANK_IN_VLLM
from tests.vllm_compare import VLLM, needs_vllm
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.core.errors import ContentError
from tuneyard.eval import chat, nli
from tuneyard.eval.prove.__main__ import cli as prove

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_vllm]
NATS = 0.1  # adapter serve leaves the dtype to vLLM, which makes bf16 of fp32
NATS_FP32 = 1e-4
HIGH_RANK = 32
VARIABLES = {
    "PATH": f"{VLLM.parent}:{os.environ['PATH']}", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a trained adapter `walks`, it merged for vLLM (`good`), and one of rank 32 (`high`)."""
    home = tmp_path_factory.mktemp("vllm_server")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads of so small a model wait for one another
    make_trained(home, hidden_size=128, intermediate_size=256)  # vLLM's heads on a CPU: 32 numbers or more
    torch.set_num_threads(threads)
    call(adapters, "merge", f"{home / 'walks'}=1", "--out", home / "good")
    for file in (home / "base").glob("tokenizer*"):
        shutil.copy(file, home / "good")
    pairs = factors(layers=1, rank=HIGH_RANK, shapes={"q_proj": (128, 128)})
    config = {"r": HIGH_RANK, "target_modules": ["q_proj"], "base_model_name_or_path": str(home / "base")}
    make(home / "high", pairs, **config)
    return home


@pytest.fixture(scope="module")
def mistaken(trained: Path) -> Iterator[str]:
    """A server in fp32 without the chat template. `lost` is the base under an adapter's name."""
    port = free_port()
    base, url, log = str(trained / "base"), f"http://127.0.0.1:{port}/v1", trained / "mistaken.log"
    command = [str(VLLM.parent / "vllm"), "serve", base, "--served-model-name", base, "lost"]
    command += ["--port", str(port), "--dtype", "float32", "--max-loras", "2", "--max-lora-rank", "16"]
    command += ["--enable-lora", "--lora-modules", f"good={trained / 'good'}"]
    variables = {**VARIABLES, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    with running(command, url, log, variables):
        yield url


def prove_server(home: Path, url: str, *names: str, code: int = 0) -> dict[str, Any]:
    """Compare a server with adapters of these names and folders, `NAME=FOLDER`; prove.json."""
    words = ["--model", home / "base", "--url", url, "--data", home / "walks.json"]
    words += ["--max-new-tokens", "8", "--timeout", "60", "--out", home / "proof"]
    for name in names:
        adapter, _, folder = name.partition("=")
        words += ["--adapter", f"{adapter}={home / folder}"]
    with raises(ContentError, "prove.md") if code else contextlib.nullcontext():
        call(prove, *words)
    proof: dict[str, Any] = read_json(home / "proof" / "prove.json")
    assert proof["proved"] == (code == 0)
    for part in ("answers", "prompts", "chats"):
        print(url, part, [{**entry, "first": None} for entry in proof[part]])
    return proof


def ask(url: str, path: str, body: dict[str, object]) -> tuple[int, str]:
    """Status and text of a server's answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url.removesuffix("/v1") + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_server_of_adapter_serve_answers_as_trained(trained: Path, tmp_path: Path) -> None:
    port = free_port()
    url, log = f"http://127.0.0.1:{port}/v1", tmp_path / "served.log"
    command = [sys.executable, "-m", "tuneyard.adapters", "serve", str(trained / "good"), "--engine", "vllm"]
    command += ["--port", str(port), "--out", str(trained / "serving")]
    data = ["--data", trained / "walks.json"]
    with running(command, url, log, VARIABLES) as server:
        assert f"result: {url}\n" in log.read_text()
        proof = prove_server(trained, url, "good=good")
        words = ["--backend", "openai", "--url", url, "--mode", "choice", "--served-model", "good"]
        call(nli.cli, "--model", trained / "good", *words, *data, "--out", tmp_path / "there")
        row = read_json(trained / "walks.json")[1]
        talk = ["--once", row["instruction"], "--max-new-tokens", "8"]
        served = invoke(chat.cli, "--url", url, "--served-model", "good", *talk)
        server.send_signal(signal.SIGINT)
        assert server.wait() == 0, log.read_text()
    assert (served.exit_code, served.stdout.strip()) == (0, row["output"])
    compared = {f"good at {url}", f"{trained / 'base'} at {url}"}
    assert {one["way"] for one in proof["prompts"]} == {one["model"] for one in proof["answers"]} == compared
    assert [one["n"] for one in (*proof["answers"], *proof["chats"], *proof["prompts"])] == [12] * 6
    assert all(0 < one["largest"] < NATS and one["differing"] == 0 for one in proof["answers"])
    assert all(one["differing"] == 0 for one in proof["chats"])
    words = ["--adapter", f"good={trained / 'good'}", "--dtype", "fp32"]
    call(nli.cli, "--model", trained / "base", *words, *data, "--out", tmp_path / "here")
    for there, here in zip(labels(tmp_path / "there/good"), labels(tmp_path / "here/good"), strict=True):
        assert there == pytest.approx(here, abs=NATS)


def test_a_template_and_an_adapter_that_are_missing_are_named(trained: Path, mistaken: str) -> None:
    proof = prove_server(trained, mistaken, "good=good", "lost=good", code=1)
    largest = {one["model"]: one["largest"] for one in proof["answers"]}
    assert largest[f"good at {mistaken}"] < NATS_FP32 < 0.5 < largest[f"lost at {mistaken}"]
    assert {one["model"]: one["differing"] for one in proof["answers"]}[f"good at {mistaken}"] == 0
    causes: dict[str, set[str]] = {}
    for cause in proof["causes"]:
        causes.setdefault(cause["model"], set()).add(cause["name"])
    assert causes[f"good at {mistaken}"] == {"chat template not given", "temperature"}
    of_base = causes[f"lost at {mistaken}"] - {"temperature"}
    assert of_base == {"chat template not given", "adapter not loaded"}
    sentences = " ".join(cause["sentence"] for cause in proof["causes"])
    assert f"--chat-template {trained / 'good' / 'chat_template.jinja'}" in sentences
    assert f"--enable-lora --lora-modules good={trained / 'good'}" in sentences


def test_a_rank_above_the_limit_is_refused(trained: Path, mistaken: str) -> None:
    body = {"lora_name": "high", "lora_path": str(trained / "high")}
    assert ask(mistaken, "/v1/load_lora_adapter", body) == (500, RANK_IN_VLLM)
